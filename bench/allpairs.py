"""
Every pair of snapshots of a directory, measured as far as it takes to know the cheapest choice.

A diff between snapshots far apart takes the kernel a second where there are many, and there are
40,000 pairs of 200. But a stream that is already longer than a diff known to make the same snapshot
need not be read to its end: so much it is at least. A choice that is the cheapest with
such bounds in place of sizes, and has none of them in it, is the cheapest. Otherwise those in it
are measured to their end, and it is chosen again.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from buttersink import Mode, Role
from buttersink.catalogue import Diff
from buttersink.kernel import ioctl
from buttersink.location import Location
from buttersink.stores.btrfs import BtrfsStore
from buttersink.stores.btrfs.sending import sending
from buttersink.stream import StreamSize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from buttersink.catalogue import Snapshot, Uuid

_AHEAD = 16 * 1024  # bytes of a metadata-only stream that the kernel makes in vain


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
        self._snapshots = {each.uuid: each for each in ordered}
        self.sizes = sizes if sizes is not None else self._measure_all()

    @contextmanager
    def _opened(self) -> Iterator[BtrfsStore]:
        location = Location(os.fsencode(self._directory), all_below=True)
        with BtrfsStore(location, Mode.READ, Role.SOURCE) as store:
            store.catalogue()
            yield store

    def _measure_all(self) -> Sizes:
        """Measure neighbours in time, then every other pair within the limit that these set."""
        uuids = list(self._snapshots)
        sizes = self._exact([Diff(uuid, None) for uuid in uuids])
        sizes |= self._exact([*map(Diff, uuids[1:], uuids), *map(Diff, uuids, uuids[1:])])
        limits: dict[Uuid, int] = {}
        for diff, found in sizes.items():
            limits[diff.to] = min(limits.get(diff.to, found.bytes), found.bytes)
        left = [diff for pair in permutations(uuids, 2) if (diff := Diff(*pair)) not in sizes]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            bounds = threads.map(lambda diff: self._up_to(diff, limits[diff.to]), left)
            sizes |= zip(left, _shown(bounds, len(left)), strict=True)
        return sizes

    def _exact(self, diffs: Iterable[Diff]) -> Sizes:
        with self._opened() as store:
            return {each.diff: Found(each.bytes, exact=True) for each in store.measure([*diffs])}

    def _up_to(self, diff: Diff, limit: int) -> Found:
        """
        Read a metadata-only stream until the real one is longer than `limit` bytes.

        One that ends before counts as a bound, too: a few commands that it leaves out are missing.
        """
        if diff.parent is None:
            raise ValueError(diff)
        size = StreamSize(limit)
        parent = self._snapshots[diff.parent].subvolume_id
        fd = os.open(self._path(self._snapshots[diff.to]), os.O_RDONLY)
        try:
            flags = ioctl.SEND_NO_FILE_DATA
            with sending(fd, parent=parent, flags=flags, ahead=_AHEAD) as chunks:
                for chunk in chunks:
                    size.feed(chunk)
                    if size.over:
                        break
        finally:
            os.close(fd)
        return Found(size.so_far, exact=False)

    def _path(self, snapshot: Snapshot) -> bytes:
        return os.path.join(os.fsencode(self._directory), snapshot.path)

    def cheapest(self, choose: Callable[[Mapping[Diff, int]], list[Diff]]) -> list[Diff]:
        """Return what is chosen from all pairs when all that is chosen is known exactly."""
        while True:
            chosen = choose({diff: found.bytes for diff, found in self.sizes.items()})
            bounds = [diff for diff in chosen if not self.sizes[diff].exact]
            if not bounds:
                return chosen
            self.sizes |= self._exact(bounds)


def _shown(found: Iterable[Found], count: int) -> Iterator[Found]:
    """Yield all, and show how far that is if somebody is there to see it."""
    for done, each in enumerate(found, start=1):
        if sys.stderr.isatty() and (done % 100 == 0 or done == count):
            end = "\n" if done == count else ""
            print(f"\r{done:,} of {count:,} pairs measured", end=end, file=sys.stderr)
        yield each
