"""
The cheapest diffs to what is wanted by way of what is not, where snapshots arrive whole. No I/O.

The least is NP-hard to find (a Steiner arborescence), except where there is no choice, which is how
stored diffs mostly are: what every way to a wanted snapshot leads through is as good as wanted. For
what is open then the tree is descended to from two starts; for a single snapshot one is the least.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from buttersink.planner.descent import cheapest_chains
from buttersink.planner.network import NONE, Chains
from buttersink.planner.rehanging import Tree

if TYPE_CHECKING:
    from buttersink.planner.network import Network


def cheapest_ways(network: Network) -> Chains:
    """Return the cheapest choice found for a network without rates, all of which can be reached."""
    needed = replace(network, wanted=_needed(network))
    chains = cheapest_chains(needed)
    entering, costs = _shortest(needed)
    alone = (cost for cost, need in zip(costs, needed.wanted, strict=True) if need)
    bound = max(chains.lower_bound, *alone, 0)
    if chains.cost > bound:
        tree = Tree(needed, entering).descend()
        if tree.cost < chains.cost:
            used = [
                arc if load else NONE for arc, load in zip(tree.entering, tree.load, strict=True)
            ]
            return Chains(used, tree.depth, tree.cost, bound)
    return replace(chains, lower_bound=bound)


def _needed(network: Network) -> list[bool]:
    """Return for each node whether it is wanted, or all that makes such a one starts from it."""
    origins: list[set[int]] = [set() for _ in range(network.nodes)]
    for tail, head in zip(network.tails, network.heads, strict=True):
        origins[head].add(tail)
    needed = [True, *network.wanted[1:]]
    waiting = [node for node, need in enumerate(needed) if node and need]
    while waiting:
        starts = origins[waiting.pop()]
        if len(starts) == 1 and not needed[start := next(iter(starts))]:
            needed[start] = True
            waiting.append(start)
    return [False, *needed[1:]]


def _shortest(network: Network) -> tuple[list[int], list[int]]:
    """Return for each node the last arc of the cheapest way to it alone, and what that costs."""
    out: list[list[int]] = [[] for _ in range(network.nodes)]
    for arc, tail in enumerate(network.tails):
        out[tail].append(arc)
    entering, costs = [NONE] * network.nodes, [NONE] * network.nodes
    waiting = [(0, 0, NONE)]
    while waiting:
        cost, node, arc = heappop(waiting)
        if costs[node] == NONE:
            costs[node], entering[node] = cost, arc
            for onward in out[node]:
                heappush(waiting, (cost + network.costs[onward], network.heads[onward], onward))
    return entering, costs
