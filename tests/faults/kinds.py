"""
The kinds of faults: what is done when a run is at its moment, and how the fault goes away.

Each is a generator like a context manager's. It is entered when the run has stopped at its moment;
the run goes on to its end at the `yield`; what comes after takes the fault away, as whoever looks
after the machine would: frees the disk, plugs it in again. It never helps ButterSink: what that has
left is for its next run.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from buttersink.kernel import ioctl
from buttersink.stream.commands import COMMAND_HEADER, STREAM_HEADER
from tests.faults.checks import KEPT
from tests.faults.moments import PHASES, Moment
from tests.faults.processes import number_of
from tests.support.loopfs import MIB, CommandError, btrfs, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.faults.arena import Arena, Pairing
    from tests.faults.moments import Ended, Run

ANY = (*PHASES, "any")
BEFORE_COMMITTING = ("planning", "sending", "any")
WRITING = ("sending", "between segments", "committing", "any")
BLOCK = 4096  # of which btrfs keeps a checksum each
END_SECONDS = 2.0  # in which a signal has to end a run


@dataclass(slots=True)
class Scene:
    """
    A run to which a fault happens.

    Attributes:
        run: At its moment. None before it is started.
        spoilt: Paths at the destination that the fault itself takes away or changes.
        gone: Whether the machine is off, so that nothing can be said of how the run ended.
        wrong: What the fault itself has found wrong.

    """

    arena: Arena
    pairing: Pairing
    beginning: str
    moment: Moment
    random: Random
    run: Run | None = None
    spoilt: set[str] = field(default_factory=set)
    gone: bool = False
    wrong: list[str] = field(default_factory=list)

    def under_way(self) -> Run:
        """Return the run, which has been started."""
        assert self.run is not None
        return self.run

    def end(self) -> Ended:
        """Let the run go on to its end."""
        return self.under_way().wait()

    def keep_trying(self, fault: Callable[[], bool]) -> None:
        """Let the run go on, and try to do something to it until that is done or it has ended."""
        done = fault()
        self.under_way().go_on()
        while not done and not self.under_way().is_over():
            time.sleep(0.001)
            done = fault()


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A kind of fault.

    Attributes:
        name: As it is counted.
        fault: What happens.
        source, destination: What kind of place the ends have to be; empty for any.
        phases: At which moments it may happen; none if it is there before the run starts.
        faulty: Which end, `source` or `destination`, has to be a disk that can fail.
        begun: Whether the destination has to hold something.
        there: Whether an end has to be on another host.

    """

    name: str
    fault: Callable[[Scene], Iterator[None]]
    source: str = ""
    destination: str = ""
    phases: tuple[str, ...] = ANY
    faulty: str = ""
    begun: bool = False
    there: bool = False

    def fits(self, pairing: Pairing) -> bool:
        """Return whether it can happen to a run between such places."""
        source, destination = pairing.source_is, pairing.destination_is
        if self.there and not pairing.is_remote:
            return False
        return self.source in ("", source) and self.destination in ("", destination)


KINDS: list[Kind] = []


def _kind(
    name: str,
    *,
    source: str = "",
    destination: str = "",
    phases: tuple[str, ...] = ANY,
    faulty: str = "",
    begun: bool = False,
    there: bool = False,
) -> Callable[[Callable[[Scene], Iterator[None]]], Callable[[Scene], Iterator[None]]]:
    """Add a kind to `KINDS`."""

    def add(fault: Callable[[Scene], Iterator[None]]) -> Callable[[Scene], Iterator[None]]:
        KINDS.append(Kind(name, fault, source, destination, phases, faulty, begun, there))
        return fault

    return add


@_kind("SIGKILL")
def _killed(scene: Scene) -> Iterator[None]:
    scene.under_way().signal(signal.SIGKILL)
    yield


@_kind("SIGKILL, three runs in a row")
def _killed_again_and_again(scene: Scene) -> Iterator[None]:
    """Kill the run, with all that it has started, and two more that go on from there."""
    os.killpg(scene.under_way().pid, signal.SIGKILL)
    yield
    for _ in range(2):
        moment = Moment(scene.moment.phase, scene.random.randint(1, 100), scene.moment.seconds)
        again = scene.arena.start(scene.pairing, moment)
        if moment.phase == "any":
            time.sleep(moment.seconds)
        elif not again.at_its_moment():
            again.wait()
            continue
        again.signal(signal.SIGKILL)
        again.wait()


@_kind("SIGTERM or SIGINT")
def _told_to_end(scene: Scene) -> Iterator[None]:
    number = scene.random.choice((signal.SIGTERM, signal.SIGINT))
    asked = time.monotonic()
    scene.under_way().signal(number)
    yield
    ended = scene.end()
    if (seconds := scene.under_way().ended_at - asked) > END_SECONDS:
        scene.wrong.append(f"ended {seconds:.1f} s after signal {number}")
    if ended.status not in {0, 1, 128 + number, -number}:  # the last before it minds signals
        scene.wrong.append(f"ended with status {ended.status} on signal {number}")


@_kind("SIGKILL of btrfs receive", destination="btrfs", phases=WRITING)
def _receiver_killed(scene: Scene) -> Iterator[None]:
    run = scene.under_way()

    def kill() -> bool:
        receivers = [each for each in run.processes() if each.endswith("(btrfs")]
        for each in receivers:
            with suppress(ProcessLookupError):
                os.kill(number_of(each), signal.SIGKILL)
        return bool(receivers)

    scene.keep_trying(kill)
    yield


@_kind("SIGKILL of all on the other host", there=True)
def _servers_killed(scene: Scene) -> Iterator[None]:
    for each in scene.under_way().servers():
        with suppress(ProcessLookupError):
            os.kill(number_of(each), signal.SIGKILL)
    yield


@_kind("power cut", destination="btrfs")
def _power_cut(scene: Scene) -> Iterator[None]:
    """Keep what a disk without a write cache holds."""
    disk = scene.arena.destination
    cut = disk.copy("cut.img")
    scene.under_way().signal(signal.SIGKILL)
    scene.gone = True
    yield
    disk.become(cut)


@_kind("power cut, write cache lost", destination="btrfs", faulty="destination")
def _power_cut_with_cache(scene: Scene) -> Iterator[None]:
    """Keep what was flushed, and any part of what was not."""
    scene.arena.faulty.order(f"cut {scene.random.random()}")
    scene.under_way().signal(signal.SIGKILL)
    scene.gone = True
    yield
    scene.arena.destination.remount()


@_kind("destination full", destination="btrfs")
def _destination_full(scene: Scene) -> Iterator[None]:
    filler = scene.arena.destination.mountpoint / "filler"
    _fill(filler, leave=scene.random.choice((0, 0, 64 * 1024, MIB)))
    yield
    filler.unlink()


@_kind("source full", source="btrfs")
def _source_full(scene: Scene) -> Iterator[None]:
    filler = scene.arena.source.mountpoint / "filler"
    _fill(filler, leave=0)
    yield
    filler.unlink()


def _fill(filler: Path, *, leave: int) -> None:
    """Take all room for data with one file, and that for metadata with many lines, if need be."""
    state = os.statvfs(filler.parent)
    size = state.f_bavail * state.f_frsize - leave
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while size > 64 * 1024:
            try:
                os.posix_fallocate(fd, os.fstat(fd).st_size, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
            else:
                size = min(size, os.statvfs(filler.parent).f_bavail * state.f_frsize - leave)
    finally:
        os.close(fd)


@_kind("write errors at the destination", destination="btrfs", faulty="destination")
def _destination_fails(scene: Scene) -> Iterator[None]:
    """Let writes fail, or flushes, or everything."""
    what = scene.random.choice(("write", "flush", "read write flush"))
    scene.arena.faulty.order(f"fail {what}")
    yield
    scene.arena.faulty.order("fail")
    scene.arena.destination.remount()


@_kind("read errors at the source", source="btrfs", faulty="source", phases=("planning", "sending"))
def _source_fails(scene: Scene) -> Iterator[None]:
    """Let reads of what is not cached fail: content, since the disk was just mounted."""
    scene.arena.faulty.order("fail read")
    yield
    scene.arena.faulty.order("fail")
    scene.arena.source.remount()


@_kind("bad blocks at the source", source="btrfs", phases=())
def _bad_blocks(scene: Scene) -> Iterator[None]:
    """Overwrite some data on the disk, which btrfs finds out by its checksums."""
    source = scene.arena.source
    block = scene.random.choice(_blocks(scene.arena.snapshots, scene.beginning))
    sound, bad = source.copy("sound.img"), source.copy("bad.img")
    with bad.open("r+b") as file, mmap.mmap(file.fileno(), 0) as raw:
        place = raw.find(block)
        raw[place : place + BLOCK] = scene.random.randbytes(BLOCK)
    source.become(bad)
    yield
    source.become(sound)


def _blocks(snapshots: Path, beginning: str) -> list[bytes]:
    """Return blocks of file data of the last snapshot; if it has begun, of those not held yet."""
    held = KEPT if beginning == "begun" else ()
    there = {block for name in held for block in _blocks_of(snapshots / name)}
    return [block for block in _blocks_of(snapshots / "0003") if block not in there]


def _blocks_of(snapshot: Path) -> Iterator[bytes]:
    for file in sorted((snapshot / "big").iterdir()):
        data = file.read_bytes()
        blocks = (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))
        yield from (block for block in blocks if len(block) == BLOCK and any(block))


@_kind("source snapshot deleted", source="btrfs", phases=("planning", "sending", "any"))
def _source_snapshot_deleted(scene: Scene) -> Iterator[None]:
    path = scene.arena.snapshots / scene.random.choice(sorted(os.listdir(scene.arena.snapshots)))

    def delete() -> bool:
        try:
            btrfs("subvolume", "delete", path)
        except CommandError:  # it is being sent
            return False
        return True

    scene.keep_trying(delete)
    yield
    scene.spoilt.add(path.name)  # it may or may not have arrived, and goes with the next run


@_kind("destination parent deleted", destination="btrfs", begun=True, phases=BEFORE_COMMITTING)
def _parent_deleted(scene: Scene) -> Iterator[None]:
    path = scene.arena.backup / KEPT[-1]
    with suppress(CommandError):  # it is the root of something being received
        btrfs("subvolume", "delete", path)
        scene.spoilt.add(path.name)
    yield


@_kind("destination parent changed", destination="btrfs", begun=True, phases=BEFORE_COMMITTING)
def _parent_changed(scene: Scene) -> Iterator[None]:
    """Make a snapshot writable so that its UUIDs stay, and change it; perhaps hide that."""
    path = scene.arena.backup / KEPT[-1]
    scene.spoilt.add(path.name)
    with _directory(path) as fd:
        number = ioctl.subvolume_info(fd).id
        ioctl.set_read_only(fd, read_only=False)
        for file in sorted((path / "big").iterdir()):
            with file.open("r+b") as opened:
                opened.write(b"changed")
        (path / "more").write_bytes(b"more")
        if scene.random.random() < 0.7:
            ioctl.set_read_only(fd, read_only=True)
    yield
    with _directory(path) as fd:
        still_there = ioctl.subvolume_info(fd).id == number  # else --delete has replaced it
    if still_there:
        btrfs("subvolume", "delete", path)  # as its owner would, having made a mess of it


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@_kind("clocks jump")
def _clocks_jump(scene: Scene) -> Iterator[None]:
    """Let the time of day jump by up to thirty years either way, and the other clock forward."""
    years = 365.25 * 86400
    wall = scene.random.choice((-30, -1, -1e-4, 1e-4, 1, 30)) * years
    scene.under_way().go_on(f"clocks {wall} {scene.random.choice((0, 60, 86400))}")
    yield


@_kind("destination turns read-only", destination="btrfs")
def _turns_read_only(scene: Scene) -> Iterator[None]:
    where = scene.arena.destination.mountpoint

    def remount() -> bool:
        try:
            run("mount", "-o", "remount,ro", where)
        except CommandError:  # a file is open for writing
            return False
        return True

    scene.keep_trying(remount)
    yield
    run("mount", "-o", "remount,rw", where)


@_kind("damaged stream from a bucket", source="bucket", phases=())
def _damaged_stream(scene: Scene) -> Iterator[None]:
    """Damage one of the diffs in the bucket at a boundary of commands."""
    with _damaging(scene, recorded=True, ways=WAYS):
        yield


@_kind("damaged stream without a record", source="bucket", phases=())
def _damaged_stream_without_record(scene: Scene) -> Iterator[None]:
    """Damage one of the diffs that ButterSink 0.6 wrote, as far as their own checksums show."""
    with _damaging(scene, recorded=False, ways=SHOWN_BY_CHECKSUMS):
        yield


@contextmanager
def _damaging(scene: Scene, *, recorded: bool, ways: Sequence[Way]) -> Iterator[None]:
    """Have the run read a copy of the bucket's diffs in which one that it needs is damaged."""
    arena, prefix = scene.arena, "run-damaged"
    arena.copy_prefix("whole", prefix)
    keys = arena.keys(f"{prefix}/")
    held = KEPT if scene.beginning == "begun" else ()
    diffs = [key for key in keys if not key.endswith(".json") and key.split("/")[1] not in held]
    target = {"Bucket": arena.bucket.name, "Key": scene.random.choice(diffs)}
    sound = arena.client.get_object(**target)["Body"].read()
    arena.client.put_object(**target, Body=damaged(sound, scene.random, ways))
    for key in keys:
        if key.endswith(".json") and not recorded:
            arena.client.delete_object(Bucket=arena.bucket.name, Key=key)
    arena.source_prefix = prefix
    yield
    arena.source_prefix = "whole"


Way = Callable[[bytes, int, int, Random], bytes]
"""Damages a stream at a command, from where that starts to where it ends."""


def _flip(stream: bytes, start: int, end: int, random: Random) -> bytes:
    flipped, bit = bytearray(stream), random.randrange(8 * start, 8 * end)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def _put_garbage(stream: bytes, start: int, end: int, random: Random) -> bytes:
    """Put it before the command, or in its place."""
    garbage = random.randbytes(random.randrange(1, 5000))
    return stream[:start] + garbage + stream[random.choice((start, end)) :]


def _swap(stream: bytes, start: int, end: int, _random: Random) -> bytes:
    """Swap it with the next one."""
    after = _end_of(stream, end)
    return stream[:start] + stream[end:after] + stream[start:end] + stream[after:]


_END = bytes.fromhex("000000001500506cc99d")  # a whole command, with its checksum

SHOWN_BY_CHECKSUMS: tuple[Way, ...] = (
    lambda stream, start, _end, _random: stream[:start],
    lambda stream, start, end, random: stream[: random.randrange(start, end)],
    lambda _stream, _start, _end, _random: b"",
    _flip,
    _put_garbage,
)
"""What the stream itself shows: it is cut, or a checksum is wrong."""

WAYS: tuple[Way, ...] = (
    *SHOWN_BY_CHECKSUMS,
    _swap,
    lambda stream, start, end, _random: stream[:start] + stream[end:],
    lambda stream, start, end, _random: stream[:end] + stream[start:],
    lambda stream, start, end, _random: stream[:start] + _END + stream[end:],
)
"""And commands in another order, missing, there twice, or an end before the end."""


def damaged(stream: bytes, random: Random, ways: Sequence[Way] = WAYS) -> bytes:
    """Return a stream that is no more what it was."""
    starts = list(_boundaries(stream))
    while True:
        number = random.randrange(len(starts) - 1)
        made = random.choice(ways)(stream, starts[number], starts[number + 1], random)
        if made != stream:
            return made


def _boundaries(stream: bytes) -> Iterator[int]:
    """Yield where each command begins, and where the stream ends."""
    position = STREAM_HEADER.size
    while position < len(stream):
        yield position
        position = _end_of(stream, position)
    yield position


def _end_of(stream: bytes, start: int) -> int:
    """Return where a command ends; of none, where it is."""
    if start == len(stream):
        return start
    length, _command, _crc = COMMAND_HEADER.unpack_from(stream, start)
    return int(start + COMMAND_HEADER.size + length)
