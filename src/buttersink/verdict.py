"""What a verification has found, as frozen values. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from buttersink.catalogue import uuid_text
from buttersink.errors import printable

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping

    from buttersink.catalogue import Diff, Partial, Uuid
    from buttersink.planner.mending import Repair


class Depth(StrEnum):
    """How closely stored diffs are looked at, beside whether they lead to every snapshot."""

    CHAINS = "chains"  # not at all: the listing alone
    CHECKSUMS = "checksums"  # what the place that keeps them says of each
    FULL = "full"  # every byte


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one stored diff, for a person."""

    diff: Diff
    text: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A snapshot that no chain of sound diffs leads to, and what would bring it back."""

    snapshot: Uuid
    repair: Repair


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a verification has found.

    Attributes:
        depth: How closely it looked.
        diffs: How many diffs it looked at.
        snapshots: How many snapshots these are to lead to.
        bytes: How many it read.
        seconds: How long it took.
        broken: The diffs that are not what they should be.
        lost: The snapshots that are lost by that, or because a diff is missing.
        notes: What could not be looked at, or that a restore needs something beside the chain.
        partials: What interrupted transfers left; no error.
        paths: Where each snapshot lies.

    """

    depth: Depth
    diffs: int
    snapshots: int
    bytes: int
    seconds: float
    broken: tuple[Finding, ...]
    lost: tuple[Loss, ...]
    notes: tuple[Finding, ...]
    partials: tuple[Partial, ...]
    paths: Mapping[Uuid, builtins.bytes]

    @property
    def sound(self) -> bool:
        """Whether nothing is broken or lost."""
        return not self.broken and not self.lost


def snapshot_name(uuid: Uuid, paths: Mapping[Uuid, bytes]) -> str:
    """Return where a snapshot lies as printable text, or its UUID if that is not known."""
    return printable(paths[uuid]) if uuid in paths else uuid_text(uuid)


def diff_name(diff: Diff, paths: Mapping[Uuid, bytes]) -> str:
    """Return a diff in words: the snapshot it makes and what it starts from."""
    origin = "in full" if diff.parent is None else f"from {snapshot_name(diff.parent, paths)}"
    return f"{snapshot_name(diff.to, paths)} {origin}"
