"""
A tree of diffs laid in a row and made anew without crossings. No I/O here.

What is stored, from nothing on, stays as it is. The other snapshots are laid in a row in the order
in which the tree at hand has no crossings: its longest way from end to end, and each branch where
it begins. Jumps that are too far do not count, and families that are too large are left alone, so
that time and memory stay bounded.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from buttersink.planner.noncrossing import Entry, Row
from buttersink.planner.stretches import Jump, Jumps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from buttersink.planner.network import Network
    from buttersink.planner.rehanging import Tree

_FARTHEST = 64  # the longest jump along a row, in places, where chains are limited
_FAR_WORK = 2**18  # places times the longest jump where they are not: some 0.5 s
_ENDS = 64  # most ends of branches where the row may be divided
_WORK = 2**15  # places times limit: some 4 s and 200 MB


def uncrossed(network: Network, tree: Tree, limit: int | None = None) -> list[int] | None:
    """
    Return the arcs of the cheapest tree without crossings in the order of `tree`.

    No new diff lies deeper than `limit`. None if there is no such tree, if it would be too much
    work, or where all is stored or nobody wants it.
    """
    line = _Line(network, tree, limit)
    order, ends = line.order()
    if not order or (limit or 1) * len(order) > _WORK:
        return None
    arcs = line.row(order, ends[:: 1 + len(ends) // _ENDS]).cheapest()
    if arcs is None:
        return None
    entering = list(tree.entering)
    for node, arc in zip(order, arcs, strict=True):
        entering[node] = arc
    return entering


class _Line:
    """What a tree has beside what is kept: the nodes whose whole chain is stored, and the root."""

    def __init__(self, network: Network, tree: Tree, limit: int | None) -> None:
        self._network = network
        self._tree = tree
        self._limit = limit
        self._kept = {0}
        for node in sorted(range(1, network.nodes), key=tree.depth.__getitem__):
            arc = tree.entering[node]
            if tree.load[node] and network.stored[arc] and network.tails[arc] in self._kept:
                self._kept.add(node)
        self._never = 1 + sum(network.costs) + 2 * network.nodes * sum(network.rates)
        self._into: list[list[int]] = [[] for _ in range(network.nodes)]
        for arc, head in enumerate(network.heads):
            self._into[head].append(arc)

    def order(self) -> tuple[list[int], list[int]]:
        """
        Return the used nodes but those kept, with no crossings, and where trees and branches end.

        The longest way through a tree goes from end to end, each branch stands where it begins.
        """
        beside: dict[int, list[int]] = {
            node: []
            for node in range(self._network.nodes)
            if self._tree.load[node] and node not in self._kept
        }
        for node, others in beside.items():
            tail = self._network.tails[self._tree.entering[node]]
            if tail in beside:
                others.append(tail)
                beside[tail].append(node)
        order: dict[int, None] = {}
        for node in beside:
            if node not in order:
                *_, end = _outwards(beside, node)
                _walk(beside, end, order)
        ends = [
            place
            for place, (before, node) in enumerate(pairwise(order), 1)
            if before not in beside[node]
        ]
        return list(order), ends

    def row(self, order: Sequence[int], cuts: Sequence[int]) -> Row:
        """Return the row of these nodes, entered from what is kept."""
        network, tree = self._network, self._tree
        farthest = _FARTHEST
        if self._limit is None:
            farthest = max(farthest, _FAR_WORK // len(order))
        place = {node: number for number, node in enumerate(order)}
        jumps: tuple[Jumps, Jumps] = ([[] for _ in order], [[] for _ in order])
        entries: list[list[Entry]] = [[] for _ in order]
        for onto, node in enumerate(order):
            for arc in self._into[node]:
                tail, cost, rate = network.tails[arc], network.costs[arc], network.rates[arc]
                left = self._limit - 1 - tree.depth[tail] if self._limit is not None else 0
                if tail in self._kept and left >= 0:
                    entries[onto].append(Entry(left, cost, rate + tree.rate[tail], arc))
                elif tail in place and abs(distance := onto - place[tail]) <= farthest:
                    side, start = (
                        (0, onto - distance) if distance > 0 else (1, len(order) - 1 - place[tail])
                    )
                    jumps[side][start].append(Jump(abs(distance), cost, rate, arc))
        for starting in (*jumps[0], *jumps[1]):
            starting.sort()
        return Row(*jumps, entries, cuts, self._never, limited=self._limit is not None)


def _walk(beside: Mapping[int, Sequence[int]], start: int, order: dict[int, None]) -> None:
    """Add the nodes of a tree from `start` on, the tallest branch of each last."""
    outwards = _outwards(beside, start)
    height = dict.fromkeys(outwards, 0)
    for node, before in reversed(outwards.items()):
        height[before] = max(height.get(before, 0), height[node] + 1)
    waiting = [start]
    while waiting:
        node = waiting.pop()
        order[node] = None
        after = [other for other in beside[node] if other != outwards[node]]
        waiting += sorted(after, key=lambda other: (-height[other], other))


def _outwards(beside: Mapping[int, Sequence[int]], start: int) -> dict[int, int]:
    """Return the nodes of a tree, farther and farther from `start`, each with the one before."""
    before = {start: 0}
    waiting = [start]
    for node in waiting:
        for other in beside[node]:
            if other not in before:
                before[other] = node
                waiting.append(other)
    return before
