"""In which order stored diffs go, so that none is ever left without its chain. No I/O here."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from buttersink.catalogue import Diff, Uuid


def children_first(stored: Collection[Diff], kept: Iterable[Diff]) -> Iterator[Diff]:
    """
    Yield the stored diffs but the kept ones, in an order in which they can go one by one.

    What the kept ones make stays within reach by them, so other ways to it go first, and with them
    what nothing leads to. Then from the deepest snapshot up: what starts from it, what makes it.
    """
    kept = set(kept)
    depths = _depths(stored)
    safe: set[Uuid | None] = {diff.to for diff in kept}
    starting: dict[Uuid | None, list[Diff]] = defaultdict(list)
    making: dict[Uuid, list[Diff]] = defaultdict(list)
    left: dict[Diff, None] = {}
    for diff in stored:
        if diff in kept:
            continue
        if diff.to in safe or diff.parent not in depths:
            yield diff
            continue
        left[diff] = None
        starting[diff.parent].append(diff)
        making[diff.to].append(diff)
    for uuid in sorted(making, key=lambda made: -depths[made]):
        for diff in (*starting[uuid], *making[uuid]):
            if diff in left:
                del left[diff]
                yield diff


def _depths(diffs: Iterable[Diff]) -> dict[Uuid | None, int]:
    """Return for nothing and each snapshot that diffs lead to how few it takes."""
    below: dict[Uuid | None, list[Uuid]] = defaultdict(list)
    for diff in diffs:
        below[diff.parent].append(diff.to)
    depths: dict[Uuid | None, int] = {}
    level: set[Uuid | None] = {None}
    depth = 0
    while level:
        depths.update(dict.fromkeys(level, depth))
        depth += 1
        level = {to for parent in level for to in below[parent] if to not in depths}
    return depths
