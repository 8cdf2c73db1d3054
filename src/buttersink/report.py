"""
What a run has done, as frozen values, and every result as a JSON-ready document.

The documents are the stable format of `--json`; docs/JSON.md describes them for users, and a key
once there keeps its meaning. Everything here is a function of its arguments: no I/O, no clock. A
path is UTF-8 with surrogateescape whatever the locale, so that it can be turned back into bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from buttersink.catalogue import Exactness, Size, uuid_text
from buttersink.planner.plan import Action, Plan, Reason, Step

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator

    from buttersink.catalogue import Catalogue, Diff, Partial, Snapshot, Uuid
    from buttersink.verdict import Finding, Loss, Verdict

Document: TypeAlias = dict[str, object]


class Status(StrEnum):
    """How a step ended."""

    DONE = "done"
    RESUMED = "resumed"  # done, and part of it was there from an earlier run
    FAILED = "failed"
    SKIPPED = "skipped"  # not tried, because what it starts from failed


@dataclass(frozen=True, slots=True)
class StepResult:
    """
    What became of one snapshot that was to be sent or copied.

    Attributes:
        path: At the destination, relative to its location.
        uuid: Effective UUID of the snapshot.
        status: How it ended.
        bytes: Bytes of the diff that moved in this run.
        resumed_from: Offset in the diff where this run took up an earlier one; None if it did not.
        seconds: How long it took.
        error: Why it failed or was skipped, as one line for a person.
        passing: Whether it was only on the way to others, and has gone again.

    """

    path: builtins.bytes  # the field `bytes` hides the type
    uuid: Uuid
    status: Status
    bytes: int
    resumed_from: int | None
    seconds: float
    error: str | None
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a whole run has done.

    Attributes:
        steps: Results of sends and copies, in the order of the plan.
        sent_bytes: Bytes that moved.
        seconds: From the first transfer's start to the end.
        removed: Paths of snapshots and partials that were removed.
        errors: Why others could not be removed, a line each.

    """

    steps: tuple[StepResult, ...]
    sent_bytes: int
    seconds: float
    removed: tuple[bytes, ...]
    errors: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything that was planned was done."""
        return not self.errors and not self.count(Status.FAILED, Status.SKIPPED)

    def count(self, *statuses: Status) -> int:
        """Return how many steps ended in one of `statuses`."""
        return sum(step.status in statuses for step in self.steps)


def utc_text(nanoseconds: int) -> str:
    """Return a time since the epoch as RFC 3339 UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 10**9))


def total_size(catalogue: Catalogue) -> Size:
    """Return the bytes of the stored diffs, or where there are none of the sizes known."""
    parts = [*catalogue.diffs.values()] or [s.size for s in catalogue.snapshots if s.size]
    guessed = any(part.exactness is Exactness.ESTIMATED for part in parts)
    exactness = Exactness.ESTIMATED if guessed else Exactness.STORED
    return Size(sum(part.bytes for part in parts), exactness)


def steps_of(plan: Plan) -> Iterator[Step]:
    """Yield the plan's steps, and after one that replaces a snapshot the deletion of that."""
    for step in plan.steps:
        yield step
        if step.replaces is not None:
            reason = Reason("replaced by the snapshot that takes its path")
            yield Step(Action.DELETE, step.path, snapshot=step.replaces, reason=reason)


def stored_diffs(catalogue: Catalogue) -> dict[Uuid, list[tuple[Diff, Size]]]:
    """Return the diffs a store holds, by the snapshot they make."""
    by_snapshot: dict[Uuid, list[tuple[Diff, Size]]] = {}
    for diff, size in catalogue.diffs.items():
        by_snapshot.setdefault(diff.to, []).append((diff, size))
    return by_snapshot


def listing_document(version: str, location: str, catalogue: Catalogue, now: int) -> Document:
    """Return what `buttersink --json LOCATION` prints; `now` is in nanoseconds since the epoch."""
    diffs = stored_diffs(catalogue)
    return {
        "buttersink": version,
        "location": location,
        "snapshots": [_snapshot(s, diffs.get(s.uuid, [])) for s in catalogue.snapshots],
        "partials": [_partial(partial, now) for partial in catalogue.partials],
        "total_size": total_size(catalogue).bytes,
    }


def _snapshot(snapshot: Snapshot, diffs: list[tuple[Diff, Size]]) -> Document:
    return {
        "path": _path(snapshot.path),
        "uuid": uuid_text(snapshot.uuid),
        "received_uuid": _uuid(snapshot.received_uuid),
        "parent_uuid": _uuid(snapshot.parent_uuid),
        "generation": snapshot.generation,
        "created": utc_text(snapshot.created) if snapshot.created else None,
        "size": snapshot.size.bytes if snapshot.size else None,
        "exclusive": snapshot.exclusive,
        "diffs": [{"from": _uuid(diff.parent), "size": size.bytes} for diff, size in diffs],
    }


def _partial(partial: Partial, now: int) -> Document:
    age = max(0, now - partial.modified) // 10**9
    return {"path": _path(partial.path), "size": partial.size, "age": age}


def sync_document(
    version: str, source: str, destination: str, plan: Plan, *, dry_run: bool, report: Report | None
) -> Document:
    """Return what `buttersink --json SOURCE DESTINATION` prints."""
    return {
        "buttersink": version,
        "source": source,
        "destination": destination,
        "dry_run": dry_run,
        "plan": {
            "steps": [_step(step) for step in steps_of(plan)],
            "send_count": sum(not step.problem for step in plan.of(Action.SEND)),
            "send_bytes": plan.send_bytes,
            "lower_bound_bytes": plan.lower_bound,
            "cost_bytes": plan.cost,
            "cost_bound_bytes": plan.cost_bound,
            "requests": plan.requests,
        },
        "result": _result(report) if report else None,
    }


def _step(step: Step) -> Document:
    subject = step.snapshot or step.partial
    origin = step.snapshot if step.action is Action.COPY else step.parent
    size = step.size
    parent = step.diff.parent if step.diff else step.parent.uuid if step.parent else None
    if step.partial and step.partial.size is not None:
        size = Size(step.partial.size, Exactness.STORED)
    return {
        "action": step.action.value,
        "path": _path(step.path),
        "uuid": _uuid(subject.uuid) if subject else None,
        "from": _uuid(parent),
        "from_path": _path(origin.path) if origin else None,
        "clone_sources": [uuid_text(clone.uuid) for clone in step.clones],
        "size": size.bytes if size else None,
        "size_is": size.exactness.value if size else None,
        "depth": step.depth,
        "restore_bytes": step.restore or None,
        "passing": step.passing,
        "problem": step.problem or None,
    }


def _result(report: Report) -> Document:
    return {
        "sent_bytes": report.sent_bytes,
        "seconds": round(report.seconds, 3),
        "steps": [_step_result(step) for step in report.steps],
        "removed": [_path(path) for path in report.removed],
        "errors": list(report.errors),
    }


def _step_result(step: StepResult) -> Document:
    return {
        "path": _path(step.path),
        "uuid": uuid_text(step.uuid),
        "status": step.status.value,
        "bytes": step.bytes,
        "resumed_from": step.resumed_from,
        "seconds": round(step.seconds, 3),
        "error": step.error,
        "passing": step.passing,
    }


def verdict_document(version: str, location: str, verdict: Verdict, now: int) -> Document:
    """Return what `buttersink --json --verify DEPTH LOCATION` prints; `now` in nanoseconds."""
    return {
        "buttersink": version,
        "location": location,
        "depth": verdict.depth.value,
        "sound": verdict.sound,
        "diff_count": verdict.diffs,
        "snapshot_count": verdict.snapshots,
        "read_bytes": verdict.bytes,
        "seconds": round(verdict.seconds, 3),
        "broken": [_finding(finding, verdict) for finding in verdict.broken],
        "lost": [_loss(loss, verdict) for loss in verdict.lost],
        "notes": [_finding(finding, verdict) for finding in verdict.notes],
        "partials": [_partial(partial, now) for partial in verdict.partials],
    }


def _finding(finding: Finding, verdict: Verdict) -> Document:
    return {
        **_verified(finding.diff.to, verdict),
        "from": _uuid(finding.diff.parent),
        "text": finding.text,
    }


def _loss(loss: Loss, verdict: Verdict) -> Document:
    repair = loss.repair
    origins = [uuid_text(origin) for origin in repair.origins if origin is not None]
    return {
        **_verified(loss.snapshot, verdict),
        "repair": {**_verified(repair.snapshot, verdict), "from": origins},
    }


def _verified(uuid: Uuid, verdict: Verdict) -> Document:
    path = verdict.paths.get(uuid)
    return {"path": None if path is None else _path(path), "uuid": uuid_text(uuid)}


def _uuid(uuid: Uuid | None) -> str | None:
    return None if uuid is None else uuid_text(uuid)


def _path(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
