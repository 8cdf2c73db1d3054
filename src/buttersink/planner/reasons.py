"""
Why each diff was chosen, for a person: the best that could have been taken in its place.

A diff from what itself comes from the snapshot in question is no alternative. No I/O here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from buttersink.catalogue import Diff, Size, Snapshot, Uuid


def reasons(
    sizes: Mapping[Diff, Size], chosen: Mapping[Uuid, Diff], known: Mapping[Uuid, Snapshot]
) -> dict[Uuid, str]:
    """Return a phrase for every chosen diff, by the snapshot that it makes."""
    spans = _spans(chosen)
    best: dict[Uuid, Diff] = {}
    for diff, size in sizes.items():
        if diff.to not in chosen or diff == chosen[diff.to]:
            continue
        if diff.parent is not None and diff.parent not in known:
            continue
        if diff.parent in spans and _within(spans[diff.parent], spans[diff.to]):
            continue
        if diff.to not in best or size.bytes < sizes[best[diff.to]].bytes:
            best[diff.to] = diff
    return {uuid: _phrase(best.get(uuid), sizes, known) for uuid in chosen}


def _phrase(
    runner_up: Diff | None, sizes: Mapping[Diff, Size], known: Mapping[Uuid, Snapshot]
) -> str:
    if runner_up is None:
        return "the only way"
    how = "in full" if runner_up.parent is None else f"from {_name(known[runner_up.parent])}"
    return f"next best {how}, {sizes[runner_up].bytes:,} bytes"


def _name(snapshot: Snapshot) -> str:
    return printable(snapshot.path)


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] < outer[1]


def _spans(chosen: Mapping[Uuid, Diff]) -> dict[Uuid, tuple[int, int]]:
    """Return for each snapshot the range that it and all made from it take in a walk down."""
    below: dict[Uuid | None, list[Uuid]] = {}
    for uuid, diff in chosen.items():
        below.setdefault(diff.parent if diff.parent in chosen else None, []).append(uuid)
    entered: dict[Uuid, int] = {}
    spans: dict[Uuid, tuple[int, int]] = {}
    waiting = [(uuid, False) for uuid in below.get(None, ())]
    while waiting:
        uuid, done = waiting.pop()
        if done:
            spans[uuid] = (entered[uuid], len(entered))
            continue
        entered[uuid] = len(entered)
        waiting.append((uuid, True))
        waiting += ((child, False) for child in below.get(uuid, ()))
    return spans
