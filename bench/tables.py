"""What the benchmark measured, as values, and as tables for a reader. No measuring here."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 150  # of the widest table; a narrower terminal wraps it


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of ButterSink and of something else, run by run in turns."""

    name: str
    other: str
    our_seconds: list[float]
    other_seconds: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long ButterSink took, pair by pair."""
        pairs = zip(self.our_seconds, self.other_seconds, strict=True)
        return [ours / theirs for ours, theirs in pairs]


@dataclass(frozen=True, slots=True)
class Transfer:
    """
    A comparison of transfers, and what ButterSink said in each of its runs.

    Attributes:
        comparison: The times.
        peak_bytes: The most memory ButterSink's process had.
        plan_bytes: What the plan said would be sent.
        sent_bytes: What was sent.
        steps_differing: Steps of all runs that sent another number of bytes than planned.

    """

    comparison: Comparison
    peak_bytes: list[int]
    plan_bytes: list[int]
    sent_bytes: list[int]
    steps_differing: int


@dataclass(frozen=True, slots=True)
class Contender:
    """One of several that do the same; what it took, round by round."""

    name: str
    seconds: list[float]
    cpu_seconds: list[float]
    peak_bytes: list[int]


@dataclass(frozen=True, slots=True)
class Contest:
    """Several that do the same, run round by round; the first is what the others are held to."""

    name: str
    contenders: list[Contender]


def print_contest(contest: Contest) -> None:
    """Print medians with lowest and highest, and ratios to the first within the same round."""
    first = contest.contenders[0]
    of = f"of {first.name}"
    table = _table(contest.name, "wall", of, "processors", of, "peak memory")
    for each in contest.contenders:
        peaks = [peak / (1 << 20) for peak in each.peak_bytes]
        table.add_row(
            each.name,
            _spread(each.seconds, "{:.2f}") + " s",
            _spread(_ratios(each.seconds, first.seconds), "{:.2f}"),
            _spread(each.cpu_seconds, "{:.2f}") + " s",
            _spread(_ratios(each.cpu_seconds, first.cpu_seconds), "{:.2f}"),
            f"{max(peaks):.0f} MiB",
        )
    _print(table)


def _ratios(values: list[float], of: list[float]) -> list[float]:
    return [value / other for value, other in zip(values, of, strict=True)]


def print_comparisons(comparisons: list[Comparison], interpreter_seconds: list[float]) -> None:
    """Print medians with the lowest and highest in brackets."""
    if not comparisons:
        return
    table = _table("wall time", "ButterSink", "btrfs-progs", "ratio", "of")
    for each in comparisons:
        ours, other = _seconds(each.our_seconds), _seconds(each.other_seconds)
        table.add_row(each.name, ours, other, _spread(each.ratios, "{:.2f}"), each.other)
    if interpreter_seconds:
        table.add_row("Python started, nothing done", _seconds(interpreter_seconds))
    _print(table)
    for each in comparisons:
        pairs = " ".join(f"{ratio:.2f}" for ratio in each.ratios)
        print(f"{each.name}: ratios pair by pair {pairs}")


def print_memory(transfers: list[Transfer]) -> None:
    """Print the highest resident set."""
    table = _table("peak memory", "ButterSink")
    for each in transfers:
        mib = [peak / (1 << 20) for peak in each.peak_bytes]
        table.add_row(each.comparison.name, _spread(mib, "{:.1f}") + " MiB")
    _print(table)


def print_plans(transfers: list[Transfer]) -> None:
    """Print whether each run sent what its plan said."""
    table = _table("bytes", "planned", "sent", "sends what the plan says")
    for each in transfers:
        same = each.plan_bytes == each.sent_bytes and not each.steps_differing
        runs = f"{len(each.sent_bytes)} runs"
        verdict = f"yes, {runs}" if same else f"NO: {each.steps_differing} steps differ in {runs}"
        table.add_row(
            each.comparison.name, f"{each.plan_bytes[0]:,}", f"{each.sent_bytes[0]:,}", verdict
        )
    _print(table)


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of texts, what each row is about first."""
    table = _table(*headings)
    for row in rows:
        table.add_row(*row)
    _print(table)


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False, width=WIDTH)
    console.print()
    console.print(table)


def _seconds(times: list[float]) -> str:
    return _spread(times, "{:.3f}") + " s"


def _spread(values: list[float], form: str) -> str:
    """Return median, lowest and highest."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{} ({} - {})".format(*(form.format(number) for number in numbers))
