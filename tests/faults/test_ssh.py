"""
A real ssh connection that is cut, or falls silent, or of which something is killed.

Each time both sides end, no process and no half snapshot stays, and the next run goes on from the
last checkpoint and makes the same. A connection that still says something is never given up.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import smallsegments
from tests.support.command import Argument, assert_same, listing, run_raw
from tests.support.impatient import SEGMENT_BYTES, SILENCE_SECONDS, impatient
from tests.support.loopfs import MIB, create_subvolume, is_mounted, snapshot
from tests.support.smallsegments import small_segments
from tests.support.sshlocation import FarLocations, at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.sshd import StartedSshd

pytestmark = pytest.mark.root

CUTS = 10
FRAME_BYTES = MIB  # the most that a side has to hold before it can go on
SSH_BYTES = 48 * 1024  # a packet of ssh that is not whole, and what is said before the stream
NEAR, FAR = "push", "pull"
LOST = re.compile(r"the connection is lost( (after|at) .*)?: ssh://testhost")
AGAIN = "Run the same command again: it goes on from the last checkpoint."


@pytest.fixture
def far(sshd: StartedSshd) -> Iterator[FarLocations]:
    found = FarLocations(sshd)
    yield found
    sshd.end_sessions()  # of which the client is gone and sshd was told nothing
    found.assert_gone()
    assert not is_mounted(Path("/run/buttersink"))


@pytest.fixture
def distant(distant_sshd: StartedSshd) -> FarLocations:
    return FarLocations(distant_sshd)


def big_snapshot(source: Path, size: int) -> Path:
    """Make one of so many MiB, the only one there."""
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(Random(size).randbytes(size * MIB))
    return snapshot(live, source / "big")


@contextmanager
def started(far: FarLocations, command: Sequence[Argument]) -> Iterator[subprocess.Popen[str]]:
    """Run it meanwhile."""
    with subprocess.Popen(
        command,
        env={**os.environ, **far.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def checkpoint(directory: Path) -> int:
    """Return how many bytes of the one snapshot are kept, 0 for none; there is no half of it."""
    found = listing(directory)
    assert found["snapshots"] == []
    return max((each["size"] or 0 for each in found["partials"]), default=0)


def has_journal(directory: Path) -> bool:
    return bool(list(directory.glob(".buttersink-*.journal")))


def session(far: FarLocations) -> int:
    """Return the process of sshd that carries root's session."""
    (found,) = [
        pid for pid, words in far.sshd.sessions().items() if words[0].startswith(b"sshd: root@")
    ]
    return found


def finish(far: FarLocations, arguments: Sequence[Argument], kept: int) -> None:
    """Run to the end, which has to go on from just what is kept."""
    with far.program(*small_segments()):
        command = small_segments("--json", "-e", *arguments)
        done = run_raw(command, environment=far.environment)
    assert done.returncode == 0, done
    result = json.loads(done.stdout)["result"]["steps"][0]
    expected = ("resumed", kept) if kept else ("done", 0)
    assert (result["status"], result["resumed_from"] or 0) == expected


@contextmanager
def cut_when_served(distant: FarLocations, count: int) -> Iterator[None]:
    """
    Have the line cut after so many bytes from when the server runs.

    What was on its way when the line was cut before still comes through, and would be taken for the
    login, which may take minutes.
    """
    line = distant.sshd.line
    assert line

    def cut() -> None:
        wait_for(distant.servers)
        line.cut_after(count)

    with ThreadPoolExecutor(1) as thread:
        cutting = thread.submit(cut)
        yield
        cutting.result()


def test_ten_cuts_of_one_transfer(source: Path, destination: Path, distant: FarLocations) -> None:
    """The line goes dead at a random point of what is left, ten times, and says nothing of it."""
    line, random = distant.sshd.line, Random(10)
    assert line
    sent = big_snapshot(source, 32)
    arguments = (f"{source}/", at(destination))
    kept = 0
    with distant.program(*impatient()):
        for _cut in range(CUTS):
            before = line.acknowledged
            with cut_when_served(distant, random.randrange(10_000, 4 * SEGMENT_BYTES)):
                done = run_raw(impatient("-q", "-e", *arguments), environment=distant.environment)
            assert done.returncode == 1, done
            assert line.is_cut
            arrived = line.acknowledged - before
            assert_one_error(done.stderr.decode())
            wait_for(lambda: not distant.servers())
            distant.sshd.end_sessions()  # sshd, which is left with the dead line
            found = checkpoint(destination)
            assert found >= kept
            assert found > kept + arrived - SEGMENT_BYTES - FRAME_BYTES - SSH_BYTES
            assert not distant.clients()
            kept = found
            line.mend()
    assert kept >= 3 * SEGMENT_BYTES
    finish(distant, arguments, kept)
    assert_same(sent, destination / "big")
    assert os.listdir(destination) == ["big"]
    distant.assert_gone()


def assert_one_error(said: str) -> None:
    """Fail unless a lost connection is told once, with what to do, and by nothing else."""
    lines = [line for line in said.splitlines() if "error" in line]
    assert "Traceback" not in said
    assert lines, said
    assert lines[0].startswith("buttersink: error: ")
    told = [line for line in lines if LOST.search(line) or "cannot connect" in line]
    assert len(told) == 1, said


def test_a_cut_is_told_with_how_far_it_had_come(
    source: Path, destination: Path, distant: FarLocations
) -> None:
    """Of a size that was measured in percent; what is still under way counts as sent."""
    line = distant.sshd.line
    assert line
    big_snapshot(source, 64)
    with distant.program(*impatient()):
        line.cut_after(32 * MIB)
        command = impatient("-q", f"{source}/", at(destination))
        done = run_raw(command, environment=distant.environment)
    assert done.returncode == 1
    said = done.stderr.decode()
    assert_one_error(said)
    found = re.search(r"the connection is lost at (\d+) % \(([\d.]+) MiB of 64\.\d MiB\): ", said)
    assert found, said
    assert 32 <= float(found[2]) <= 64
    assert int(found[1]) == pytest.approx(100 * float(found[2]) / 64, abs=2)
    wait_for(lambda: not distant.servers())


PATTERNS = ["push-client", "push-ssh", "push-server", "push-sshd", "pull-client", "pull-ssh",
            "pull-server", "pull-sshd"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_kill(source: Path, destination: Path, far: FarLocations, pattern: str) -> None:
    direction, victim = pattern.split("-")
    sent = big_snapshot(source, 20)
    arguments = (f"{source}/", at(destination)) if direction == NEAR else (at(source), destination)
    with (
        far.program(*small_segments()),
        started(far, small_segments("-q", "-e", *arguments)) as process,
    ):
        wait_for(lambda: has_journal(destination))
        kill(far, process, victim)
        _out, said = process.communicate(timeout=30)
        far.assert_gone()
    assert process.returncode == (-signal.SIGKILL if victim == "client" else 1)
    if victim != "client":
        assert_one_error(said)
        assert AGAIN in said
    kept = checkpoint(destination)
    assert kept >= smallsegments.SEGMENT_BYTES
    finish(far, arguments, kept)
    assert_same(sent, destination / "big")
    assert os.listdir(destination) == ["big"]


def kill(far: FarLocations, process: subprocess.Popen[str], victim: str) -> None:
    if victim == "client":
        process.kill()
        return
    if victim == "ssh":
        pid = min(far.clients())
    else:
        pid = far.servers()[0] if victim == "server" else session(far)
    os.kill(pid, signal.SIGKILL)


class TestSilence:
    """Nobody says that the connection is gone, and nothing comes any more."""

    @pytest.mark.parametrize("direction", [NEAR, FAR])
    def test_of_the_far_side(
        self, source: Path, destination: Path, far: FarLocations, direction: str
    ) -> None:
        sent = big_snapshot(source, 20)
        arguments: tuple[Any, Any] = (
            (f"{source}/", at(destination)) if direction == NEAR else (at(source), destination)
        )
        with (
            far.program(*impatient()),
            started(far, impatient("-q", "-e", *arguments)) as process,
        ):
            wait_for(lambda: has_journal(destination))
            os.kill(session(far), signal.SIGSTOP)
            began = time.monotonic()
            _out, said = process.communicate(timeout=60)
            assert time.monotonic() - began >= SILENCE_SECONDS / 2
            wait_for(lambda: not far.servers())
            far.sshd.end_sessions()
            far.assert_gone()
        assert process.returncode == 1
        assert_one_error(said)
        assert "nothing has come for 1 second" in said
        kept = checkpoint(destination)
        finish(far, arguments, kept)
        assert_same(sent, destination / "big")

    def test_of_the_client(self, source: Path, destination: Path, far: FarLocations) -> None:
        """The server does not keep the lock for it, and keeps what it has."""
        sent = big_snapshot(source, 20)
        arguments = (f"{source}/", at(destination))
        with (
            far.program(*impatient()),
            started(far, impatient("-q", "-e", *arguments)) as process,
        ):
            wait_for(lambda: has_journal(destination))
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: not far.servers())
            kept = checkpoint(destination)
            assert kept >= SEGMENT_BYTES
            finish(far, arguments, kept)
            process.send_signal(signal.SIGCONT)
            _out, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert_one_error(said)
        assert_same(sent, destination / "big")

    def test_that_ends_in_time_is_none(
        self, source: Path, destination: Path, distant: FarLocations
    ) -> None:
        line = distant.sshd.line
        assert line
        sent = big_snapshot(source, 5)
        line.set_quality(delay_seconds=0.05, loss=0.005)
        line.cut_after(3 * MIB)
        with started(distant, small_segments("-q", "-e", f"{source}/", at(destination))) as process:
            wait_for(lambda: line.is_cut)
            time.sleep(0.5)
            line.mend()
            _out, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
        assert_same(sent, destination / "big")
