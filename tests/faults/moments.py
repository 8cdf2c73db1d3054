"""
The command as a process that stops at a chosen moment of its run, until it is told to go on.

A moment is the nth time that a function of a phase is entered or left: the same seed stops it at
the same place. While it waits, the fault is done to it or to what it works on. Streams are cut into
small segments and small parts, so that few bytes make many of them. The process is forked from one
that has everything imported, since starting an interpreter takes longer than such a run. So are the
servers of a run over ssh, of which one can stop at its moment, too.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import select
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import buttersink
from buttersink.cli import main
from buttersink.stores.btrfs import segmented
from buttersink.stores.s3 import store as s3_store
from buttersink.stores.s3 import uploading
from tests.faults import farside
from tests.faults.processes import number_of, processes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

KIB = 1024
SEGMENT_BYTES = 512 * KIB
PART_BYTES = 512 * KIB
END_SECONDS = 60.0  # a run of a second that takes this long hangs
LET_GO_SECONDS = 3.0
"""How long a process may outlive the one that started it."""

_HERE, _THERE = "here", "there"

_ARRIVAL = "buttersink.stores.btrfs.arrival"
_UPLOADING = "buttersink.stores.s3.uploading"
_BTRFS, _S3 = "buttersink.stores.btrfs.store", "buttersink.stores.s3.store"

PHASES = {
    "planning": (
        (_BTRFS, "BtrfsStore.catalogue"),
        (_BTRFS, "BtrfsStore._measure"),
        (_S3, "S3Store.catalogue"),
        ("buttersink.planner", "make_plan"),
        ("buttersink.stores.btrfs.writing", "Writer.resumable"),
    ),
    "sending": (
        ("buttersink.stores.btrfs.segmented", "SegmentedReceive.write"),
        ("buttersink.stores.btrfs.segmented", "SegmentedReceive.finish"),
        (_UPLOADING, "Upload.write"),
    ),
    "between segments": (
        (_ARRIVAL, "Place.make_checkpoint"),
        (_ARRIVAL, "Place.sync"),
        (_ARRIVAL, "write_journal"),
        (_ARRIVAL, "Place._turn"),
        (_UPLOADING, "Upload._send_part"),
        (_UPLOADING, "Upload._begun"),
    ),
    "committing": (
        (_ARRIVAL, "Place.commit"),
        ("buttersink.kernel.libc", "sync_filesystem"),
        ("buttersink.kernel.libc", "rename_new"),
        ("buttersink.kernel.libc", "exchange"),
        ("buttersink.kernel.ioctl", "set_read_only"),
        ("buttersink.kernel.ioctl", "set_received"),
        (_ARRIVAL, "Place._forget_journal"),
        (_UPLOADING, "Upload.finish"),
        (_UPLOADING, "Upload._complete_once"),
        (_S3, "S3Store._write_record"),
    ),
    "deleting": (
        (_BTRFS, "BtrfsStore.delete"),
        (_BTRFS, "BtrfsStore.flush"),
        ("buttersink.kernel.ioctl", "delete_subvolume"),
        (_S3, "S3Store.delete"),
        (_S3, "move_to_trash"),
    ),
}
"""Functions that belong to the phases of a run, as module and name."""


@dataclass(frozen=True, slots=True)
class Moment:
    """
    When a fault happens.

    Attributes:
        phase: One of `PHASES`, or `any` for a time that no function marks.
        number: Of the entrances and exits of the phase's functions, from 1.
        seconds: After the start, with `any`.
        there: Whether a server on the other host is to stop, and not the command itself.

    """

    phase: str
    number: int = 0
    seconds: float = 0.0
    there: bool = False

    def __str__(self) -> str:
        where = " there" if self.there else ""
        return f"{self.phase} {self.number or f'{self.seconds:.3f} s'}{where}"


NEVER = Moment("never")


Place = tuple[str, bool]
"""A phase, and whether it is there, on the other host."""


@dataclass(slots=True)
class Ended:
    """
    How a run ended.

    Attributes:
        status: Its exit status, negative for a signal.
        said: What it said.
        counts: Of the functions of each phase, here and there.
        outlived: Servers on the other host that were still there when they had long to be gone.

    """

    status: int
    said: str
    counts: Mapping[Place, int]
    outlived: list[str] = field(default_factory=list)


class Run:
    """
    A command under way.

    Attributes:
        pid: Of its process, which leads a session of its own.
        host: Of the process that is the other host, and leads one, too; 0 for none.
        ended_at: When it was seen to have ended, by `time.monotonic`.

    """

    def __init__(self, pid: int, host: int, reached: int, go_on: int, said: Path) -> None:
        self.pid, self.host = pid, host
        self._reached, self._go_on, self._said = reached, go_on, said
        self._status: int | None = None
        self._ended: Ended | None = None
        self._told = b""
        self.ended_at = 0.0

    def at_its_moment(self, seconds: float = END_SECONDS) -> bool:
        """Wait until it has stopped at its moment; false if it ends without."""
        ready, _, _ = select.select([self._reached], [], [], seconds)
        if not ready:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"neither at its moment nor ended after {seconds} s")
        self._told += os.read(self._reached, 1)
        return self._told == b"!"

    def go_on(self, order: str = "") -> None:
        """Let it go on, perhaps with an order that `_Stop` knows."""
        if self._go_on >= 0:
            with suppress(BrokenPipeError):
                os.write(self._go_on, order.encode() + b"\n")
            os.close(self._go_on)
            self._go_on = -1

    def signal(self, number: int) -> None:
        """Signal it, unless it has been waited for."""
        if self._status is None:
            os.kill(self.pid, number)

    def servers(self) -> list[str]:
        """Return the processes on the other host."""
        there = processes_of(self.host) if self.host else ()
        return [each for each in there if number_of(each) != self.host]

    def processes(self) -> list[str]:
        """Return all processes, here and there."""
        return [*processes_of(self.pid), *self.servers()]

    def is_over(self) -> bool:
        """Return whether it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
                self.ended_at = time.monotonic()
        return self._status is not None

    def wait(self, seconds: float = END_SECONDS) -> Ended:
        """Let it go on to its end, if it has not ended yet."""
        self.go_on()
        deadline = time.monotonic() + seconds
        while not self.is_over():
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                raise AssertionError(f"has not ended after {seconds} s")
            time.sleep(0.001)
        if self._ended is None:
            self._ended = self._how_it_ended()
        return self._ended

    def _leave_host(self) -> list[str]:
        """Let the other host go once its servers have ended; return those that have not."""
        deadline = time.monotonic() + LET_GO_SECONDS
        while (left := self.servers()) and time.monotonic() < deadline:
            time.sleep(0.005)
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(number_of(each), signal.SIGKILL)
        farside.end(self.host)
        self.host = 0
        return left

    def _how_it_ended(self) -> Ended:
        outlived = self._leave_host() if self.host else []
        while piece := os.read(self._reached, 64 * KIB):
            self._told += piece
        os.close(self._reached)
        said = self._said.read_text("utf-8", "surrogateescape")
        assert self._status is not None
        return Ended(self._status, said, _parsed(self._told.lstrip(b"!")), outlived)


def _parsed(counts: bytes) -> dict[Place, int]:
    found: Counter[Place] = Counter()
    for line in counts.decode().splitlines():
        side, number, phase = line.split(maxsplit=2)
        found[phase, side == _THERE] += int(number)
    return found


def import_everything() -> None:
    """Import all that the command may need, so that each of its processes has it at its start."""
    for module in pkgutil.walk_packages(buttersink.__path__, "buttersink."):
        if module.name != "buttersink.__main__":
            importlib.import_module(module.name)


def start(arguments: Sequence[str], moment: Moment, said: Path, host_in: Path | None = None) -> Run:
    """
    Fork a process that runs the command, which stops at a moment, and writes into a file.

    With a directory for it, another host is there until it ends.
    """
    reached, reach = os.pipe2(os.O_CLOEXEC)
    wait, go_on = os.pipe2(os.O_CLOEXEC)
    here, there = (NEVER, moment) if moment.there else (moment, NEVER)
    host = 0
    if host_in is not None:
        stop = _Stop(there, _THERE, reach, wait)
        host = farside.start(host_in, functools.partial(_be_a_server, stop), (reached, go_on))
    pid = os.fork()
    if not pid:
        os.close(reached)
        os.close(go_on)
        _be_the_command(arguments, _Stop(here, _HERE, reach, wait), said)
    os.close(reach)
    os.close(wait)
    assert os.read(reached, 1) == b"^"
    return Run(pid, host, reached, go_on, said)


def _be_a_server(stop: _Stop, words: Sequence[str]) -> NoReturn:
    """Serve one client on standard input and output."""
    status = 70  # sysexits.h: EX_SOFTWARE
    try:
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", encoding="utf-8") for fd in (1, 2))
        _make_small()
        stop.install()
        status = main(words[1:])
        stop.tell_counts()
    finally:
        os._exit(status)


def _make_small() -> None:
    """Let few bytes make many segments and parts."""
    segmented.SEGMENT_BYTES = SEGMENT_BYTES
    uploading._MIN_PART = PART_BYTES  # noqa: SLF001
    vars(s3_store)["part_bytes"] = lambda _size, _wanted: PART_BYTES


def _be_the_command(arguments: Sequence[str], stop: _Stop, said: Path) -> NoReturn:
    """Do in the child what the interpreter does for the command, and end as it would."""
    status = 70  # sysexits.h: EX_SOFTWARE
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", encoding="utf-8") for fd in (1, 2))
        _make_small()
        stop.install()
        stop.tell_start()
        status = main(arguments)
        stop.tell_counts()
        sys.stdout.flush()
    except KeyboardInterrupt:  # before it minds signals
        status = 128 + signal.SIGINT
    finally:
        os._exit(status)


class _Stop:
    """Counts the entrances and exits of the phases' functions, and stops at one of them."""

    def __init__(self, moment: Moment, side: str, reach: int, wait: int) -> None:
        self._moment, self._side, self._reach, self._wait = moment, side, reach, wait
        self._counts = dict.fromkeys(PHASES, 0)
        self._lock = threading.Lock()

    def tell_start(self) -> None:
        """Tell the starter that the command starts now."""
        os.write(self._reach, b"^")

    def install(self) -> None:
        """Put counters round the functions."""
        for phase, functions in PHASES.items():
            for module, name in functions:
                *above, last = name.split(".")
                where: Any = functools.reduce(getattr, above, importlib.import_module(module))
                setattr(where, last, self._counted(phase, getattr(where, last)))

    def _counted(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever it takes
            self._count(phase)
            result = function(*arguments, **named)
            self._count(phase)
            return result

        return counted

    def _count(self, phase: str) -> None:
        with self._lock:
            self._counts[phase] += 1
            now = (phase, self._counts[phase]) == (self._moment.phase, self._moment.number)
        if now:
            os.write(self._reach, b"!")
            self._obey(os.read(self._wait, 100).decode().split())

    def _obey(self, order: list[str]) -> None:
        """Go on, or before that let the clocks jump by so many seconds."""
        if order[:1] == ["clocks"]:
            wall, steady = (float(each) for each in order[1:])
            _shift("time", wall)
            _shift("monotonic", steady)

    def tell_counts(self) -> None:
        """Tell the starter how often each phase was counted."""
        lines = (f"{self._side} {number} {phase}\n" for phase, number in self._counts.items())
        os.write(self._reach, "".join(lines).encode())


def _shift(clock: str, seconds: float) -> None:
    """Let a clock of the module `time` jump, in both of its forms."""
    for name, unit in ((clock, 1.0), (f"{clock}_ns", 1e9)):
        true: Callable[[], float] = getattr(time, name)
        jump = type(true())(seconds * unit)
        setattr(time, name, functools.partial(lambda read, by: read() + by, true, jump))
