"""
Every pair of snapshots of a directory, measured as far as it takes to know the cheapest choice.

A diff between snapshots far apart takes the kernel a second where there are many, and there are
40,000 pairs of 200. But what a diff has at least is quickly known of all. A choice that is the
cheapest with such bounds in place of sizes costs no more than the cheapest, and if it has none of
them in it, it is that. Otherwise those in it are measured, and it is chosen again, until it is as
near to what it is to be compared with as anybody wants to know.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from bench.unshared import at_least
from buttersink import Mode, Role
from buttersink.catalogue import Diff
from buttersink.location import Location
from buttersink.stores.btrfs import BtrfsStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from buttersink.catalogue import Measurement

_NEARLY = 1.0005


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
        self.sizes = sizes if sizes is not None else self._bounds()

    @contextmanager
    def _opened(self) -> Iterator[BtrfsStore]:
        location = Location(os.fsencode(self._directory), all_below=True)
        with BtrfsStore(location, Mode.READ, Role.SOURCE) as store:
            store.stream_version = store.traits.sends  # as between two places here
            yield store

    def _bounds(self) -> Sizes:
        """Return what each full send and each diff has at least."""
        fd = os.open(self._directory, os.O_RDONLY)
        try:
            with self._opened() as store:
                found = [(each.uuid, each.subvolume_id) for each in store.catalogue().snapshots]
            return {diff: Found(least, exact=False) for diff, least in at_least(fd, found).items()}
        finally:
            os.close(fd)

    def _measured(self, diffs: Sequence[Diff]) -> Sizes:
        with self._opened() as store:
            store.catalogue()
            found = _shown(store.measure(diffs), len(diffs))
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
            self.sizes |= self._measured(bounds)


def _shown(found: Iterable[Measurement], count: int) -> Iterator[Measurement]:
    """Yield all, and show how far that is if somebody is there to see it."""
    for done, each in enumerate(found, start=1):
        if sys.stderr.isatty() and (done % 100 == 0 or done == count):
            end = "\n" if done == count else ""
            print(f"\r{done:,} of {count:,} pairs measured", end=end, file=sys.stderr)
        yield each
