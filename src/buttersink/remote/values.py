"""
Values as JSON and back, read as if an enemy had written them. No I/O here.

Paths and names travel as text in which a byte that is not UTF-8 is a lone surrogate (PEP 383), all
of it in ASCII. What is read is checked: paths lead down and nowhere else, numbers are numbers that
fit, lists have an end. Keys that are not known are ignored, so that a later version may add some.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from buttersink import errors
from buttersink.catalogue import (
    Diff,
    Exactness,
    Measurement,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_from_text,
    uuid_text,
)
from buttersink.errors import Error, ProtocolError, printable
from buttersink.stream import Checkpoint
from buttersink.stream.segments import Stretch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from buttersink.planner.plan import Step

Json = dict[str, Any]
Entry = TypeVar("Entry", bound=Json | list[str])

MOST_LISTED = 100_000  # entries of a list in one message, which has 1 MiB
_MOST_AT_ONCE = 512 * 1024  # bytes of a list in one message
_MOST = 2**63 - 1
_LONGEST_PATH = 64 * 1024  # bytes; a tree may be deeper than PATH_MAX
_LONGEST_TEXT = 8 * 1024


class Named(NamedTuple):
    """How one side names a snapshot or partial of the other: effective UUID, and where it lies."""

    uuid: Uuid
    path: bytes


class Delivery(NamedTuple):
    """
    A step that brings a snapshot, as it is asked for: what the other side has it only names.

    Attributes:
        snapshot: What arrives.
        path: Where, relative to the location.
        parent: What the diff starts from.
        clones: What it takes data from.
        size: Of the diff.
        passing: Whether it is to have no name.
        replaces: What gives way.

    """

    snapshot: Snapshot
    path: bytes
    parent: Uuid | None
    clones: tuple[Uuid, ...]
    size: Size | None
    passing: bool
    replaces: Named | None

    @property
    def diff(self) -> Diff:
        """The diff that makes it."""
        return Diff(self.snapshot.uuid, self.parent, self.clones)


class Fields:
    """
    The fields of a JSON object, each read as what it has to be; else `ProtocolError`.

    Args:
        document: The object.

    """

    def __init__(self, document: object) -> None:
        if not isinstance(document, Mapping):
            raise _damaged("an object", document)
        self._document = document

    def raw(self, key: str) -> object:
        """Return a field as it is, None if it is missing."""
        return self._document.get(key)

    def number(self, key: str, most: int = _MOST) -> int:
        """Return a number from 0 to `most`."""
        return _number(self.raw(key), most)

    def number_or_none(self, key: str, most: int = _MOST) -> int | None:
        """Return such a number, or None where it is missing."""
        return None if self.raw(key) is None else self.number(key, most)

    def numbers(self, key: str, most: int = _MOST) -> tuple[int, ...]:
        """Return a list of such numbers."""
        return tuple(_number(each, most) for each in self.items(key))

    def flag(self, key: str) -> bool:
        """Return true or false; false where it is missing."""
        value = self.raw(key)
        if value not in (None, True, False) or isinstance(value, int) != isinstance(value, bool):
            raise _damaged(key, value)
        return bool(value)

    def text(self, key: str) -> str:
        """Return text for a person: one line, not endless, empty where it is missing."""
        value = self.raw(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _damaged(key, value)
        return printable(value[:_LONGEST_TEXT])

    def uuid(self, key: str) -> Uuid:
        """Return a UUID."""
        return _uuid(self.raw(key))

    def uuid_or_none(self, key: str) -> Uuid | None:
        """Return a UUID, or None where it is missing."""
        return None if self.raw(key) is None else self.uuid(key)

    def uuids(self, key: str) -> tuple[Uuid, ...]:
        """Return a list of UUIDs."""
        return tuple(map(_uuid, self.items(key)))

    def path(self, key: str) -> bytes:
        """Return a path that leads down from where it starts: no `..`, no slash in front."""
        return _path(self.raw(key))

    def paths(self, key: str) -> tuple[bytes, ...]:
        """Return a list of such paths."""
        return tuple(map(_path, self.items(key)))

    def raw_path(self, key: str) -> bytes | None:
        """Return a path to compare with, which may be any; None where it is missing."""
        value = self.raw(key)
        return _encoded(value) if isinstance(value, str) else None

    def items(self, key: str) -> Sequence[object]:
        """Return a list; an empty one where it is missing."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > MOST_LISTED:
            raise _damaged(key, value)
        return value

    def fields(self, key: str) -> Fields:
        """Return an object inside of this one."""
        return Fields(self.raw(key))


def batches(documents: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut a list of what travels into what fits into one message each, with room to spare."""
    batch: list[Entry] = []
    room = _MOST_AT_ONCE
    for document in documents:
        size = len(json.dumps(document)) + 1
        if batch and size > room:
            yield batch
            batch, room = [], _MOST_AT_ONCE
        batch.append(document)
        room -= size
    if batch:
        yield batch


def clean_path(path: bytes) -> bytes:
    """Return a path if it is relative and every part of it is a plain name; `ProtocolError`."""
    names = path.split(b"/")
    if b"\0" in path or len(path) > _LONGEST_PATH or {b"", b".", b".."} & {*names}:
        raise ProtocolError("refused", where=path[:1024], why="that is no path from the location")
    return path


def _path(value: object) -> bytes:
    if not isinstance(value, str):
        raise _damaged("a path", value)
    return clean_path(_encoded(value))


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise _damaged("a path", text) from error


def path_text(path: bytes) -> str:
    """Return a path as it travels."""
    return path.decode("utf-8", "surrogateescape")


def _number(value: object, most: int = _MOST) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _damaged("a number", value)
    return value


def _uuid(value: object) -> Uuid:
    try:
        if isinstance(value, str) and len(value) == 36:
            return uuid_from_text(value)
    except ValueError:
        pass
    raise _damaged("a UUID", value)


def _damaged(what: str, value: object) -> ProtocolError:
    shown = printable(repr(value)[:80]) if not isinstance(value, (list, dict)) else "a structure"
    return ProtocolError("damaged message", why=f"{what} cannot be {shown}")


def _uuid_or_null(uuid: Uuid | None) -> str | None:
    return None if uuid is None else uuid_text(uuid)


def size_json(size: Size | None) -> Json | None:
    """Return a size as it travels."""
    return None if size is None else {"bytes": size.bytes, "is": size.exactness.value}


def size_from(fields: Fields, key: str) -> Size | None:
    """Return a size, None where it is missing."""
    if fields.raw(key) is None:
        return None
    inner = fields.fields(key)
    try:
        return Size(inner.number("bytes"), Exactness(inner.text("is")))
    except ValueError as error:
        raise _damaged("a size", inner.raw("is")) from error


def snapshot_json(snapshot: Snapshot) -> Json:
    """Return a snapshot as it travels."""
    return {
        "uuid": uuid_text(snapshot.uuid),
        "own": uuid_text(snapshot.own_uuid),
        "parent": _uuid_or_null(snapshot.parent_uuid),
        "received": _uuid_or_null(snapshot.received_uuid),
        "generation": snapshot.generation,
        "created": snapshot.created,
        "path": path_text(snapshot.path),
        "id": snapshot.subvolume_id,
        "size": size_json(snapshot.size),
        "exclusive": snapshot.exclusive,
    }


def snapshot_from(document: object) -> Snapshot:
    """Return a snapshot."""
    fields = Fields(document)
    return Snapshot(
        uuid=fields.uuid("uuid"),
        own_uuid=fields.uuid("own"),
        parent_uuid=fields.uuid_or_none("parent"),
        received_uuid=fields.uuid_or_none("received"),
        generation=fields.number("generation"),
        created=fields.number("created"),
        path=fields.path("path"),
        subvolume_id=fields.number("id"),
        size=size_from(fields, "size"),
        exclusive=fields.number_or_none("exclusive"),
    )


def partial_json(partial: Partial) -> Json:
    """Return a partial as it travels."""
    return {
        "uuid": uuid_text(partial.uuid),
        "path": path_text(partial.path),
        "modified": partial.modified,
        "id": partial.subvolume_id,
        "size": partial.size,
    }


def partial_from(document: object) -> Partial:
    """Return a partial."""
    fields = Fields(document)
    return Partial(
        path=fields.path("path"),
        uuid=fields.uuid("uuid"),
        modified=fields.number("modified"),
        subvolume_id=fields.number("id"),
        size=fields.number_or_none("size"),
    )


def lineage_json(descent: tuple[Uuid, Uuid]) -> list[str]:
    """Return own and parent UUID of a subvolume as they travel."""
    return [uuid_text(uuid) for uuid in descent]


def lineage_from(document: object) -> tuple[Uuid, Uuid]:
    """Return own and parent UUID of a subvolume."""
    if not isinstance(document, list) or len(document) != 2:
        raise _damaged("a descent", document)
    return _uuid(document[0]), _uuid(document[1])


def diff_json(diff: Diff, limit: int | None = None) -> Json:
    """Return a diff as it travels, perhaps with the bytes beyond which its size does not matter."""
    document: Json = {"to": uuid_text(diff.to), "from": _uuid_or_null(diff.parent)}
    if diff.clones:
        document["clones"] = [uuid_text(uuid) for uuid in diff.clones]
    if limit is not None:
        document["limit"] = limit
    return document


def diff_from(document: object) -> Diff:
    """Return a diff."""
    fields = Fields(document)
    return Diff(fields.uuid("to"), fields.uuid_or_none("from"), fields.uuids("clones"))


def measurement_json(found: Measurement) -> Json:
    """Return a measurement as it travels."""
    return {
        "diff": diff_json(found.diff),
        "bytes": found.bytes,
        "commands": found.commands,
        "clones": [uuid_text(uuid) for uuid in found.clones],
        "remembered": found.remembered,
        "finished": found.finished,
        "problem": found.problem,
        "extents": found.extents,
        "own_clones": found.own_clones,
    }


def measurement_from(document: object) -> Measurement:
    """Return a measurement."""
    fields = Fields(document)
    return Measurement(
        diff_from(fields.raw("diff")),
        fields.number("bytes"),
        fields.number("commands"),
        fields.uuids("clones"),
        remembered=fields.flag("remembered"),
        finished=fields.flag("finished"),
        problem=fields.text("problem"),
        extents=fields.number_or_none("extents") or 0,
        own_clones=fields.number_or_none("own_clones") or 0,
    )


def checkpoint_json(checkpoint: Checkpoint | None) -> Json | None:
    """Return a checkpoint as it travels."""
    if checkpoint is None:
        return None
    return {
        "version": checkpoint.version,
        "stretches": [[each.length, each.sha256.hex()] for each in checkpoint.stretches],
        "crc32c": checkpoint.crc32c,
    }


def checkpoint_from(fields: Fields, key: str) -> Checkpoint | None:
    """Return a checkpoint, None where it is missing."""
    if fields.raw(key) is None:
        return None
    inner = fields.fields(key)
    stretches = tuple(map(_stretch, inner.items("stretches")))
    if not stretches or sum(each.length for each in stretches) > _MOST:
        raise _damaged("a checkpoint", inner.raw("stretches"))
    return Checkpoint(inner.number("version"), stretches, inner.number_or_none("crc32c", 2**32 - 1))


def _stretch(document: object) -> Stretch:
    if isinstance(document, list) and len(document) == 2 and isinstance(document[1], str):
        length, digest = _number(document[0]), document[1]
        if length and len(digest) == 64:
            try:
                return Stretch(length, bytes.fromhex(digest))
            except ValueError:
                pass
    raise _damaged("a stretch", document)


def named_json(thing: Snapshot | Partial | None) -> Json | None:
    """Return the name of what the other side has."""
    if thing is None:
        return None
    return {"uuid": uuid_text(thing.uuid), "path": path_text(thing.path)}


def named_from(document: object) -> Named:
    """Return the name of what this side has."""
    fields = Fields(document)
    return Named(fields.uuid("uuid"), fields.path("path"))


def delivery_json(step: Step) -> Json:
    """Return a step that brings a snapshot as it travels."""
    if step.snapshot is None:
        raise ValueError(step)
    return {
        "snapshot": snapshot_json(step.snapshot),
        "path": path_text(step.path),
        "parent": _uuid_or_null(step.parent.uuid if step.parent else None),
        "clones": [uuid_text(clone.uuid) for clone in step.clones],
        "size": size_json(step.size),
        "passing": step.passing,
        "replaces": named_json(step.replaces),
    }


def delivery_from(document: object) -> Delivery:
    """Return such a step as it is asked for."""
    fields = Fields(document)
    replaces = fields.raw("replaces")
    return Delivery(
        snapshot=snapshot_from(fields.raw("snapshot")),
        path=fields.path("path"),
        parent=fields.uuid_or_none("parent"),
        clones=fields.uuids("clones"),
        size=size_from(fields, "size"),
        passing=fields.flag("passing"),
        replaces=None if replaces is None else named_from(replaces),
    )


def error_json(error: Error) -> Json:
    """Return an error as it travels."""
    where = path_text(error.where) if isinstance(error.where, bytes) else error.where
    return {
        "class": type(error).__name__,
        "what": error.what[:_LONGEST_TEXT],
        "where": None if where is None else where[:_LONGEST_TEXT],
        "why": error.why[:_LONGEST_TEXT],
        "hint": error.hint[:_LONGEST_TEXT],
    }


def error_from(document: Mapping[str, object], host: str) -> Error:
    """
    Return the error that the other side tells of, as one of its class.

    A path from the root of its file system gets `host` in front, such as `ssh://name`.
    """
    fields = Fields(document)
    kind = getattr(errors, fields.text("class"), None)
    if not isinstance(kind, type) or not issubclass(kind, Error):
        kind = Error
    where: str | None = None if fields.raw("where") is None else fields.text("where")
    if where is not None and where.startswith("/"):
        where = host + where
    what = fields.text("what") or "it failed"
    return kind(what, where=where, why=fields.text("why"), hint=fields.text("hint"))
