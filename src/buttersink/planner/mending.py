"""
What is lost where stored diffs are broken or missing, and which diffs would bring it back.

Strategy: what sound diffs do not lead to is lost. Behind each loss stands a head: a snapshot that
is not whole and that no sound diff makes. Sent once more, from a snapshot that is whole or in full,
it makes everything whole that sound diffs lead to from there. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from buttersink.planner.reaching import reachable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from buttersink.catalogue import Diff, Uuid


@dataclass(frozen=True, slots=True)
class Repair:
    """
    A snapshot to send once more: in full, or from any that is whole.

    Attributes:
        snapshot: Its effective UUID. It may be one that is wanted by nobody, or not there at all.
        origins: Of those that are whole, what its broken diffs started from; None for a full send.

    """

    snapshot: Uuid
    origins: tuple[Uuid | None, ...] = ()


def repairs(
    diffs: Collection[Diff], broken: Collection[Diff], wanted: Iterable[Uuid]
) -> dict[Uuid, Repair]:
    """Return for each wanted snapshot that is lost what would bring it back."""
    sound = [diff for diff in diffs if diff not in broken]
    whole = reachable(sound)
    lost = [uuid for uuid in wanted if uuid not in whole]
    if not lost:
        return {}
    behind: dict[Uuid | None, list[Uuid]] = {}
    for diff in sound:
        behind.setdefault(diff.parent, []).append(diff.to)
    origins: dict[Uuid, list[Uuid | None]] = {}
    for diff in diffs:
        if diff.parent in whole:
            origins.setdefault(diff.to, []).append(diff.parent)
    mended: dict[Uuid, Repair] = {}
    for head in _heads(sound, whole, lost):
        if head not in mended:
            _mend(Repair(head, tuple(origins.get(head, ()))), behind, mended)
    return {uuid: mended[uuid] for uuid in lost}


def _heads(
    sound: Iterable[Diff], whole: Collection[Uuid | None], lost: list[Uuid]
) -> Iterator[Uuid]:
    """
    Yield what no sound diff makes: what is lost itself, then what is missing.

    Last comes everything that is lost: in a circle each is made by another one.
    """
    made = {diff.to for diff in sound}
    yield from (uuid for uuid in lost if uuid not in made)
    for diff in sound:
        if diff.parent is not None and diff.parent not in made and diff.parent not in whole:
            yield diff.parent
    yield from lost


def _mend(
    repair: Repair, behind: dict[Uuid | None, list[Uuid]], mended: dict[Uuid, Repair]
) -> None:
    """Enter a repair for everything that it makes whole and that nothing else does yet."""
    waiting = [repair.snapshot]
    while waiting:
        uuid = waiting.pop()
        if uuid not in mended:
            mended[uuid] = repair
            waiting += behind.get(uuid, ())
