"""Which snapshots diffs lead to: where a link of a chain is missing, all behind it are. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from buttersink.catalogue import Diff, Uuid


def reachable(
    diffs: Iterable[Diff],
    start: Iterable[Uuid] = (),
    free: Collection[Diff] = (),
    limit: int | None = None,
) -> set[Uuid | None]:
    """
    Return nothing (None), `start`, and every snapshot that diffs lead to from there.

    With a `limit` no diff but the `free` ones is used deeper than that.
    """
    below: dict[Uuid | None, list[Diff]] = {}
    for diff in diffs:
        below.setdefault(diff.parent, []).append(diff)
    reached: set[Uuid | None] = {None, *start}
    level: Collection[Uuid | None] = list(reached)
    depth = 0
    while level:
        depth += 1
        level = {
            diff.to
            for parent in level
            for diff in below.get(parent, ())
            if limit is None or depth <= limit or diff in free
        } - reached
        reached.update(level)
    return reached
