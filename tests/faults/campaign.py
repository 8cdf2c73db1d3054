"""
Many faults, one after the other, each chosen by a seed; and the table of what came of them.

    python -m tests.faults.campaign SEED FIRST STEP COUNT

does every STEPth run from number FIRST below COUNT in an arena of its own, in a mount namespace of
its own, and writes a line of JSON for each. A run is chosen by seed and number alone, so one can be
repeated without the others. Several of these share the work among processors.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.faults.arena import BEGINNINGS, PAIRINGS, Arena, Pairing, arena
from tests.faults.checks import (
    Verdict,
    after_fault,
    after_rerun,
    bugs,
    locks,
    mount_points,
    outside,
    residue,
)
from tests.faults.kinds import KINDS, Kind, Scene
from tests.faults.moments import PHASES, Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.moments import Ended, Run

COLUMNS = (
    "runs",
    "cut short",
    "false snapshots",
    "lost data",
    "reruns that needed a hand",
    "anything else",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run is: the kind of fault, between which places, from which beginning."""

    kind: Kind
    pairing: Pairing
    beginning: str

    def __str__(self) -> str:
        return f"{self.kind.name}, {self.pairing}, {self.beginning}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    A run, as it is told.

    Attributes:
        number: With the seed it repeats the run.
        kind, pairing, phase: The kind of fault, to what, when.
        what: All of what was chosen.
        struck: Whether the run had not ended before its moment came.
        verdict: What was wrong.

    """

    number: int
    kind: str
    pairing: str
    phase: str
    what: str
    struck: bool
    status: int
    seconds: float
    verdict: Verdict


CHOICES = [
    Choice(kind, pairing, beginning)
    for kind in KINDS
    for pairing in PAIRINGS
    if kind.fits(pairing)
    for beginning in BEGINNINGS
    if beginning == "begun" or not kind.begun
]


def choice_of(number: int) -> Choice:
    """Return what the run of a number is: all there are in turn, so that each is had as often."""
    return CHOICES[number % len(CHOICES)]


class Campaign:
    """Does runs in an arena."""

    def __init__(self, arena: Arena, seed: str) -> None:
        self._arena, self._seed = arena, seed
        self._whole: dict[tuple[Pairing, str], tuple[Ended, float]] = {}

    def outcome(self, number: int) -> Outcome:
        """Do the run of a number and return what came of it."""
        started = time.monotonic()
        choice = choice_of(number)
        random = Random(f"{self._seed}:{number}")
        moment = self._moment(choice, random)
        self._arena.begin(choice.pairing, choice.beginning, number)
        scene = Scene(self._arena, choice.pairing, choice.beginning, moment, random)
        verdict = Verdict()
        mounts, before = mount_points(), outside(self._arena)
        struck, ended = self._strike(scene, choice, moment, verdict, mounts)
        after_fault(self._arena, choice.pairing, choice.beginning, verdict, scene.spoilt)
        self._compare(before, choice, verdict)
        again = self._arena.start(choice.pairing)
        ended_again = again.wait()
        after_rerun(self._arena, choice.pairing, ended_again, verdict)
        verdict.left += residue(again.pid, mounts) + locks(self._arena) + bugs(ended_again)
        verdict.left += [f"{each} has outlived it" for each in ended_again.outlived]
        self._compare(before, choice, verdict)
        self._arena.clear_bucket()
        what = f"{choice}, {moment}"
        seconds = time.monotonic() - started
        chosen = (choice.kind.name, str(choice.pairing), moment.phase, what)
        return Outcome(number, *chosen, struck, ended.status, seconds, verdict)

    def _moment(self, choice: Choice, random: Random) -> Moment:
        """Choose a moment of those that a run without a fault has."""
        if not choice.kind.phases:
            return Moment("before")
        ended, seconds = self._whole_run(choice)
        phases = [p for p in choice.kind.phases if p == "any" or _sides(ended, p)]
        phase = random.choice(phases)
        if phase == "any":
            return Moment(phase, seconds=seconds * random.random())
        there = random.choice(_sides(ended, phase))
        # How often a pipe was read differs a little from run to run, and the moment only as much.
        number = 1 + int(ended.counts[phase, there] * random.random())
        return Moment(phase, number, there=there)

    def _whole_run(self, choice: Choice) -> tuple[Ended, float]:
        """Return how such a run goes without a fault, and how long that takes."""
        key = (choice.pairing, choice.beginning)
        if key not in self._whole:
            self._arena.begin(choice.pairing, choice.beginning, 0)
            started = time.monotonic()
            ended = self._arena.start(choice.pairing).wait()
            assert ended.status == 0, ended
            self._whole[key] = ended, time.monotonic() - started
            self._arena.clear_bucket()
        return self._whole[key]

    def _strike(
        self,
        scene: Scene,
        choice: Choice,
        moment: Moment,
        verdict: Verdict,
        mounts: frozenset[str],
    ) -> tuple[bool, Ended]:
        """Let the fault happen to a run, and go away; return whether it did, and how that ended."""
        disk = getattr(self._arena, choice.kind.faulty) if choice.kind.faulty else None
        if disk is not None:
            disk.remount(faulty=self._arena.faulty)
            mounts = mount_points()
        fault = contextmanager(choice.kind.fault)(scene)
        struck = True
        if moment.phase == "before":
            with fault:
                scene.run = self._arena.start(choice.pairing, moment)
                ended = scene.end()
                verdict.left += residue(scene.run.pid, mounts)
        else:
            scene.run = self._arena.start(choice.pairing, moment)
            if struck := self._is_reached(scene.run, moment):
                with fault:
                    ended = scene.end()
                    verdict.left += residue(scene.run.pid, mounts)
            else:
                ended = scene.end()
                if disk is not None:
                    disk.remount()
        verdict.left += scene.wrong + locks(self._arena)
        if not scene.gone:
            verdict.left += bugs(ended) + [f"{each} has outlived it" for each in ended.outlived]
        return struck, ended

    def _is_reached(self, run: Run, moment: Moment) -> bool:
        """Wait for a run's moment; false if it has ended by then."""
        if moment.phase != "any":
            return run.at_its_moment()
        time.sleep(moment.seconds)
        return not run.is_over()

    def _compare(self, before: Any, choice: Choice, verdict: Verdict) -> None:  # noqa: ANN401
        now = outside(self._arena)
        if now != before and choice.kind.name != "source snapshot deleted":
            verdict.left.append(f"outside has changed: {now.changes(before)}")


def _sides(ended: Ended, phase: str) -> list[bool]:
    """Return on which hosts, this one and the other, a run comes through a phase."""
    return [there for there in (False, True) if ended.counts[phase, there]]


def tables(outcomes: Sequence[Outcome]) -> str:
    """Return what came of the faults by kind, and how many there were by moment, as Markdown."""
    kinds = [
        (kind.name, *_counts([each for each in outcomes if each.kind == kind.name]))
        for kind in KINDS
    ]
    phases = (*PHASES, "any", "before")
    moments = [
        (str(pairing), *(_number(outcomes, str(pairing), phase) for phase in phases))
        for pairing in PAIRINGS
    ]
    by_kind = _table("fault", COLUMNS, [*kinds, ("**all**", *_counts(outcomes))])
    return f"{by_kind}\n\n{_table('moment', phases, moments)}"


def _table(first: str, heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [(first, *heads), ("---", *("---:" for _ in heads)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(outcomes: Sequence[Outcome], pairing: str, phase: str) -> str:
    return f"{sum((each.pairing, each.phase) == (pairing, phase) for each in outcomes):,}"


def _counts(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    verdicts = [each.verdict for each in outcomes]
    numbers = (
        len(outcomes),
        sum(bool(outcome.status) for outcome in outcomes),
        sum(bool(verdict.false) for verdict in verdicts),
        sum(bool(verdict.lost) for verdict in verdicts),
        sum(bool(verdict.hand) for verdict in verdicts),
        sum(bool(verdict.left) for verdict in verdicts),
    )
    return tuple(f"{number:,}" for number in numbers)


def outcome_from(line: str) -> Outcome:
    """Return an outcome from the line that it was told in."""
    fields = json.loads(line)
    return Outcome(**{**fields, "verdict": Verdict(**fields["verdict"])})


def work(seed: str, numbers: Iterable[int]) -> None:
    """Do these runs and write a line for each."""
    with (
        tempfile.TemporaryDirectory(prefix="buttersink-faults-") as name,
        arena(Path(name)) as made,
    ):
        campaign = Campaign(made, seed)
        for number in numbers:
            print(json.dumps(asdict(campaign.outcome(number))), flush=True)  # noqa: T201


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    first, step, count = (int(text) for text in sys.argv[2:5])
    work(sys.argv[1], range(first, count, step))
