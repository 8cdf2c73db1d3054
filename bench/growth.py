"""
Time whole plans of made-up histories, from lists of snapshots to steps in order, as they grow.

    python -m bench.growth [--plot docs/planner-growth.svg]

Survey, lineage, candidates, the choice of what to measure, and the plan, for a destination that
holds snapshots whole and for one that keeps diffs. Sizes are counted from simulated block maps
before the clock starts, so that answering the planner costs no more than looking them up. Seconds
are those of the processor; every row runs in a process of its own. The plot needs matplotlib:
pip install --group plot.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.histories import History, make
from bench.planner import peak
from buttersink.catalogue import Catalogue, Diff, Measurement
from buttersink.planner import Plan, PlanOptions, Weights, make_plan, survey
from buttersink.planner.measuring import Measuring

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("linear", "many", "branchy", "mixed")
COUNTS = (10, 100, 300, 1000, 3000, 10_000)
_COMMANDS = 60  # of a near diff, as measuring counts its work
_DATA = 64 * 1024  # and another one for so many bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One plan: of which history, for which destination, what it took and what came out."""

    kind: str
    count: int
    keeps_diffs: bool
    seconds: float
    peak_mib: float
    measured: int
    above_bound: float


def planned(
    history: History,
    weights: Weights,
    size: Callable[[Diff], int],
    newer: Callable[[Diff], int],
) -> tuple[Plan, Measuring]:
    """Plan as a sync does, with an empty destination."""
    source = Catalogue(history.snapshots, lineage=history.lineage)
    found = survey(source, Catalogue(), PlanOptions(), keeps_diffs=weights.keeps_diffs)
    measuring = Measuring(found, weights)
    while True:
        if questions := measuring.questions():
            for pair in questions:
                measuring.look(pair, newer(pair))
        elif pairs := measuring.next():
            for pair in pairs:
                length = size(pair)
                measuring.learn(Measurement(pair, length, _COMMANDS + length // _DATA))
        else:
            return make_plan(found, measuring.sizes, weights), measuring


def row(kind: str, count: int, keeps_diffs: bool) -> Row:  # noqa: FBT001  a row's columns
    """Time one plan."""
    history, weights = make(kind, count, 1), Weights(keeps_diffs=keeps_diffs)

    @cache
    def size(pair: Diff) -> int:
        return history.size(pair.parent, pair.to)

    @cache
    def newer(pair: Diff) -> int:
        return history.newer(pair.parent, pair.to)

    planned(history, weights, size, newer)
    start = time.process_time()
    plan, measuring = planned(history, weights, size, newer)
    seconds = time.process_time() - start
    above = plan.cost / plan.cost_bound - 1
    return Row(kind, count, keeps_diffs, seconds, peak(), measuring.asked, above)


def plot(rows: list[Row], path: Path) -> None:
    """Draw seconds over snapshots, both in powers of ten."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for kind in KINDS:
        for keeps_diffs, line in ((False, "--"), (True, "-")):
            mine = [each for each in rows if (each.kind, each.keeps_diffs) == (kind, keeps_diffs)]
            label = f"{kind}, {'chains priced' if keeps_diffs else 'whole'}"
            axes.loglog(
                [each.count for each in mine],
                [each.seconds for each in mine],
                line,
                color=f"C{KINDS.index(kind)}",
                marker=".",
                label=label,
            )
    axes.set_xlabel("snapshots")
    axes.set_ylabel("CPU seconds for the whole plan")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print a row for each history, and draw them if that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the growth there (SVG)")
    chosen = parser.parse_args()
    rows = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for kind in KINDS:
            for count in COUNTS:
                for keeps_diffs in (False, True):
                    made = pool.submit(row, kind, count, keeps_diffs).result()
                    rows.append(made)
                    print(
                        f"{kind:8} {count:6,} {'chains' if keeps_diffs else 'whole':6}"
                        f" {made.seconds:8.3f} s {made.peak_mib:5.0f} MiB"
                        f" {made.measured / count:5.1f} measured each,"
                        f" at most {1 + made.above_bound:.4f} of the least cost",
                        flush=True,
                    )
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
