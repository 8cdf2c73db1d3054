"""
What a store holds, as frozen values: snapshots, diffs, partial transfers. No I/O here.

A snapshot is known everywhere by its effective UUID (`Snapshot.uuid`): the received UUID if it has
one, else its own. Paths are bytes, relative to the store's location, without leading slash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

Uuid = NewType("Uuid", bytes)
"""The 16 bytes of a UUID in the order the kernel and a send stream hold them."""


def uuid_text(uuid: Uuid) -> str:
    """Return the usual hyphened form, in lower case."""
    digits = uuid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def uuid_from_text(text: str) -> Uuid:
    """Return the UUID written as `text`, with or without hyphens; `ValueError` if it is none."""
    uuid = bytes.fromhex(text.replace("-", ""))
    if len(uuid) != 16:
        raise ValueError(text)
    return Uuid(uuid)


class Exactness(StrEnum):
    """How a size is known."""

    MEASURED = "measured"  # by a metadata-only send: exact to the byte
    STORED = "stored"  # the diff lies there in this size
    BOUNDED = "bounded"  # no more than this, by the sizes of other diffs
    UNFINISHED = "unfinished"  # no less than this: measuring it was broken off
    ESTIMATED = "estimated"  # a guess


@dataclass(frozen=True, slots=True)
class Size:
    """A length in bytes, and how it is known."""

    bytes: int
    exactness: Exactness

    @property
    def exact(self) -> bool:
        """Whether it is right to the byte."""
        return self.exactness in (Exactness.MEASURED, Exactness.STORED)


class Diff(NamedTuple):
    """
    A send stream that makes `to` out of `parent`; with no parent a full send.

    `clones` are the effective UUIDs of further snapshots that both sides have and that the stream
    may take data from. They are sorted, so that equal diffs are equal.
    """

    to: Uuid
    parent: Uuid | None
    clones: tuple[Uuid, ...] = ()


class Measurement(NamedTuple):
    """
    The exact length in bytes of a diff's stream, and of how many commands it consists.

    `extents` is how many of those are for a stretch of a file's data, and `own_clones` how many of
    these clone one from the snapshot itself.
    `clones` are those of the diff's clone sources that the stream takes data from, in their order.
    `remembered` if that is known from an earlier run. Not `finished` if it has at least so many
    bytes and commands, and measuring was broken off. A `problem` says why it could not be measured.
    """

    diff: Diff
    bytes: int
    commands: int
    clones: tuple[Uuid, ...] = ()
    remembered: bool = False
    finished: bool = True
    problem: str = ""
    extents: int = 0
    own_clones: int = 0

    @property
    def size(self) -> Size:
        """The bytes and how they are known."""
        return Size(self.bytes, Exactness.MEASURED if self.finished else Exactness.UNFINISHED)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A read-only subvolume, or in a store of diffs a snapshot that a chain of diffs makes.

    Attributes:
        uuid: The effective UUID.
        own_uuid: The subvolume's own UUID.
        parent_uuid: Own UUID of the subvolume it was snapshotted from; that may be gone.
        received_uuid: UUID of the snapshot it was received from.
        generation: The transaction that last changed its content on the file system where it was
            made: orders the snapshots of one lineage in time.
        created: When the subvolume was made, in nanoseconds since the epoch.
        path: Relative to the location; for one outside of it, from the top of the file system.
        subvolume_id: Number of the subvolume in its file system, 0 in a store that has none.
        size: What it holds or what a full send of it takes, if known.
        exclusive: Bytes that only this snapshot holds, if quota groups tell.

    """

    uuid: Uuid
    own_uuid: Uuid
    parent_uuid: Uuid | None
    received_uuid: Uuid | None
    generation: int
    created: int
    path: bytes
    subvolume_id: int = 0
    size: Size | None = None
    exclusive: int | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """
    What an interrupted transfer left; never a snapshot.

    Attributes:
        path: Relative to the location.
        uuid: Effective UUID of the snapshot it was going to be.
        modified: When it last changed, in nanoseconds since the epoch.
        subvolume_id: Number of the subvolume in its file system, 0 in a store that has none.
        size: Bytes it holds, if known.

    """

    path: bytes
    uuid: Uuid
    modified: int
    subvolume_id: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """
    Everything a store holds, read once.

    Attributes:
        snapshots: Those inside the location, by path; two may share an effective UUID.
        outside: Those on the same file system but not inside the location: they can be parents or
            be copied, and are never deleted.
        lineage: Own UUID to parent UUID of every subvolume of the file system, writable ones too;
            sixteen zero bytes for one that was made from nothing.
        diffs: The diffs it holds, with their sizes; empty where any diff can be made.
        partials: What interrupted transfers left inside the location.
        unreadable: Why some of the diffs cannot be read now, and what to do.
        altered: Paths of received snapshots inside the location whose content was changed since.
            They are listed as what they are now, by their own UUID.

    """

    snapshots: tuple[Snapshot, ...] = ()
    outside: tuple[Snapshot, ...] = ()
    lineage: Mapping[Uuid, Uuid] = field(default_factory=lambda: MappingProxyType({}))
    diffs: Mapping[Diff, Size] = field(default_factory=lambda: MappingProxyType({}))
    partials: tuple[Partial, ...] = ()
    unreadable: Mapping[Diff, str] = field(default_factory=lambda: MappingProxyType({}))
    altered: tuple[bytes, ...] = ()
