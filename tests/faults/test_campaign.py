"""
Hundreds of faults, of every kind, at every moment: nothing false, nothing lost, always put right.

The same ones in every run of the suite; with `--soak` ten times as many, from a seed that is shown;
`--fault-seed SEED` repeats them, `--fault-seed SEED:NUMBER` a single one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.faults.campaign import Outcome, outcome_from, tables
from tests.faults.kinds import KINDS, damaged
from tests.support import streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNS, SOAK_RUNS = 300, 3000
SEED = "1"
SECONDS_PER_RUN = 5.0  # far more than a run takes


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> tuple[str, range]:
    """The seed, and the numbers of the runs."""
    soak = request.config.getoption("--soak")
    seed, _colon, number = (request.config.getoption("--fault-seed") or "").partition(":")
    if number:
        return seed, range(int(number), int(number) + 1)
    default = str(int.from_bytes(os.urandom(4), "big")) if soak else SEED
    return seed or default, range(SOAK_RUNS if soak else RUNS)


@pytest.mark.root
@pytest.mark.timeout(SOAK_RUNS * SECONDS_PER_RUN)
def test_no_fault_does_harm(
    chosen: tuple[str, range], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed, numbers = chosen
    started = time.monotonic()
    outcomes = sorted(campaign(seed, numbers, tmp_path), key=lambda outcome: outcome.number)
    seconds = time.monotonic() - started
    head = f"{len(outcomes)} faults of seed {seed} in {seconds:.0f} s"
    record_property("shown", f"{head}\n\n{tables(outcomes)}")
    wrong = [f"{seed}:{o.number} {o.what}: {o.verdict.all()}" for o in outcomes if o.verdict.all()]
    assert wrong == []
    assert [outcome.number for outcome in outcomes] == list(numbers)
    if len(numbers) > 1:
        assert {outcome.kind for outcome in outcomes} == {kind.name for kind in KINDS}
        assert sum(outcome.struck for outcome in outcomes) > 0.9 * len(outcomes)


def campaign(seed: str, numbers: range, directory: Path) -> Iterator[Outcome]:
    """Yield what came of these faults, done by one process for each processor."""
    workers = min(os.cpu_count() or 1, len(numbers))
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                worker(seed, numbers[first::workers], directory / f"outcomes{first}")
            )
            for first in range(workers)
        ]
        statuses = [process.wait() for process in running]
    for first, status in enumerate(statuses):
        said = (directory / f"outcomes{first}").read_text()
        lines = [line for line in said.splitlines() if line.startswith("{")]
        assert status == 0, said[-5000:]
        yield from map(outcome_from, lines)


@contextmanager
def worker(seed: str, numbers: range, told: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process that does some of the runs, in a mount namespace of its own."""
    ends_with_us = ("setpriv", "--pdeathsig", "TERM", "--")
    private = ("unshare", "--mount", "--propagation", "private")
    module = (sys.executable, "-m", "tests.faults.campaign")
    which = (numbers.start, numbers.step, numbers.stop)
    command = (*ends_with_us, *private, *module, seed, *map(str, which))
    with (
        told.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # so that it takes down what it has set up


def test_a_seed_damages_a_stream_in_the_same_way() -> None:
    stream = streams.KERNEL_STREAM
    made = [damaged(stream, Random(seed)) for seed in range(200)]
    assert made == [damaged(stream, Random(seed)) for seed in range(200)]
    assert stream not in made
    assert len(set(made)) > 50
