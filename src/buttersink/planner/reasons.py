"""
Why each diff was chosen: the best that could have been taken in its place. No I/O here.

A diff from what itself comes from the snapshot in question is no alternative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from buttersink.catalogue import Diff, Uuid


def runners_up(
    chosen: Mapping[Uuid, Diff], prices: Mapping[Diff, int], hop: int
) -> dict[Uuid, Diff]:
    """
    Return for each chosen diff the cheapest other one that makes the same snapshot, by that.

    Args:
        chosen: The diff that makes each snapshot.
        prices: What each diff costs once. Those not in here cannot be chosen.
        hop: What a diff costs again for each snapshot in whose chain it is.

    """
    depths, spans = _spans(chosen)
    best: dict[Uuid, tuple[int, Diff]] = {}
    for diff, price in prices.items():
        if diff.to not in chosen or diff == chosen[diff.to]:
            continue
        if diff.parent in spans and _within(spans[diff.parent], spans[diff.to]):
            continue
        first, last = spans[diff.to]
        whole = price + hop * (last - first) * (depths.get(diff.parent, 0) + 1)
        if diff.to not in best or whole < best[diff.to][0]:
            best[diff.to] = (whole, diff)
    return {uuid: diff for uuid, (_price, diff) in best.items()}


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] < outer[1]


def _spans(
    chosen: Mapping[Uuid, Diff],
) -> tuple[dict[Uuid | None, int], dict[Uuid | None, tuple[int, int]]]:
    """Return each snapshot's depth, and what range it and all below it take in a walk down."""
    below: dict[Uuid | None, list[Uuid]] = {}
    for uuid, diff in chosen.items():
        below.setdefault(diff.parent if diff.parent in chosen else None, []).append(uuid)
    entered: dict[Uuid, int] = {}
    spans: dict[Uuid | None, tuple[int, int]] = {}
    depths: dict[Uuid | None, int] = {}
    waiting = [(uuid, 1, False) for uuid in below.get(None, ())]
    while waiting:
        uuid, depth, done = waiting.pop()
        if done:
            spans[uuid] = (entered[uuid], len(entered))
            continue
        entered[uuid] = len(entered)
        depths[uuid] = depth
        waiting.append((uuid, depth, True))
        waiting += ((child, depth + 1, False) for child in below.get(uuid, ()))
    return depths, spans
