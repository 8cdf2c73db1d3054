"""When a checkpoint is made of what arrives: after enough bytes, or where they come slowly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from buttersink.catalogue import Diff, Uuid
from buttersink.stores.btrfs import segmented
from buttersink.stores.btrfs.segmented import SegmentedReceive
from buttersink.stream import Identity
from tests.support.streams import encode, subvol, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buttersink.stores.btrfs.arrival import Place
    from buttersink.stores.btrfs.receiving import ReceiveProcess
    from buttersink.stream import Checkpoint

MIB = 1024 * 1024
SNAPSHOT = Uuid(bytes([1]) * 16)


class Clock:
    """Goes only when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Receiver:
    """Takes everything."""

    def begin(self, _opening: bytes, _before: int) -> None: ...
    def write(self, _chunk: memoryview) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


class Directory:
    """Keeps how long each checkpoint was; making one takes its time."""

    partial, received = b"part", Uuid(bytes([2]) * 16)
    kept: SimpleNamespace | None = None

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.checkpoints: list[int] = []

    def make_checkpoint(self, _diff: Diff, checkpoint: Checkpoint) -> None:
        self._clock.now += self.seconds
        self.checkpoints.append(checkpoint.bytes)
        self.kept = SimpleNamespace(checkpoint=checkpoint, received_uuid=self.received)

    def catch_up(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(segmented, "time", clock)
    return clock


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory(clock)


@pytest.fixture
def sink(directory: Directory) -> Iterator[SegmentedReceive]:
    sink = SegmentedReceive(
        cast("Place", directory),
        Diff(SNAPSHOT, None),
        Identity(generation=1),
        lambda _identity: cast("ReceiveProcess", Receiver()),
        lambda: None,
        checksum=False,
    )
    sink.write(memoryview(encode([subvol(b"a", SNAPSHOT, 1)], 1)))
    yield sink
    sink.abort()


FRAME = encode([write(b"file", 0, bytes(32 * 1024))] * 32, 1)[17:]  # somewhat more than a MiB


def feed(sink: SegmentedReceive, clock: Clock, mebibytes: int, rate: float) -> None:
    """Let so many MiB arrive, at so many a second."""
    for _ in range(mebibytes):
        clock.now += 1 / rate
        sink.write(memoryview(FRAME))


def lengths(directory: Directory) -> list[int]:
    """Return how many MiB each segment had."""
    return [
        round((after - before) / MIB)
        for before, after in zip([0, *directory.checkpoints], directory.checkpoints, strict=False)
    ]


def test_what_comes_fast_has_them_by_bytes_but_for_the_first(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    feed(sink, clock, 1300, 200)
    assert lengths(directory) == pytest.approx([200, 512, 512], abs=2)


def test_what_comes_slowly_has_them_by_time(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    feed(sink, clock, 180, 10)
    assert lengths(directory) == pytest.approx([10, 50, 50, 50], abs=2)


def test_what_comes_very_slowly_has_them_when_they_are_worth_it(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    feed(sink, clock, 30, 0.1)
    assert lengths(directory) == [8, 8, 8]


def test_what_comes_slowly_but_is_short_has_none(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    feed(sink, clock, 7, 0.1)
    assert directory.checkpoints == []


def test_what_is_soon_over_has_none(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    feed(sink, clock, 90, 100)
    assert directory.checkpoints == []


def test_where_one_takes_long_they_are_fewer(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    """So that they never take more than a small share of the time."""
    directory.seconds = 1.0
    feed(sink, clock, 1000, 10)
    assert lengths(directory) == pytest.approx([10, 400, 400], abs=2)


def test_however_long_one_takes_there_is_one_after_enough_bytes(
    sink: SegmentedReceive, clock: Clock, directory: Directory
) -> None:
    directory.seconds = 60.0
    feed(sink, clock, 1100, 10)
    assert lengths(directory) == pytest.approx([10, 512, 512], abs=2)


def test_small_segments_have_them_by_bytes_alone(
    sink: SegmentedReceive,
    clock: Clock,
    directory: Directory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segmented, "SEGMENT_BYTES", 2 * MIB)
    feed(sink, clock, 3, 100)
    feed(sink, clock, 4, 0.1)
    assert lengths(directory) == [2, 2, 2]
