"""
Choose one diff for every wanted snapshot so that all of them together cost least. No I/O here.

Snapshots are nodes, diffs are arcs, and nothing at all is the root; so is what a destination holds
whole. Where snapshots arrive whole the cheapest arborescence is the cheapest choice, proven, unless
others may be on the way: see `waypoints`. Where diffs stay diffs, those that are there already are
arcs that cost nothing to take, and chains have a price: see `descent`. Diffs that make no sense are
left out and told of, and what no diff leads to is missing in the choice; the rest is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from buttersink.catalogue import uuid_text
from buttersink.errors import PlanError
from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.costs import Weights, in_bytes
from buttersink.planner.reaching import reachable
from buttersink.planner.reasons import runners_up

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from buttersink.catalogue import Diff, Size, Uuid


@dataclass(frozen=True, slots=True)
class Problem:
    """
    What there is to choose from.

    Attributes:
        wanted: Snapshots that have to be reached. Their order settles ties.
        optional: Others that may be on the way.
        held: Snapshots that the destination has whole.
        offers: Diffs that can be sent.
        stored: Diffs that the destination has.
        unreadable: Why further diffs that there are cannot be sent.
        weights: What to make least.
        max_chain: The longest chain that a new diff may end; None for no limit.
        prunes: Whether stored diffs that are not chosen go, so that those that are chosen cost what
            keeping them does, and snapshots that the destination has may be sent again.

    """

    wanted: tuple[Uuid, ...]
    offers: Mapping[Diff, Size]
    optional: tuple[Uuid, ...] = ()
    held: frozenset[Uuid] = frozenset()
    stored: Mapping[Diff, Size] = field(default_factory=lambda: MappingProxyType({}))
    unreadable: Mapping[Diff, str] = field(default_factory=lambda: MappingProxyType({}))
    weights: Weights = field(default_factory=Weights)
    max_chain: int | None = None
    prunes: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """
    What was chosen.

    Attributes:
        diffs: The diff that makes each snapshot that is wanted or on the way.
        chains: How many diffs there are in its chain, from nothing or from what is held whole.
        runners_up: For each the cheapest diff that could have been chosen in the place of its own.
        missing: Why a wanted snapshot cannot be reached, for each that cannot.
        faults: What was wrong with offers.
        cost: Of the choice, in bytes sent.
        cost_bound: What no choice can be below.
        fewest_bytes: Bytes that any choice has to send.

    """

    diffs: Mapping[Uuid, Diff]
    chains: Mapping[Uuid, int]
    runners_up: Mapping[Uuid, Diff]
    missing: Mapping[Uuid, str]
    faults: tuple[PlanError, ...]
    cost: int
    cost_bound: int
    fewest_bytes: int


def choose(problem: Problem) -> Choice:
    """Return the cheapest choice; proven where snapshots arrive whole, nearly so elsewhere."""
    faults = dict(_faults(problem))
    graph = _Graph(problem, faults)
    chained = problem.weights.keeps_diffs or problem.optional
    result = _chained(problem, graph) if chained else _whole(graph)
    diffs = {
        uuid: graph.arcs[result.entering[node]]
        for uuid, node in graph.number.items()
        if result.entering[node] >= 0
    }
    spoiled = _spoiled(problem) if graph.missing else {}
    return Choice(
        diffs=diffs,
        chains={uuid: result.depths[graph.number[uuid]] for uuid in diffs},
        runners_up=runners_up(diffs, dict(zip(graph.arcs, graph.prices, strict=True)), graph.hop),
        missing={
            uuid: spoiled.get(uuid) or _why_missing(uuid, problem, graph) for uuid in graph.missing
        },
        faults=tuple(faults.values()),
        cost=in_bytes(result.cost),
        cost_bound=in_bytes(result.bound),
        fewest_bytes=result.fewest_bytes,
    )


def _faults(problem: Problem) -> Iterator[tuple[Diff, PlanError]]:
    """Yield the offers that make no sense; to have no use for an optional snapshot is no fault."""
    optional = set(problem.optional)
    known = {*problem.wanted, *problem.optional, *problem.held, *_ends(problem.stored)}
    for diff, size in problem.offers.items():
        if diff.to not in known:
            why = "nobody knows that snapshot"
        elif diff.parent and diff.parent not in known and diff.to not in optional:
            why = f"it starts from {uuid_text(diff.parent)}, a snapshot that is in neither place"
        elif size.bytes < 0:
            why = f"its length is {size.bytes} bytes"
        else:
            continue
        what = "a diff is left out of the plan"
        yield diff, PlanError(what, where=f"the one that makes {uuid_text(diff.to)}", why=why)


def _ends(diffs: Iterable[Diff]) -> Iterator[Uuid]:
    for diff in diffs:
        yield diff.to
        if diff.parent:
            yield diff.parent


def _why_missing(uuid: Uuid, problem: Problem, graph: _Graph) -> str:
    starts = [diff.parent for diff in (*problem.offers, *problem.stored) if diff.to == uuid]
    if not starts:
        return "no diff that makes it is known"
    lost = [parent for parent in starts if parent and parent not in graph.number]
    if problem.max_chain is not None and len(lost) < len(starts):
        return f"no chain of at most {problem.max_chain} diffs leads to it"
    ends = _ends_of_chains(lost, (*problem.offers, *problem.stored))
    link = "what makes it starts" if ends and ends[0] in lost else "its chain starts"
    names = ", ".join(map(uuid_text, (ends or lost)[:3])) + (", ..." if len(ends) > 3 else "")
    return f"{link} from a snapshot that nothing leads to ({names})"


def _spoiled(problem: Problem) -> dict[Uuid, str]:
    """Return why a diff cannot be sent for every snapshot in whose chain that could be."""
    if not problem.unreadable:
        return {}
    below: dict[Uuid | None, list[Uuid]] = {}
    for diff in (*problem.offers, *problem.stored, *problem.unreadable):
        below.setdefault(diff.parent, []).append(diff.to)
    spoiled = {diff.to: why for diff, why in problem.unreadable.items()}
    waiting = list(spoiled)
    for uuid in waiting:
        for to in below.get(uuid, ()):
            if to not in spoiled:
                spoiled[to] = spoiled[uuid]
                waiting.append(to)
    return spoiled


def _ends_of_chains(lost: Iterable[Uuid], diffs: Iterable[Diff]) -> list[Uuid]:
    """Return those that no diff makes among the snapshots that nothing leads to, and theirs."""
    origins: dict[Uuid, list[Uuid]] = {}
    for diff in diffs:
        if diff.parent:
            origins.setdefault(diff.to, []).append(diff.parent)
    seen = dict.fromkeys(lost)
    waiting = list(seen)
    for uuid in waiting:
        waiting += (new := dict.fromkeys(u for u in origins.get(uuid, ()) if u not in seen))
        seen |= new
    return [uuid for uuid in seen if uuid not in origins]


class _Graph:
    """
    The diffs that can be used, as arcs; node 0 is nothing, and what is held whole.

    Attributes:
        number: For each snapshot that can be reached its node.
        missing: The wanted snapshots that cannot.
        arcs: The diffs.
        tails: For each arc the node that its diff starts from.
        heads: For each arc the node that it makes.
        stored: For each arc whether the destination has it.
        lengths: For each arc its bytes.
        prices: For each arc what it costs once, in sixteenths of a byte.
        hop: What any costs again for each wanted snapshot in whose chain it is.

    """

    def __init__(self, problem: Problem, unsound: Collection[Diff]) -> None:
        nodes = dict.fromkeys((*problem.wanted, *problem.optional, *_ends(problem.stored)))
        there = set() if problem.prunes else reachable(problem.stored, problem.held)
        sizes = {
            diff: size
            for diff, size in problem.offers.items()
            if diff.to in nodes and diff.to not in there and diff not in unsound
        } | dict(problem.stored)
        reached = reachable(sizes, problem.held, problem.stored, problem.max_chain)
        self.missing = [uuid for uuid in problem.wanted if uuid not in reached]
        found = (uuid for uuid in nodes if uuid in reached and uuid not in problem.held)
        self.number = {uuid: node for node, uuid in enumerate(found, start=1)}
        number: dict[Uuid | None, int] = dict.fromkeys((None, *problem.held), 0)
        number.update((uuid, node) for uuid, node in self.number.items())
        self.arcs = [diff for diff in sizes if diff.parent in number and diff.to in self.number]
        self.tails = [number[diff.parent] for diff in self.arcs]
        self.heads = [number[diff.to] for diff in self.arcs]
        self.stored = [diff in problem.stored for diff in self.arcs]
        self.lengths = [sizes[diff].bytes for diff in self.arcs]
        self.prices = [
            (problem.weights.keeping(length) if problem.prunes else 0)
            if stored
            else problem.weights.sending(length)
            for length, stored in zip(self.lengths, self.stored, strict=True)
        ]
        known = {**problem.offers, **problem.stored}
        self.hop = problem.weights.chaining(
            size.bytes for d, size in known.items() if d.parent is None and d not in unsound
        )

    def __len__(self) -> int:
        return len(self.number) + 1


class _Result(NamedTuple):
    """Entering arcs and chain lengths by node, prices in sixteenths of a byte, and bytes."""

    entering: list[int]
    depths: list[int]
    cost: int
    bound: int
    fewest_bytes: int


def _whole(graph: _Graph) -> _Result:
    """Choose where snapshots arrive whole."""
    entering = minimum_arborescence(len(graph), graph.tails, graph.heads, graph.prices)
    cost = sum(graph.prices[arc] for arc in entering[1:])
    sent = sum(graph.lengths[arc] for arc in entering[1:])
    return _Result(entering, _depths(entering, graph.tails), cost, cost, sent)


def _chained(problem: Problem, graph: _Graph) -> _Result:
    """Choose where diffs stay diffs, or where others than the wanted ones may be on the way."""
    from buttersink.planner.descent import Network, cheapest_chains
    from buttersink.planner.waypoints import cheapest_ways

    goals = set(problem.wanted)
    wanted = [False, *(uuid in goals for uuid in graph.number)]
    rates = [graph.hop] * len(graph.arcs)
    network = Network(
        len(graph), graph.tails, graph.heads, graph.prices, rates, graph.stored, wanted
    )
    if not problem.weights.keeps_diffs:
        ways = cheapest_ways(network)
        fewest_bytes = cheapest_ways(replace(network, costs=graph.lengths)).lower_bound
        return _Result(ways.entering, ways.depths, ways.cost, ways.lower_bound, fewest_bytes)
    chains = cheapest_chains(network, problem.max_chain)
    lengths = [
        0 if stored or not wanted[head] else length
        for length, stored, head in zip(graph.lengths, graph.stored, graph.heads, strict=True)
    ]
    fewest = minimum_arborescence(len(graph), graph.tails, graph.heads, lengths)
    sent = sum(lengths[arc] for arc in fewest[1:])
    return _Result(chains.entering, chains.depths, chains.cost, chains.lower_bound, sent)


def _depths(entering: list[int], tails: list[int]) -> list[int]:
    """Return for each node how many arcs there are between it and the root."""
    depths = [0] + [-1] * (len(entering) - 1)
    for start in range(1, len(entering)):
        path, node = [], start
        while depths[node] < 0:
            path.append(node)
            node = tails[entering[node]]
        for depth, below in enumerate(reversed(path), start=depths[node] + 1):
            depths[below] = depth
    return depths
