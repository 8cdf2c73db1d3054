"""
Every pair of snapshots of a directory, measured as far as it takes to know the cheapest choice.

A diff between snapshots far apart takes the kernel a second where there are many, and there are
40,000 pairs of 200. But a stream that is already longer than a diff known to make the same snapshot
need not be read to its end: so much it is at least. A choice that is the cheapest with such bounds
in place of sizes costs no more than the cheapest, and if it has none of them in it, it is that.
Otherwise those in it are read further, and it is chosen again, until it is as near to what it is to
be compared with as anybody wants to know.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from itertools import permutations
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from buttersink import Mode, Role
from buttersink.catalogue import Diff
from buttersink.location import Location
from buttersink.stores.btrfs import BtrfsStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from buttersink.catalogue import Measurement, Uuid

_NEARLY = 1.002
_FURTHER = 8  # times its bound that a pair is measured, if the best choice has it


class Found(NamedTuple):
    """The bytes of a diff, or how many it has at least."""

    bytes: int
    exact: bool


Sizes = dict[Diff, Found]


class AllPairs:
    """
    The pairs of the snapshots below a directory.

    Attributes:
        sizes: Of every pair, both ways, and of every full send.

    """

    def __init__(self, directory: Path, sizes: Sizes | None = None) -> None:
        self._directory = directory
        with self._opened() as store:
            ordered = sorted(store.catalogue().snapshots, key=lambda each: each.generation)
        self._snapshots = [each.uuid for each in ordered]
        self.sizes = sizes if sizes is not None else self._measure_all()

    @contextmanager
    def _opened(self) -> Iterator[BtrfsStore]:
        location = Location(os.fsencode(self._directory), all_below=True)
        with BtrfsStore(location, Mode.READ, Role.SOURCE) as store:
            store.stream_version = store.traits.sends  # as between two places here
            store.catalogue()
            yield store

    def _measure_all(self) -> Sizes:
        """Measure full sends and from the one before, then all others as far as those go."""
        uuids = self._snapshots
        sizes = self._measured([Diff(uuid, None) for uuid in uuids])
        sizes |= self._measured([*map(Diff, uuids[1:], uuids)])
        limits: dict[Uuid, int] = {}
        for diff, found in sizes.items():
            limits[diff.to] = min(limits.get(diff.to, found.bytes), found.bytes)
        left = [diff for pair in permutations(uuids, 2) if (diff := Diff(*pair)) not in sizes]
        return sizes | self._measured(left, {diff: limits[diff.to] for diff in left})

    def _measured(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Sizes:
        with self._opened() as store:
            found = _shown(store.measure(diffs, limits), len(diffs))
            return {each.diff: Found(each.bytes, each.finished) for each in found}

    def cheapest(
        self,
        choose: Callable[[Mapping[Diff, int]], tuple[float, list[Diff]]],
        compared: float,
    ) -> float:
        """
        Return what the cheapest choice from all pairs costs, or a bound of that.

        `choose` returns what a choice costs, and the choice. A bound is good enough if what it is
        `compared` with is hardly above it.
        """
        while True:
            cost, chosen = choose({diff: found.bytes for diff, found in self.sizes.items()})
            bounds = [diff for diff in chosen if not self.sizes[diff].exact]
            if not bounds or compared <= _NEARLY * cost:
                return cost
            limits = {diff: _FURTHER * self.sizes[diff].bytes for diff in bounds}
            self.sizes |= self._measured(bounds, limits)


def _shown(found: Iterable[Measurement], count: int) -> Iterator[Measurement]:
    """Yield all, and show how far that is if somebody is there to see it."""
    for done, each in enumerate(found, start=1):
        if sys.stderr.isatty() and (done % 100 == 0 or done == count):
            end = "\n" if done == count else ""
            print(f"\r{done:,} of {count:,} pairs measured", end=end, file=sys.stderr)
        yield each
