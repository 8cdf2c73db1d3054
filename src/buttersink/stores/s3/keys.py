"""
What the keys in a bucket say: which diff an object is, of which snapshot. No I/O here.

A diff is `<prefix>/<path>/<toUUID>_<fromUUID>`, `None` for a full one, as ButterSink 0.6 wrote it.
Beside it lies its record, a small object with the same key and an ending that holds what a listing
wants to know: `<diff's key>.<generation>.<created>.<digest>.json`. The digest is of the record, so
two runs that write one diff do not write over each other's. Readers that do not know of records
skip them.

A path that a key cannot hold as it is (not UTF-8, or characters that XML has not, which no server
could list) is written with %XX; such a key means that path only if the diff has a record, since 0.6
knew no such thing.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from buttersink.catalogue import Diff, uuid_from_text, uuid_text
from buttersink.errors import ReceiveError

TRASH = "trash/"
"""What the keys of deleted diffs begin with, from the top of the bucket."""

SIZES = ".bs"
"""What the keys end with of files of sizes that ButterSink 0.6 wrote; nothing here needs them."""

MAX_KEY = 1024
"""Bytes that a key may have (S3 user guide, "Object key naming guidelines")."""

_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_DIFF = re.compile(
    rf"(?:(?P<path>.*)/)?(?P<to>{_UUID})_(?P<parent>{_UUID}|None)"
    r"(?:\.(?P<generation>\d{1,20})\.(?P<created>\d{1,20})\.[0-9a-f]{16}\.json)?",
    re.DOTALL,
)
_PLAIN = re.compile(rb"(?:(?!\xef\xbf[\xbe\xbf])[^\x00-\x1f\x7f%])*")  # not U+FFFE, U+FFFF


class DiffKey(NamedTuple):
    """
    What a key says.

    Attributes:
        path: Of the snapshot, as it stands in the key.
        diff: What the object is, or what its record is about.
        generation: Of the snapshot; None if this is the diff itself.
        created: When the snapshot was made, in nanoseconds since the epoch; None likewise.

    """

    path: str
    diff: Diff
    generation: int | None = None
    created: int | None = None


def parse_key(key: str) -> DiffKey | None:
    """Return what a key, without its prefix, says; None if it is neither a diff nor a record."""
    found = _DIFF.fullmatch(key)
    if found is None:
        return None
    parent = None if found["parent"] == "None" else uuid_from_text(found["parent"])
    generation, created = found["generation"], found["created"]
    return DiffKey(
        found["path"] or "",
        Diff(uuid_from_text(found["to"]), parent),
        None if generation is None else int(generation),
        None if created is None else int(created),
    )


def diff_key(prefix: str, path: bytes, diff: Diff) -> str:
    """Return the key of a diff; `ReceiveError` if no key can hold it."""
    parent = uuid_text(diff.parent) if diff.parent else "None"
    key = f"{under(prefix)}{path_text(path)}/{uuid_text(diff.to)}_{parent}"
    if key.startswith(TRASH):
        why = f"keys that begin with {TRASH} are those of deleted diffs"
        hint = "Use a prefix, or another name for the snapshot."
        raise ReceiveError("cannot keep the snapshot", where=path, why=why, hint=hint)
    if len(record_key(key, 2**63, 2**63, b"").encode()) > MAX_KEY:
        why = f"its key would be longer than {MAX_KEY} bytes"
        raise ReceiveError("cannot keep the snapshot", where=path, why=why, hint="Shorten it.")
    return key


def record_key(key: str, generation: int, created: int, record: bytes) -> str:
    """Return the key of a record that belongs to a diff's key."""
    digest = hashlib.sha256(record).hexdigest()[:16]
    return f"{key}.{generation}.{created}.{digest}.json"


def under(prefix: str) -> str:
    """Return what the keys below a prefix begin with."""
    return f"{prefix}/" if prefix else ""


def path_text(path: bytes) -> str:
    """Return a path as it stands in keys."""
    if _PLAIN.fullmatch(path):
        try:
            return path.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return quote_from_bytes(path, safe="/ !\"#$&'()*+,:;<=>?@[\\]^`{|}~")


def path_of(text: str, *, recorded: bool) -> bytes:
    """Return the path that stands in a key, which has a record or not."""
    return unquote_to_bytes(text) if recorded else text.encode("utf-8", "surrogateescape")
