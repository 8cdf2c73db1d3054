"""
The diffs to choose from when diffs stay diffs, what a choice costs, and its least. No I/O here.

A diff costs once, when it is sent and stored, and again for every wanted snapshot whose chain it is
part of: there it can be lost, and is read to restore. With `load(v)` wanted snapshots at and below
`v`, the whole is the sum over the diffs of `cost + rate * load(head)`. Parts that meet only at the
root are independent of each other. Everything is in integers, repeatable, without recursion.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from buttersink.planner.arborescence import minimum_arborescence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NONE = -1


@dataclass(frozen=True, slots=True)
class Network:
    """
    The diffs to choose from, as arcs between nodes; node 0 is nothing, where full sends begin.

    A node that the destination has is sent again where that is cheaper, so leave the arcs of new
    diffs to it out if it must not be.

    Attributes:
        nodes: How many there are.
        tails: For each arc the node it makes the diff from.
        heads: For each arc the node that it makes.
        costs: For each arc what it costs once, 0 or more.
        rates: For each arc what it costs again for each wanted node whose chain it is in.
        stored: For each arc whether the destination has it already.
        wanted: For each node whether it has to be reached; others are used where that is cheaper.

    """

    nodes: int
    tails: Sequence[int]
    heads: Sequence[int]
    costs: Sequence[int]
    rates: Sequence[int]
    stored: Sequence[bool]
    wanted: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Chains:
    """
    A choice of diffs.

    Attributes:
        entering: For each node the arc that makes it, -1 for the root and for what is not used.
        depths: For each node the length of its chain.
        cost: Of the whole.
        lower_bound: What no choice can be below.

    """

    entering: list[int]
    depths: list[int]
    cost: int
    lower_bound: int


def reached_nodes(network: Network) -> list[bool]:
    """Return for each node whether arcs lead to it from the root."""
    out: list[list[int]] = [[] for _ in range(network.nodes)]
    for tail, head in zip(network.tails, network.heads, strict=True):
        out[tail].append(head)
    reached = [True] + [False] * (network.nodes - 1)
    waiting = [0]
    while waiting:
        for head in out[waiting.pop()]:
            if not reached[head]:
                reached[head] = True
                waiting.append(head)
    return reached


def parts(
    network: Network, reached: Sequence[bool]
) -> Iterator[tuple[Network, list[int], list[int]]]:
    """
    Yield what hangs together without the root, as networks of their own, without useless arcs.

    With each come the numbers that its nodes and arcs have in the whole.
    """
    joined = list(range(network.nodes))
    arcs_of: dict[int, list[int]] = {}
    nodes_of: dict[int, list[int]] = {}
    useful = [
        arc
        for arc in _without_useless(network)
        if network.heads[arc] not in (0, network.tails[arc]) and reached[network.tails[arc]]
    ]
    for arc in useful:
        tail, head = network.tails[arc], network.heads[arc]
        if tail:
            joined[_find(joined, tail)] = _find(joined, head)
    for node in range(1, network.nodes):
        if reached[node]:
            nodes_of.setdefault(_find(joined, node), [0]).append(node)
    for arc in useful:
        arcs_of.setdefault(_find(joined, network.heads[arc]), []).append(arc)
    for key, nodes in nodes_of.items():
        yield _part(network, nodes, arcs_of[key]), nodes, arcs_of[key]


def _without_useless(network: Network) -> list[int]:
    """Return the arcs but those that a full send of the same node is no dearer than."""
    full: dict[int, tuple[int, int]] = {}
    for arc, (tail, head) in enumerate(zip(network.tails, network.heads, strict=True)):
        price = (network.costs[arc], network.rates[arc])
        if not tail and price < full.get(head, (price[0] + 1, 0)):
            full[head] = price
    return [
        arc
        for arc, (tail, head) in enumerate(zip(network.tails, network.heads, strict=True))
        if not tail
        or head not in full
        or network.costs[arc] < full[head][0]
        or network.rates[arc] < full[head][1]
        or network.stored[arc]
    ]


def _part(network: Network, nodes: Sequence[int], arcs: Sequence[int]) -> Network:
    number = {node: new for new, node in enumerate(nodes)}
    return Network(
        len(nodes),
        [number[network.tails[arc]] for arc in arcs],
        [number[network.heads[arc]] for arc in arcs],
        [network.costs[arc] for arc in arcs],
        [network.rates[arc] for arc in arcs],
        [network.stored[arc] for arc in arcs],
        [network.wanted[node] for node in nodes],
    )


def _find(joined: list[int], node: int) -> int:
    while joined[node] != node:
        joined[node] = node = joined[joined[node]]
    return node


def lower_bound(network: Network) -> tuple[int, list[int]]:
    """
    Return what no choice can be below, and the tree that shows it.

    Each wanted node pays at least the rate of its own diff and of the cheapest chain to where that
    begins; what is not wanted may be free.
    """
    cheapest = _cheapest_rates(network)
    weights = [
        cost + rate + cheapest[tail] if network.wanted[head] else 0
        for tail, head, cost, rate in zip(
            network.tails, network.heads, network.costs, network.rates, strict=True
        )
    ]
    entering = minimum_arborescence(network.nodes, network.tails, network.heads, weights)
    return sum(weights[arc] for arc in entering[1:]), entering


def _cheapest_rates(network: Network) -> list[int]:
    """Return for each node the least sum of rates of a chain to it (Dijkstra)."""
    out: list[list[int]] = [[] for _ in range(network.nodes)]
    for arc, tail in enumerate(network.tails):
        out[tail].append(arc)
    cheapest = [NONE] * network.nodes
    waiting = [(0, 0)]
    while waiting:
        rate, node = heapq.heappop(waiting)
        if cheapest[node] == NONE:
            cheapest[node] = rate
            for arc in out[node]:
                heapq.heappush(waiting, (rate + network.rates[arc], network.heads[arc]))
    return cheapest
