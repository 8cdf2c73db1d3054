"""
One run, start to end: survey, measure, plan; then transfer each step, delete, report.

This is the whole way of the data between two stores. `prepare` changes nothing in either, so a dry
run is a run that stops after it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from buttersink import planner
from buttersink.catalogue import Diff, Size
from buttersink.errors import (
    ConflictError,
    ConnectionLostError,
    Error,
    NoSpaceError,
    ProtocolError,
    ReceiveError,
    ResumeError,
    SendError,
    printable,
)
from buttersink.planner.plan import Action, Plan, Step
from buttersink.progress import Reporter, Transfer
from buttersink.report import Report, Status, StepResult
from buttersink.wording import reached_text

if TYPE_CHECKING:
    from buttersink.catalogue import Catalogue, Snapshot, Uuid
    from buttersink.stores.base import Store
    from buttersink.stream import Checkpoint

_NO_CONNECTION = (ConnectionLostError, ProtocolError)
_ON_THE_WAY = (*_NO_CONNECTION, SendError, ReceiveError)


@dataclass(frozen=True, slots=True)
class Options:
    """
    What the user asks of a run.

    Attributes:
        plan: What is wanted, deleted, left alone.
        estimate: Guess sizes instead of measuring them.

    """

    plan: planner.PlanOptions = field(default_factory=planner.PlanOptions)
    estimate: bool = False


def list_store(store: Store, options: Options, reporter: Reporter) -> Catalogue:
    """Return what a store holds; sizes nobody knows are measured, unless they may be left out."""
    found = store.catalogue()
    _warn(found, reporter)
    listed = [s for s in found.snapshots if not options.plan.excludes(s)]
    sizes: dict[Uuid, Size] = {}
    if store.traits.measures and not options.estimate:
        store.stream_version = store.traits.sends  # what a plan has measured is known here, too
        unknown = list(dict.fromkeys(Diff(s.uuid, None) for s in listed if s.size is None))
        for done, measurement in enumerate(store.measure(unknown), start=1):
            if measurement.problem:
                reporter.note(measurement.problem)
            else:
                sizes[measurement.diff.to] = measurement.size
            reporter.measuring(done, len(unknown))
    return replace(
        found,
        snapshots=tuple(replace(s, size=sizes[s.uuid]) if s.uuid in sizes else s for s in listed),
        partials=tuple(p for p in found.partials if not options.plan.excludes(p)),
    )


def prepare(source: Store, destination: Store, options: Options, reporter: Reporter) -> Plan:
    """Return the plan that makes the destination hold what the source holds; neither changes."""
    here, there = source.catalogue(), destination.catalogue()
    for found in (here, there):
        _warn(found, reporter)
    weights = destination.traits.weights
    survey = planner.survey(here, there, options.plan, keeps_diffs=weights.keeps_diffs)
    own = {snapshot.own_uuid for snapshot in here.snapshots}
    if any(arrival.snapshot.own_uuid in own for arrival in survey.copy):
        reporter.note("Source and destination are on the same file system: copies are no backup.")
    if not survey.send and not survey.rehang:
        return planner.make_plan(survey, {}, weights)
    if not source.traits.measures:
        return planner.make_plan(survey, here.diffs, weights, options.plan.max_chain)
    from buttersink.sizing import plan_by_size

    source.stream_version = min(source.traits.sends, destination.traits.receives)

    clones = source.traits.clones and destination.traits.clones
    return plan_by_size(
        survey,
        source,
        reporter,
        weights,
        options.plan.max_chain,
        estimate=options.estimate,
        clones=clones,
    )


def _warn(found: Catalogue, reporter: Reporter) -> None:
    """Tell of snapshots that are not what they were received as."""
    for path in found.altered:
        reporter.note(
            f"{printable(path)} was changed after it was received, so it is not the snapshot any "
            "more that it came from"
        )


def plan_clean_up(found: Catalogue) -> Plan:
    """Return the plan that discards a location's partial transfers and does nothing else."""
    return planner.make_plan(planner.Survey(discard=found.partials), {})


def carry_out(plan: Plan, source: Store, destination: Store, reporter: Reporter) -> Report:
    """
    Carry a plan out.

    What fails is reported, and what does not depend on it is still done; but nothing is deleted
    after a failure, and nothing more is sent to a full file system.
    """
    run = _Run(plan, source, destination, reporter)
    try:
        run.transfer()
        run.prune()
    finally:
        reporter.finished()
    return run.report()


class _Run:
    """The state of one run: what was done, what failed, what that rules out."""

    def __init__(self, plan: Plan, source: Store, destination: Store, reporter: Reporter) -> None:
        self._plan, self._source, self._destination = plan, source, destination
        self._reporter = reporter
        self._steps = [*plan.of(Action.COPY), *plan.of(Action.SEND)]
        self._results: list[StepResult] = []
        self._removed: list[bytes] = []
        self._errors = [str(fault) for fault in plan.faults]
        self._lost: set[Uuid] = set()  # snapshots that will not arrive
        self._passing: dict[Uuid, Step] = {}  # those there now that go again
        self._uses = Counter(step.parent.uuid for step in self._steps if step.parent)
        self._full = self._unreachable = False
        self._started = time.monotonic()

    def transfer(self) -> None:
        """Send and copy, in the plan's order; what passes goes, however that ends."""
        for fault in self._plan.faults:
            self._reporter.failed(fault)
        self._reporter.starting(len(self._steps), self._plan.send_bytes)
        try:
            for number, planned in enumerate(self._steps, start=1):
                step = self._without_lost(planned)
                if step.snapshot is not None:
                    size = step.size.bytes if step.size else None
                    count = len(self._steps)
                    self._one(step, Transfer(step.snapshot.uuid, step.path, size, number, count))
                    self._used(step.parent)
        finally:
            for uuid in tuple(self._passing):
                self._release(uuid)

    def _used(self, parent: Snapshot | None) -> None:
        """Let go of what passes as soon as nothing more starts from it: it takes room."""
        if parent is not None:
            self._uses[parent.uuid] -= 1
            if not self._uses[parent.uuid]:
                self._release(parent.uuid)

    def _release(self, uuid: Uuid) -> None:
        if uuid not in self._passing:
            return
        try:
            self._destination.release(self._passing[uuid])
        except Error as error:
            self._tell(error)
        del self._passing[uuid]  # not where an interruption has kept it from going

    def _without_lost(self, step: Step) -> Step:
        """Return a step that takes data from no snapshot that did not arrive; how long is open."""
        clones = tuple(clone for clone in step.clones if clone.uuid not in self._lost)
        return step if clones == step.clones else replace(step, clones=clones, size=None)

    def _one(self, step: Step, transfer: Transfer) -> None:
        started = time.monotonic()
        why_not = self._why_not(step)
        sent, resumed, error = 0, 0, None
        if why_not:
            self._reporter.note(f"{printable(step.path)} is skipped: {why_not}.")
        else:
            self._reporter.transfer_started(transfer)
            if step.passing:
                self._passing[transfer.uuid] = step
            try:
                sent, resumed = self._move(step, transfer)
            except Error as failure:
                error = failure
                self._full = self._full or isinstance(failure, NoSpaceError)
                self._unreachable = self._unreachable or isinstance(failure, _NO_CONNECTION)
            self._reporter.transfer_ended(transfer, error)
        if error or why_not:
            self._lost.add(transfer.uuid)
            self._passing.pop(transfer.uuid, None)
        done = Status.RESUMED if resumed else Status.DONE
        status = Status.SKIPPED if why_not else Status.FAILED if error else done
        text = why_not or (str(error) if error else None)
        seconds = time.monotonic() - started
        self._results.append(
            StepResult(
                step.path,
                transfer.uuid,
                status,
                sent - resumed,
                resumed or None,
                seconds,
                text,
                passing=step.passing,
            )
        )

    def _why_not(self, step: Step) -> str:
        if step.parent is not None and step.parent.uuid in self._lost:
            return "the snapshot it starts from did not arrive"
        if self._unreachable:
            return "the connection is lost"
        if self._full and step.action is Action.SEND:
            return "the destination is full"
        return ""

    def _move(self, step: Step, transfer: Transfer) -> tuple[int, int]:
        """Carry out one step; return its bytes, and how many of them were there already."""
        if step.problem:
            raise ConflictError("cannot make", where=step.path, why=step.problem)
        if step.action is Action.COPY:
            self._destination.copy(step)
            return 0, 0
        try:
            if checkpoint := self._destination.resumable(step):
                return self._flow(step, transfer, checkpoint)
        except ResumeError as error:
            self._reporter.note(f"{printable(step.path)} is sent from its beginning: {error.why}")
        return self._flow(step, transfer)

    def _flow(
        self, step: Step, transfer: Transfer, checkpoint: Checkpoint | None = None
    ) -> tuple[int, int]:
        """Let a diff flow, or what is missing of it after a checkpoint."""
        there = sent = checkpoint.bytes if checkpoint else 0
        try:
            with (
                self._source.send(step.sent, checkpoint) as chunks,
                self._destination.receive(step, checkpoint) as sink,
            ):
                if checkpoint:
                    self._reporter.transfer_advanced(transfer, sent)
                for chunk in chunks:
                    sink.write(chunk)
                    sent += len(chunk)
                    self._reporter.transfer_advanced(transfer, sent)
        except NoSpaceError:  # tells how much there was room for
            raise
        except _ON_THE_WAY as error:
            error.reached = reached_text(sent, step.size)
            raise
        return sent, there + sink.resumed

    def prune(self) -> None:
        """Delete what the plan lets go, unless something failed; then make all of it durable."""
        doomed = (*self._plan.of(Action.DELETE), *self._plan.of(Action.DISCARD))
        if doomed and self._lost:
            self._reporter.note("Nothing is deleted, because not everything arrived.")
        elif doomed:
            for step in doomed:
                self._remove(step)
        if self._results or self._removed:
            try:
                self._destination.flush()
            except _NO_CONNECTION as error:
                self._tell(error)

    def _tell(self, error: Error) -> None:
        """Report what failed beside the transfers; a lost connection once is enough."""
        lost = isinstance(error, _NO_CONNECTION)
        if not (lost and self._unreachable):
            self._errors.append(str(error))
            self._reporter.failed(error)
        self._unreachable = self._unreachable or lost

    def _remove(self, step: Step) -> None:
        try:
            if step.partial is not None:
                self._destination.discard(step.partial)
            else:
                self._destination.delete(step)
        except Error as error:
            self._tell(error)
        else:
            self._removed.append(step.path)
            self._reporter.removed(step.path)

    def report(self) -> Report:
        """Return what was done."""
        return Report(
            steps=tuple(self._results),
            sent_bytes=sum(result.bytes for result in self._results),
            seconds=time.monotonic() - self._started,
            removed=tuple(self._removed),
            errors=tuple(self._errors),
        )
