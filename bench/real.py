"""
The planner on real btrfs histories, beside the best that there is.

All pairs of a history's snapshots are measured, as far as it takes to know the fewest bytes that
any choice among them sends. ButterSink then surveys, measures what it finds worth it, and plans,
with nothing remembered, for an empty btrfs directory and for an empty bucket. That is timed in
turns with `btrfs send [-p] | btrfs receive` and `btrfs filesystem sync` of the planned diffs, all
of it from the page cache; the interpreter's start is not in it. Commands, of measurements in
proportion to those of the sends, say the same without a clock.

Extra clone sources can make the plan's bytes fewer than that; the raw sends do without them.

In a bucket diffs stay diffs, so its plan is compared by the price of sending, of keeping, and of
each link of a chain: with the best that is found among all pairs, and with a bound. Its bytes and
its time are in the last columns. What is sent raw for it is received in a file system, too.

With 200 snapshots there are 40,000 pairs: some minutes. --keep leaves file systems and sizes in a
directory, where the next run finds them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import perf_counter, process_time
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from bench.allpairs import AllPairs, Found, Sizes
from bench.local import IMAGE_BYTES, Document, filesystem, machine, raw_seconds, scratch
from bench.realhistory import KINDS, make
from bench.tables import print_rows
from buttersink import Mode, Role, sync
from buttersink.catalogue import Diff, Measurement, Uuid
from buttersink.location import Location, S3Location
from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.costs import UNIT
from buttersink.planner.descent import Network, cheapest_chains
from buttersink.planner.plan import Action
from buttersink.progress import Reporter
from buttersink.report import sync_document
from buttersink.stores.btrfs import BtrfsStore
from buttersink.stores.s3.store import S3Store
from tests.support.loopfs import mounted, run
from tests.support.s3servers import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from buttersink.planner import Weights
    from buttersink.stores.base import Store

Measured = dict[Diff, Measurement]


class Case(NamedTuple):
    """One history."""

    kind: str
    snapshots: int
    seed: int


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of surveying, measuring and planning, the same of all processors, and of sending."""

    plan: float
    processors: float
    raw: float


@dataclass(frozen=True, slots=True)
class Priced:
    """The price of a choice of chains in bytes sent, what none can be below, and its bytes."""

    price: float
    bound: float
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Planned:
    """
    What ButterSink plans for one destination.

    Attributes:
        sent: The lengths of the diffs, in bytes.
        measured: How many pairs it measured.
        measured_commands: What these measurements had together.
        sent_commands: What the plan's diffs have together.
        times: Run by run.

    """

    sent: dict[Diff, int]
    measured: int
    measured_commands: int
    sent_commands: int
    times: list[Timed]

    @property
    def bytes(self) -> int:
        """What it sends."""
        return sum(self.sent.values())


@dataclass(frozen=True, slots=True)
class Result:
    """
    What came out for one history.

    Attributes:
        case: Which.
        least_bytes: What the cheapest choice among all pairs sends, without extra clone sources.
        directory: What is planned for a btrfs directory.
        bucket: What is planned for a bucket.
        best: The cheapest chains found among all pairs.
        chosen: Those of the plan for a bucket.

    """

    case: Case
    least_bytes: int
    directory: Planned
    bucket: Planned
    best: Priced
    chosen: Priced

    def document(self) -> dict[str, object]:
        """Return it as JSON has it: of the diffs only what they have together."""
        plans = {"directory": self.directory, "bucket": self.bucket}
        return {
            "case": self.case,
            "least_bytes": self.least_bytes,
            **{name: {**asdict(plan), "sent": plan.bytes} for name, plan in plans.items()},
            "best": asdict(self.best),
            "chosen": asdict(self.chosen),
        }


class NotingStore(BtrfsStore):
    """A store that notes what it was asked to measure."""

    def __init__(self, location: Location) -> None:
        """Open a source to read."""
        super().__init__(location, Mode.READ, Role.SOURCE)
        self.noted: Measured = {}

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """Yield lengths, and note them."""
        for measurement in super().measure(diffs, limits):
            self.noted[measurement.diff] = measurement
            yield measurement


@contextmanager
def kept(above: Path, case: Case) -> Iterator[Path]:
    """Have a directory for a case that stays."""
    directory = above / "-".join(map(str, case))
    directory.mkdir(parents=True, exist_ok=True)
    yield directory


@contextmanager
def history(case: Case, directory: Path) -> Iterator[Path]:
    """Have a history mounted: the directory's, if it has it whole, or a new one that is left."""
    image = directory / "history.img"
    new = not (directory / "sizes.json").exists()
    if new:
        image.unlink(missing_ok=True)
        with image.open("xb") as sparse:
            sparse.truncate(IMAGE_BYTES)
        run("mkfs.btrfs", "--quiet", image)
    with mounted(image, directory / "source") as top:
        if new:
            make(top, KINDS[case.kind], case.snapshots, case.seed)
        yield top / "snapshots"


def all_pairs(source: Path, file: Path) -> AllPairs:
    """Return the pairs of a history with the sizes that the file has, if there is one."""
    if not file.exists():
        return AllPairs(source)
    return AllPairs(
        source,
        {
            Diff(_uuid(to), parent and _uuid(parent)): Found(size, exact)
            for to, parent, size, exact in json.loads(file.read_text())
        },
    )


def write_sizes(sizes: Sizes, file: Path) -> None:
    """Leave sizes for the next run."""
    rows = [[d.to.hex(), d.parent and d.parent.hex(), *found] for d, found in sizes.items()]
    file.write_text(json.dumps(rows))


def _uuid(text: str) -> Uuid:
    return Uuid(bytes.fromhex(text))


def open_source(directory: Path) -> NotingStore:
    """Open all snapshots below a directory."""
    return NotingStore(Location(os.fsencode(directory), all_below=True))


def measure_case(case: Case, directory: Path, runs: int, bucket: S3Location) -> Result:
    """Compare what is planned for a history with the best, and its time with that of sending."""

    def to_bucket(_target: Path) -> Store:
        return S3Store(bucket, Mode.APPEND, Role.DESTINATION)

    with history(case, directory) as source:
        whole = planned(source, directory, runs, to_directory)
        chained = planned(source, directory, runs, to_bucket)
        with to_bucket(directory) as store:
            weights = store.traits.weights
        pairs = all_pairs(source, directory / "sizes.json")
        fulls = (found.bytes for diff, found in pairs.sizes.items() if diff.parent is None)
        hop = weights.chaining([int(statistics.median(fulls))])

        def priced(sizes: Mapping[Diff, int]) -> tuple[Priced, list[Diff]]:
            return cheapest(sizes, weights, hop)

        chosen = priced(chained.sent)[0]
        write_sizes(pairs.sizes, directory / "sizes.json")
        least = pairs.cheapest(fewest_bytes, max(whole.bytes, chained.bytes))
        pairs.cheapest(lambda sizes: _price(priced(sizes)), chosen.price)
        write_sizes(pairs.sizes, directory / "sizes.json")
    best = priced({diff: found.bytes for diff, found in pairs.sizes.items()})[0]
    return Result(case, int(least), whole, chained, best, chosen)


def to_directory(target: Path) -> Store:
    """Open a file system as a destination."""
    there = Location(os.fsencode(target), all_below=True)
    return BtrfsStore(there, Mode.APPEND, Role.DESTINATION)


def planned(
    source: Path, directory: Path, runs: int, open_destination: Callable[[Path], Store]
) -> Planned:
    """Plan and send so many times, after a first time that does not count."""
    rounds = [plan_and_send(source, directory, open_destination) for _ in range(runs + 1)][1:]
    sent, measured, _ = rounds[-1]
    return Planned(
        {diff: measured[diff].bytes for diff in sent},
        len(measured),
        sum(each.commands for each in measured.values()),
        sum(measured[diff].commands for diff in sent),
        [times for _, _, times in rounds],
    )


def plan_and_send(
    source: Path, directory: Path, open_destination: Callable[[Path], Store]
) -> tuple[list[Diff], Measured, Timed]:
    """Plan, then send that with btrfs-progs; return the diffs, what was measured, and times."""
    with filesystem(directory, "destination") as target:
        with open_source(source) as store, open_destination(target) as destination:
            gc.collect()  # of what rounds before left; a run of its own has no such pause
            started, worked = perf_counter(), process_time()
            plan = sync.prepare(store, destination, sync.Options(), Reporter())
            seconds, processors = perf_counter() - started, process_time() - worked
        document: Document = sync_document("", "", "", plan, dry_run=True, report=None)
        raw = raw_seconds(document["plan"]["steps"], source, target)
    sent = [step.sent for step in plan.of(Action.SEND)]
    return sent, store.noted, Timed(seconds, processors, raw)


def numbered(sizes: Mapping[Diff, int]) -> tuple[int, list[int], list[int]]:
    """Return how many nodes there are, and tails and heads of the arcs; 0 is nothing."""
    nodes: dict[Uuid | None, int] = {None: 0}
    for diff in sizes:
        nodes.setdefault(diff.to, len(nodes))
    return len(nodes), [nodes[diff.parent] for diff in sizes], [nodes[diff.to] for diff in sizes]


def _price(choice: tuple[Priced, list[Diff]]) -> tuple[float, list[Diff]]:
    return choice[0].price, choice[1]


def fewest_bytes(sizes: Mapping[Diff, int]) -> tuple[float, list[Diff]]:
    """Return the best choice for a store of whole snapshots, after its bytes."""
    arcs = minimum_arborescence(*numbered(sizes), [*sizes.values()])[1:]
    diffs = [*sizes]
    return sum(sizes[diffs[arc]] for arc in arcs), [diffs[arc] for arc in arcs]


def cheapest(sizes: Mapping[Diff, int], weights: Weights, hop: int) -> tuple[Priced, list[Diff]]:
    """Choose for an empty store of diffs; `hop` is the price of a link of a chain."""
    nodes, tails, heads = numbered(sizes)
    network = Network(
        nodes,
        tails,
        heads,
        [weights.sending(size) for size in sizes.values()],
        [hop] * len(sizes),
        [False] * len(sizes),
        [False] + [True] * (nodes - 1),
    )
    chains = cheapest_chains(network)
    diffs = [*sizes]
    chosen = [diffs[arc] for arc in chains.entering[1:]]
    sent = sum(sizes[diff] for diff in chosen)
    return Priced(chains.cost / UNIT, chains.lower_bound / UNIT, sent), chosen


HEADINGS = (
    "history",
    "bytes",
    "of least",
    "measured",
    "commands",
    "planning",
    "raw",
    "planning of raw",
    "bucket",
    "bound",
    "bytes",
    "measured",
    "planning of raw",
)


def row(result: Result) -> tuple[str, ...]:
    """Return what the table shows of a result, under `HEADINGS`."""
    case, best, chosen = result.case, result.best, result.chosen
    whole, chained = result.directory, result.bucket
    return (
        f"{case.kind} {case.snapshots} {case.seed}",
        f"{whole.bytes / 1e6:.1f} MB",
        f"{whole.bytes / result.least_bytes:.4f}",
        f"{whole.measured / case.snapshots:.1f}",
        f"{whole.measured_commands / whole.sent_commands:.2f}",
        f"{statistics.median(each.plan for each in whole.times):.2f} s",
        f"{statistics.median(each.raw for each in whole.times):.2f} s",
        shares(whole.times),
        f"{chosen.price / best.price:.4f}",
        f"{chosen.price / best.bound:.4f}",
        f"{chosen.sent_bytes / result.least_bytes:.4f}",
        f"{chained.measured / case.snapshots:.1f}",
        shares(chained.times),
    )


def shares(times: Sequence[Timed]) -> str:
    """Say what part of the time of sending planning takes."""
    found = [each.plan / each.raw for each in times]
    return f"{statistics.median(found):.2f} ({min(found):.2f} - {max(found):.2f})"


@contextmanager
def empty_bucket() -> Iterator[S3Location]:
    """Have a bucket on a server of our own, that this process finds."""
    with scratch() as directory, START["rclone"](directory) as server:
        os.environ.update(server.environment())
        bucket = server.bucket("bench-real")
        yield S3Location(bucket.name, "", all_below=True)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/bench real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="such as mixed,small")
    parser.add_argument("--counts", default="12,200", help="snapshots in each history")
    parser.add_argument("--seeds", default="1", help="a history of each kind and count for each")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each side")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave file systems and sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args()
    if not KINDS.keys() >= set(chosen.kinds.split(",")) or chosen.runs < 1:
        parser.error(f"--kinds takes some of {','.join(KINDS)}, and --runs at least 1")
    chosen.cases = [
        Case(kind, int(count), int(seed))
        for count, kind, seed in product(
            chosen.counts.split(","), chosen.kinds.split(","), chosen.seeds.split(",")
        )
    ]
    return chosen


def main() -> int:
    """Measure history by history, print a table, and write the raw numbers."""
    chosen = options()
    results = []
    with empty_bucket() as bucket:
        for case in chosen.cases:
            with scratch() if chosen.keep is None else kept(chosen.keep, case) as directory:
                results.append(measure_case(case, directory, chosen.runs, bucket))
            print("  ".join(row(results[-1])), file=sys.stderr)
    where = machine()
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    print_rows(HEADINGS, [row(result) for result in results])
    if chosen.json:
        raw = {"machine": where, "results": [result.document() for result in results]}
        chosen.json.write_text(json.dumps(raw, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
