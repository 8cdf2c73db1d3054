"""
Cheap diffs with short chains, for a store where diffs stay diffs. No I/O here.

The least cost of a `Network` is NP-hard to find, so snapshots are re-hung in several good trees
while that makes the whole cheaper, and the best tree without crossings is found. Where a limit on
the length of chains is broken, the tree is shortened. Everything is in integers, repeatable,
without recursion.
"""

from __future__ import annotations

from dataclasses import replace

from buttersink.planner.network import NONE, Chains, Network, lower_bound, parts, reached_nodes
from buttersink.planner.rehanging import Tree
from buttersink.planner.shortening import shortened
from buttersink.planner.uncrossing import uncrossed

__all__ = ["Chains", "Network", "cheapest_chains"]

_FACTORS = (3, 10)  # further starts are what is best when chains are so many times dearer
_FORCED_WORK = 2**16  # arcs times moves that are forced


def cheapest_chains(network: Network, max_chain: int | None = None) -> Chains:
    """
    Return the cheapest choice found that reaches every wanted node.

    No new diff makes a chain longer than `max_chain`, a stored one may.

    Raises:
        ValueError: A wanted node cannot be reached, or not within `max_chain`; names it.

    """
    reached = reached_nodes(network)
    for node, (wanted, can_be) in enumerate(zip(network.wanted, reached, strict=True)):
        if wanted and not can_be:
            raise ValueError(f"node {node} cannot be reached from node 0")
    entering = [NONE] * network.nodes
    depths = [0] * network.nodes
    cost = least = 0
    for part, nodes, arcs in parts(network, reached):
        bound, start = lower_bound(part)
        tree = _best(part, start)
        if max_chain is not None and tree.too_deep(max_chain):
            tree = shortened(part, tree, max_chain, nodes)
        tree = _forced(part, tree, max_chain)
        for node in range(1, part.nodes):
            if tree.load[node]:
                entering[nodes[node]] = arcs[tree.entering[node]]
                depths[nodes[node]] = tree.depth[node]
        cost += tree.cost
        least += bound
    return Chains(entering, depths, cost, least)


def _best(network: Network, start: list[int]) -> Tree:
    """
    Return the cheapest of the trees that descents from several starts lead to.

    The best one is made anew without crossings, until that makes it no cheaper.
    """
    trees = [Tree(network, start).descend()]
    for factor in _FACTORS:
        dearer = replace(network, rates=[rate * factor for rate in network.rates])
        trees.append(Tree(network, Tree(dearer, start).descend().entering).descend())
    best = min(trees, key=lambda tree: tree.cost)
    entering = uncrossed(network, Tree(network, start))
    while entering is not None:
        tree = Tree(network, entering).descend()
        if tree.cost >= best.cost:
            break
        best = tree
        entering = uncrossed(network, best)
    return best


def _forced(network: Network, best: Tree, limit: int | None) -> Tree:
    """
    Try to get better by what first makes it worse: one move made and held while the rest follows.

    The moves that lose least are tried first, as many as `_FORCED_WORK` allows.
    """
    tries = _FORCED_WORK // len(network.heads)
    moves = best.forcible(limit)
    while moves and tries:
        tries -= 1
        tree = best.after(moves.pop(), limit)
        if tree.cost < best.cost:
            best = tree
            moves = best.forcible(limit)
    return best
