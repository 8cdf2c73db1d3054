"""
Measure the planner on made-up histories: time, memory, and how near its choices are to the best.

    python -m bench.planner [edmonds] [loss] [priced] [limit]

Each part prints a table; without arguments all do. Every row runs in a process of its own, so that
peak memory is its own. Sizes come from simulated block maps and are taken before the clock starts;
seconds are those of the processor.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import networkx as nx

from bench.bounds import least_within
from bench.histories import KINDS, Habits, History, make, measured_pairs
from buttersink.catalogue import Diff, Uuid
from buttersink.planner import Weights
from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.candidates import candidates
from buttersink.planner.descent import Network, cheapest_chains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CHAINED = Weights(keeps_diffs=True)
HABITS = {
    "usual": Habits(),
    "cold": Habits(heat=0.7, bursts=1.5),
    "hot": Habits(heat=1.8, bursts=0.9),
    "restless": Habits(rollbacks=3, back=0.5),
    "forgotten": Habits(forgotten=0.5),
}
"""Ways to change that the choice of pairs was not made for; the seeds of `loss` are not, either."""

Arcs = tuple[list[int], list[int], list[int]]


def arcs_of(history: History, diffs: Iterable[Diff]) -> Arcs:
    """Return tails, heads and bytes; node 0 is nothing."""
    number: dict[Uuid | None, int] = {None: 0}
    for snapshot in history.snapshots:
        number[snapshot.uuid] = len(number)
    tails, heads, sizes = [], [], []
    for diff in diffs:
        tails.append(number[diff.parent])
        heads.append(number[diff.to])
        sizes.append(history.size(diff.parent, diff.to))
    return tails, heads, sizes


def near_pairs(history: History, near: int) -> list[Diff]:
    """
    Return full sends and the `near` nearest in time on each side, of the same subvolume.

    Pairs across subvolumes would be no better than full sends, and no work for the algorithm.
    """
    series: dict[bytes, list[Uuid]] = {}
    for snapshot in history.snapshots:
        series.setdefault(snapshot.path.split(b".")[0], []).append(snapshot.uuid)
    diffs = []
    for uuids in series.values():
        diffs += [Diff(to, None) for to in uuids]
        for place, to in enumerate(uuids):
            around = uuids[max(0, place - near) : place + near + 1]
            diffs += [Diff(to, parent) for parent in around if parent != to]
    return diffs


def random_arcs(count: int, each: int) -> Arcs:
    """Return a graph without any order: the hardest on the heaps."""
    chance = random.Random(count)
    tails, heads, sizes = [0] * count, list(range(1, count + 1)), [10**9] * count
    for head in range(1, count + 1):
        tails += chance.choices(range(1, count + 1), k=each)
        heads += [head] * each
        sizes += (chance.randrange(10**8) for _ in range(each))
    return tails, heads, sizes


def least(nodes: int, arcs: Arcs) -> int:
    """Return the bytes of the cheapest arborescence."""
    return sum(arcs[2][arc] for arc in minimum_arborescence(nodes, *arcs)[1:])


def priced(history: History, diffs: Iterable[Diff], weights: Weights | None) -> Network:
    """Return the network of an empty store of diffs; without weights bytes are all that counts."""
    tails, heads, sizes = arcs_of(history, diffs)
    fulls = (size for size, tail in zip(sizes, tails, strict=True) if not tail)
    return Network(
        len(history.snapshots) + 1,
        tails,
        heads,
        [weights.sending(size) for size in sizes] if weights else sizes,
        [weights.chaining(fulls) if weights else 0] * len(sizes),
        [False] * len(sizes),
        [False] + [True] * len(history.snapshots),
    )


def peak() -> float:
    """Return the most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def edmonds(kind: str, count: int, near: int) -> str:
    """Time the arborescence, and networkx beside it where that ends."""
    if kind == "random":
        nodes, arcs = count + 1, random_arcs(count, 2 * near)
    else:
        history = make(kind, count, 1)
        nodes, arcs = len(history.snapshots) + 1, arcs_of(history, near_pairs(history, near))
    before = peak()
    start = time.process_time()
    cost = least(nodes, arcs)
    seconds = time.process_time() - start
    row = f"{len(arcs[0]):9,} pairs {seconds:8.3f} s  {before:4.0f} -> {peak():4.0f} MiB"
    if count > 200:
        return row
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(zip(*arcs, strict=True))
    warnings.simplefilter("ignore")
    start = time.process_time()
    other = nx.minimum_spanning_arborescence(graph).size(weight="weight")
    slower = (time.process_time() - start) / seconds
    return f"{row}  networkx {slower:6.0f} times as long, cost equal: {other == cost}"


def loss(kind: str, count: int, seed: int, habits: str) -> str:
    """Compare the best choice of the pairs that are measured with the best of all pairs."""
    history = make(kind, count, seed, HABITS[habits])
    uuids = [snapshot.uuid for snapshot in history.snapshots]
    every = [Diff(to, None) for to in uuids]
    every += [Diff(to, parent) for to in uuids for parent in uuids if parent != to]
    nodes = len(uuids) + 1
    best = least(nodes, arcs_of(history, every))
    large, small = measured_pairs(history, scale=1000), measured_pairs(history)
    return (
        f"{least(nodes, arcs_of(history, large)) / best:9.5f} with {len(large) / len(uuids):.2f}"
        f" pairs each where files are large, {least(nodes, arcs_of(history, small)) / best:9.5f}"
        f" with {len(small) / len(uuids):.2f} where they are small"
    )


def plan(kind: str, count: int) -> str:
    """Time lineage, candidates and the priced descent."""
    history = make(kind, count, 1)
    start = time.process_time()
    diffs = candidates(history.snapshots, (), history.lineage)
    chosen = time.process_time() - start
    network = priced(history, diffs, CHAINED)
    start = time.process_time()
    chains = cheapest_chains(network)
    seconds = time.process_time() - start
    return (
        f"candidates {chosen:6.3f} s  descent {seconds:7.3f} s  {peak():4.0f} MiB  at most"
        f" {chains.cost / chains.lower_bound:.4f} of the optimum, longest chain"
        f" {max(chains.depths)}"
    )


def limit(kind: str, count: int, seed: int, longest: int) -> str:
    """Say what a limit on the length of chains costs, and what it has to cost."""
    history = make(kind, count, seed)
    diffs = candidates(history.snapshots, (), history.lineage, far=True)
    network, chained = priced(history, diffs, None), priced(history, diffs, CHAINED)
    free, bound = cheapest_chains(network), cheapest_chains(network, longest)
    least_bound = least_within(network, longest)
    ratio = cheapest_chains(chained, longest).cost / cheapest_chains(chained).cost
    return (
        f"{ratio:.4f} of the cost without; where bytes are all that counts"
        f" {bound.cost / free.cost:.4f}, proven to be at least {least_bound / free.cost:.4f},"
        f" chains {max(free.depths)} -> {max(bound.depths)}"
    )


PARTS: dict[str, tuple[Callable[..., str], Sequence[tuple[object, ...]]]] = {
    "edmonds": (
        edmonds,
        [
            *((kind, 200, 40) for kind in ("gfs", "linear")),
            *((kind, n, 20) for kind in ("many", "linear", "random") for n in (1000, 3000, 10_000)),
        ],
    ),
    "loss": (
        loss,
        [
            *((kind, 1000, seed, "usual") for kind in KINDS for seed in range(101, 107)),
            *((k, 1000, s, h) for h in HABITS for k in ("branchy", "mixed") for s in (101, 102)),
        ],
    ),
    "priced": (
        plan,
        [
            (kind, count)
            for kind in ("linear", "many", "branchy", "mixed")
            for count in (100, 300, 1000, 3000, 10_000)
        ],
    ),
    "limit": (
        limit,
        [
            (k, n, s, 32)
            for k, n in (("linear", 200), ("gfs", 200), ("many", 1000))
            for s in range(101, 107)
        ],
    ),
}


def main() -> None:
    """Run the parts named on the command line."""
    unknown = set(sys.argv[1:]).difference(PARTS)
    if unknown:
        sys.exit(f"usage: python -m bench.planner [{'|'.join(PARTS)}] ...")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for part in sys.argv[1:] or PARTS:
            work, rows = PARTS[part]
            print(f"{part}: {work.__doc__}")
            for row in rows:
                label = " ".join(str(value) for value in row)
                print(f"  {label:18} {pool.submit(work, *row).result()}", flush=True)


if __name__ == "__main__":
    main()
