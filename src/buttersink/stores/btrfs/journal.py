"""
The journal of a receive in segments: a small file that says what a checkpoint holds.

It lies beside the partials and is written only when the checkpoint is on disk, in one step: a
reader finds the one before or this one. It is believed only where nobody but the user or root can
have put it, and names what the checkpoint has to be, so that one that was changed is found out.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from buttersink.catalogue import Diff, Uuid, uuid_from_text, uuid_text
from buttersink.errors import ResumeError
from buttersink.stream import Checkpoint
from buttersink.stream.segments import Stretch

if TYPE_CHECKING:
    from buttersink.kernel.ioctl import SubvolumeInfo

FORMAT = 1
_MOST_BYTES = 1024 * 1024  # of a file: room for some ten thousand clone sources
_NEW = b".new"  # while it is being written


@dataclass(frozen=True, slots=True)
class Journal:
    """
    What a checkpoint is.

    Attributes:
        diff: The diff of which it holds the beginning.
        checkpoint: How much of it.
        name: The subvolume's, in the same directory.
        own_uuid: The subvolume's.
        received_uuid: The invented one by which the next segment finds it.
        ctransid: The transaction that last changed it: another one, and it has been changed.

    """

    diff: Diff
    checkpoint: Checkpoint
    name: bytes
    own_uuid: Uuid
    received_uuid: Uuid
    ctransid: int

    def fits(self, found: SubvolumeInfo) -> bool:
        """Return whether a subvolume is the checkpoint, unchanged."""
        return found.read_only and (self.own_uuid, self.received_uuid, self.ctransid) == (
            found.uuid,
            found.received_uuid,
            found.ctransid,
        )

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        document = {
            "buttersink": FORMAT,
            "to": uuid_text(self.diff.to),
            "from": uuid_text(self.diff.parent) if self.diff.parent else None,
            "clones": [uuid_text(uuid) for uuid in self.diff.clones],
            "version": self.checkpoint.version,
            "stretches": [[each.length, each.sha256.hex()] for each in self.checkpoint.stretches],
            "crc32c": self.checkpoint.crc32c,
            "name": os.fsdecode(self.name),
            "uuid": uuid_text(self.own_uuid),
            "received_uuid": uuid_text(self.received_uuid),
            "ctransid": self.ctransid,
        }
        return (json.dumps(document) + "\n").encode("ascii")


def parse_journal(raw: bytes) -> Journal:
    """Return a stored journal; `ResumeError` if it is none or of a later format."""
    try:
        document: dict[str, Any] = json.loads(raw)
        if document["buttersink"] != FORMAT:
            raise _not_usable(f"its journal has format {document['buttersink']}")
        parent = document["from"]
        return Journal(
            Diff(
                uuid_from_text(document["to"]),
                None if parent is None else uuid_from_text(parent),
                tuple(uuid_from_text(text) for text in document["clones"]),
            ),
            Checkpoint(
                int(document["version"]),
                _stretches(document["stretches"]),
                None if document["crc32c"] is None else int(document["crc32c"]) & 0xFFFFFFFF,
            ),
            os.fsencode(document["name"]),
            uuid_from_text(document["uuid"]),
            uuid_from_text(document["received_uuid"]),
            int(document["ctransid"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_usable("its journal is damaged") from error


def _stretches(found: list[tuple[int, str]]) -> tuple[Stretch, ...]:
    stretches = tuple(Stretch(int(size), bytes.fromhex(digest)) for size, digest in found)
    if not stretches or min(stretches).length < 1:
        raise ValueError(found)
    return stretches


def _not_usable(why: str) -> ResumeError:
    return ResumeError("cannot be gone on with", why=why)


def read_journal(directory_fd: int, name: bytes) -> Journal | None:
    """Return the journal of this name, None if there is none; `ResumeError` if it is no good."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no FIFO makes it wait
    try:
        with open(os.open(name, flags, dir_fd=directory_fd), "rb") as file:
            status = os.fstat(file.fileno())
            strange = not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES
            if strange or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                raise _not_usable("its journal is not the file that was left there")
            return parse_journal(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_usable(f"its journal cannot be read ({error.strerror})") from error


def write_journal(directory_fd: int, name: bytes, journal: Journal) -> None:
    """Write a journal, durably and in the place of the one before it; `OSError`."""
    new = name + _NEW
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(new, flags, 0o600, dir_fd=directory_fd), "wb") as file:
        file.write(journal.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    os.fsync(directory_fd)


def remove_journal(directory_fd: int, name: bytes) -> None:
    """Remove a journal, if it is there; `OSError`."""
    for each in (name, name + _NEW):
        with suppress(FileNotFoundError):
            os.unlink(each, dir_fd=directory_fd)
