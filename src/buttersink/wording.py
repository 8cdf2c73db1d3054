"""
Results in words for people: the cells of the tables, the closing lines, sizes and times.

Values in, text out; no I/O here. Names come out printable, sizes in binary units.
"""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from buttersink.catalogue import Exactness, uuid_text
from buttersink.errors import VerifyError, printable
from buttersink.planner.plan import Action
from buttersink.report import Status, steps_of, stored_diffs, total_size
from buttersink.verdict import Depth, diff_name, snapshot_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from buttersink.catalogue import Catalogue, Diff, Partial, Size, Snapshot, Uuid
    from buttersink.planner.plan import Plan, Step
    from buttersink.report import Report
    from buttersink.verdict import Verdict

Row = TypeVar("Row")

_KIB = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_TIMES = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SIGNS = {Exactness.ESTIMATED: "~", Exactness.BOUNDED: "<", Exactness.UNFINISHED: ">"}


class Column(NamedTuple, Generic[Row]):
    """A column of a table; `right` is for numbers."""

    title: str
    cell: Callable[[Row], str]
    right: bool = False


def snapshot_columns(catalogue: Catalogue, *, verbose: bool) -> list[Column[Snapshot]]:
    """Return the columns of a listing's snapshots."""
    columns: list[Column[Snapshot]] = [
        Column("Path", lambda s: printable(s.path)),
        Column("Size", lambda s: _known(s.size), right=True),
    ]
    if any(s.exclusive is not None for s in catalogue.snapshots):
        columns.append(Column("Exclusive", lambda s: _known(s.exclusive), right=True))
    if catalogue.diffs:
        columns += _stored_columns(catalogue)
    columns += [
        Column("Generation", lambda s: str(s.generation), right=True),
        Column("Created", lambda s: _local_text(s.created)),
        Column("UUID", lambda s: uuid_text(s.uuid)),
    ]
    if verbose:
        columns += [
            Column("Own UUID", lambda s: uuid_text(s.own_uuid)),
            Column("Parent UUID", lambda s: uuid_text(s.parent_uuid) if s.parent_uuid else "-"),
            Column(
                "Received UUID", lambda s: uuid_text(s.received_uuid) if s.received_uuid else "-"
            ),
        ]
    return columns


def _stored_columns(catalogue: Catalogue) -> list[Column[Snapshot]]:
    diffs = stored_diffs(catalogue)
    paths = {snapshot.uuid: printable(snapshot.path) for snapshot in catalogue.snapshots}

    def origin(diff: Diff) -> str:
        return "full" if diff.parent is None else paths.get(diff.parent, uuid_text(diff.parent))

    def stored(snapshot: Snapshot) -> str:
        return ", ".join(_known(size) for _, size in diffs.get(snapshot.uuid, [])) or "-"

    def origins(snapshot: Snapshot) -> str:
        return ", ".join(origin(diff) for diff, _ in diffs.get(snapshot.uuid, [])) or "-"

    return [Column("Stored", stored, right=True), Column("From", origins)]


def partial_columns(now: int, *, verbose: bool) -> list[Column[Partial]]:
    """Return the columns of a listing's partial transfers; `now` in nanoseconds."""
    columns: list[Column[Partial]] = [
        Column("Path", lambda p: printable(p.path)),
        Column("Size", lambda p: _known(p.size), right=True),
        Column("Age", lambda p: duration_text(max(0, now - p.modified) // 10**9), right=True),
    ]
    if verbose:
        columns.append(Column("UUID", lambda p: uuid_text(p.uuid)))
    return columns


def listing_total(location: str, catalogue: Catalogue) -> str:
    """Return the last line of a listing."""
    count = len(catalogue.snapshots)
    total = f"{counted(count, 'snapshot')} in {printable(location)}"
    known = sum(s.size is not None for s in catalogue.snapshots)
    if catalogue.diffs:
        total += f", {_known(total_size(catalogue))} stored"
    elif known:
        total += f", {_known(total_size(catalogue))}"
        total += f" in the {known} whose size is known" if known < count else ""
    if catalogue.partials:
        total += f", {counted(len(catalogue.partials), 'partial transfer')}"
    return f"{total}."


def namesakes(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """Yield a line for each effective UUID that several snapshots share."""
    paths: dict[Uuid, list[str]] = {}
    for snapshot in snapshots:
        paths.setdefault(snapshot.uuid, []).append(printable(snapshot.path))
    for uuid, several in paths.items():
        if len(several) > 1:
            shared = f"share the effective UUID {uuid_text(uuid)} and count as one snapshot"
            yield f"{', '.join(several)} {shared}"


def plan_columns(steps: Sequence[Step], *, verbose: bool) -> list[Column[Step]]:
    """Return the columns of a plan."""
    columns: list[Column[Step]] = [
        Column("Action", lambda step: step.action.value),
        Column("Size", _step_size, right=True),
        Column("Path", lambda step: printable(step.path)),
        Column("From", _origin),
    ]
    if any(_moved(step) for step in steps):
        columns.append(Column("Source", _moved))
    if any(step.passing for step in steps):
        columns.append(Column("Then", lambda step: "removed afterwards" if step.passing else ""))
    if any(step.problem for step in steps):
        columns.append(Column("Problem", lambda step: printable(step.problem)))
    if verbose:
        columns.append(Column("Reason", _why))
    return columns


def _step_size(step: Step) -> str:
    return _known(step.partial.size if step.partial else step.size)


def _origin(step: Step) -> str:
    """Return what a step starts from: a path at the source, of a copy one at the destination."""
    if step.problem:
        return ""
    if step.action is Action.SEND:
        origin = printable(step.parent.path) if step.parent else "full"
        return f"{origin}, with clones" if step.clones else origin
    return printable(step.snapshot.path) if step.action is Action.COPY and step.snapshot else ""


def _moved(step: Step) -> str:
    """Return the source's path of a snapshot that will lie elsewhere at the destination."""
    if step.action is not Action.SEND or step.snapshot is None or step.snapshot.path == step.path:
        return ""
    return printable(step.snapshot.path)


def _why(step: Step) -> str:
    """Return why this step, and what else could have been; of a chain, what a restore reads."""
    reason = step.reason
    if reason is None:
        return ""
    parts = [printable(reason.note)] if reason.note else []
    if step.clones:
        names = ", ".join(printable(clone.path) for clone in step.clones)
        parts.append(f"with clones of {names}; without, {_known(reason.unshared)}")
    if step.action is Action.SEND:
        other = f"from {printable(reason.parent.path)}" if reason.parent else "in full"
        hops = f" with a chain of {reason.chain}" if reason.chain else ""
        size = reason.size
        parts.append(f"next best {other}, {_known(size)}{hops}" if size else "the only way")
    if step.restore:
        parts.append(f"restore reads {counted(step.depth, 'diff')}, {size_text(step.restore)}")
    return "; ".join(parts)


def is_idle(plan: Plan) -> bool:
    """Return whether the plan changes nothing."""
    return all(step.action is Action.KEEP for step in plan.steps)


def summary_of(source: str, destination: str, plan: Plan) -> str:
    """Return the plan in one line."""
    if is_idle(plan):
        return _idle(printable(source), printable(destination), _kept(plan))
    actions = [None if s.problem else s.action for s in steps_of(plan) if not s.passing]
    parts = {
        Action.SEND: f"to send{_on_the_way(plan)}, {_sending(plan)}",
        Action.COPY: "to copy",
        None: "that cannot be made",
        Action.KEEP: "kept",
        Action.DELETE: "to delete",
        Action.DISCARD: "to discard",
    }
    counts = {action: actions.count(action) for action in parts}
    return (
        ", ".join(f"{counts[action]} {parts[action]}" for action in parts if counts[action]) + "."
    )


def _kept(plan: Plan) -> int:
    """Return how many snapshots are there already; two subvolumes can be one."""
    return len({step.snapshot.uuid for step in plan.of(Action.KEEP) if step.snapshot})


def _idle(source: str, destination: str, count: int) -> str:
    if source == destination:
        return f"Nothing to do: there are no partial transfers in {source}."
    if count == 0:
        return f"Nothing to do: there are no snapshots in {source}."
    which = f"all {count} snapshots" if count > 1 else "the 1 snapshot"
    return f"Nothing to do: {destination} holds {which} of {source}."


def _on_the_way(plan: Plan) -> str:
    count = sum(step.passing for step in plan.of(Action.SEND))
    return f" with {count} on the way, removed afterwards" if count else ""


def _sending(plan: Plan) -> str:
    """Return what the plan sends, what any plan has to, and what full sends would."""
    sends = [step for step in plan.of(Action.SEND) if not step.problem]
    guessed = any(s.size is None or s.size.exactness is Exactness.ESTIMATED for s in sends)
    remarks = [f"lower bound {size_text(plan.lower_bound)}"] if plan.lower_bound else []
    if plan.cost > plan.cost_bound:
        above = 100 * (plan.cost / plan.cost_bound - 1) if plan.cost_bound else math.inf
        remarks.append(f"cost within {above:.1f} % of the least")
    remarks += [f"{plan.requests:,} requests"] if plan.requests else []
    stay = [step for step in sends if not step.passing]
    whole = [step.snapshot.size for step in stay if step.snapshot and step.snapshot.size]
    if len(whole) == len(stay) and any(step.parent for step in stay):
        remarks.append(f"all full {size_text(sum(size.bytes for size in whole))}")
    total = ("~" if guessed else "") + size_text(plan.send_bytes)
    return total + (f" ({'; '.join(remarks)})" if remarks else "")


def closing(report: Report, copies: set[bytes]) -> Iterator[str]:
    """Yield what was done, `copies` being the paths that a plan copies to."""
    done = [s for s in report.steps if s.status in (Status.DONE, Status.RESUMED)]
    copied = sum(step.path in copies for step in done)
    passed = sum(step.passing for step in done)
    if len(done) > copied:
        sent = len(done) - copied - passed
        on_the_way = f" and {passed} on the way" if passed else ""
        resumed = report.count(Status.RESUMED)
        again = f" ({resumed} resumed)" if resumed else ""
        rate = f" ({rate_text(report.sent_bytes / report.seconds)})" if report.seconds else ""
        moved = f"{size_text(report.sent_bytes)} in {duration_text(report.seconds)}{rate}"
        yield f"Sent {counted(sent, 'snapshot')}{on_the_way}{again}, {moved}."
    if copied:
        yield f"Copied {counted(copied, 'snapshot')} in place."
    if report.removed:
        yield f"Removed {len(report.removed)}."
    if failed := report.count(Status.FAILED):
        yield f"Failed: {counted(failed, 'snapshot')}."
    if skipped := report.count(Status.SKIPPED):
        yield f"Skipped: {counted(skipped, 'snapshot')}."
    if report.errors:
        yield f"Not removed: {len(report.errors)}."


def losses(verdict: Verdict) -> Iterator[VerifyError]:
    """Yield an error for each snapshot that is lost, with what brings it back."""
    broken = {finding.diff.to for finding in verdict.broken}
    for loss in verdict.lost:
        head = loss.repair.snapshot
        name, own = snapshot_name(head, verdict.paths), snapshot_name(loss.snapshot, verdict.paths)
        known = [snapshot_name(uuid, verdict.paths) for uuid in loss.repair.origins if uuid]
        origins = " or ".join(known) or "any snapshot that is whole here"
        full = f"a full send of {name}" + (f" or of {own}" if own != name else "")
        first = "remove what is broken of it, and " if head in broken else ""
        yield VerifyError(
            "snapshot lost",
            where=own,
            why="no chain of sound diffs leads to it",
            hint=f"A diff of {name} from {origins} brings it back, or {full}: {first}run "
            "buttersink from a source that has it.",
        )


def remarks(verdict: Verdict) -> Iterator[str]:
    """Yield what else a verification has to say, once for all diffs it is said of."""
    said: dict[str, list[Diff]] = {}
    for finding in verdict.notes:
        said.setdefault(finding.text, []).append(finding.diff)
    for text, diffs in said.items():
        several = counted(len(diffs), "diff")
        yield f"{several if diffs[1:] else diff_name(diffs[0], verdict.paths)}: {text}"
    if verdict.partials:
        count = counted(len(verdict.partials), "partial transfer")
        yield f"{count} left by interrupted runs: --delete with this location alone discards that"


def verdict_summary(location: str, verdict: Verdict) -> str:
    """Return in one line what a verification has found."""
    counts = f"{counted(verdict.diffs, 'diff')}, {counted(verdict.snapshots, 'snapshot')}"
    found = "all sound"
    if not verdict.sound:
        broken, lost = len(verdict.broken), len(verdict.lost)
        found = f"{counted(broken, 'diff')} broken, {counted(lost, 'snapshot')} lost"
    how = {
        Depth.CHAINS: "by the listing alone",
        Depth.CHECKSUMS: "by what was recorded",
        Depth.FULL: f"{size_text(verdict.bytes)} read in {duration_text(verdict.seconds)}",
    }[verdict.depth]
    if verdict.bytes and verdict.seconds:
        how += f" ({rate_text(verdict.bytes / verdict.seconds)})"
    return f"{counts} in {printable(location)}: {found}, {how}."


def counted(count: int, thing: str) -> str:
    """Return a number of things, in the plural where that is right."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _known(size: Size | int | None) -> str:
    if size is None:
        return "-"
    if isinstance(size, int):
        return size_text(size)
    return _SIGNS.get(size.exactness, "") + size_text(size.bytes)


def size_text(count: float) -> str:
    """Return a number of bytes in the binary unit that suits it."""
    if count < _KIB:
        return f"{int(count)} B"
    for unit in _UNITS:
        count /= _KIB
        if count < _KIB - 0.05:  # what would be rounded up to 1024.0 is 1.0 of the next
            return f"{count:.1f} {unit}"
    return f"{count / _KIB:.1f} EiB"


def reached_text(sent: int, size: Size | None) -> str:
    """Return how far a transfer of a size had come; empty if nothing had been sent."""
    if not sent:
        return ""
    if size is None or size.exactness not in (Exactness.MEASURED, Exactness.STORED):
        return f"after {size_text(sent)}"
    if sent >= size.bytes:
        return f"after all {size_text(sent)}"
    return f"at {100 * sent // size.bytes} % ({size_text(sent)} of {size_text(size.bytes)})"


def rate_text(rate: float | None) -> str:
    """Return bytes a second, empty if there are none."""
    return f"{size_text(rate)}/s" if rate else ""


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    for (unit, length), (lesser, part) in pairwise(_TIMES):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // part} {lesser}"
    return f"{seconds} s"


def _local_text(nanoseconds: int) -> str:
    if not nanoseconds:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(nanoseconds // 10**9))


def encodable(text: str, stream: TextIO) -> str:
    """Return text that `stream` can take, with escapes for what its encoding lacks."""
    encoding = stream.encoding or "utf-8"
    if text.isascii():
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)
