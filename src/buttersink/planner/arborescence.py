"""
The cheapest way to reach every node from a root: minimum-cost arborescence. No I/O here.

Edmonds' method in Tarjan's form: walk backwards from each node along its cheapest incoming arc; a
walk that bites its own path has found a cycle, which becomes one node and walks on. The arcs that
enter a node lie in a skew heap whose keys are lowered as a whole, so contracting is cheap and the
whole takes O(E log V). Last, every contracted node is opened at the place where the tree enters it.

Weights are integers and sums are exact. There is no recursion: chains may be as deep as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NONE = -1
_NEW, _WALKED, _REACHED = range(3)


def minimum_arborescence(
    nodes: int, tails: Sequence[int], heads: Sequence[int], weights: Sequence[int]
) -> list[int]:
    """
    Return for every node the index of the arc that enters it, -1 for the root, which is node 0.

    Arc `i` leads from `tails[i]` to `heads[i]` and costs `weights[i]`, which may be negative.
    Parallel arcs and loops are allowed. Where several arcs are equally good when one has to be
    chosen, the one listed first is taken, so equal input gives equal output.

    Raises:
        ValueError: A node cannot be reached from the root (the message names one), or the three
            sequences differ in length.

    """
    if not len(tails) == len(heads) == len(weights):
        raise ValueError("tails, heads and weights differ in length")
    heaps = _Heaps(nodes, heads, weights)
    within, chosen = _contract(nodes, tails, heaps)
    return _expand(nodes, heads, within, chosen)


class _Heaps:
    """
    For every node a skew heap of the arcs that enter it; an arc's index is its heap cell.

    `key` of a cell is right once `add` of all cells above it is added; `add` is pushed down when a
    cell is taken apart. A heap starts as a sorted list along `left`, which is a skew heap too.
    """

    __slots__ = ("_add", "_key", "_left", "_right", "top")

    def __init__(self, nodes: int, heads: Sequence[int], weights: Sequence[int]) -> None:
        arcs = len(weights)
        self._key = list(weights)
        self._add = [0] * arcs
        self._left = [_NONE] * arcs
        self._right = [_NONE] * arcs
        self.top = [_NONE] * nodes
        for arc in sorted(range(arcs - 1, -1, -1), key=self._key.__getitem__, reverse=True):
            self._left[arc] = self.top[heads[arc]]
            self.top[heads[arc]] = arc

    def drop(self, node: int) -> None:
        """Take the cheapest arc out of the heap of `node`."""
        arc = self.top[node]
        self._push_down(arc)
        self.top[node] = self._meld(self._left[arc], self._right[arc])

    def take(self, node: int) -> int:
        """Take the cheapest arc out, and charge the others only what they cost more than it."""
        arc = self.top[node]
        self._add[arc] -= self._key[arc]
        self.drop(node)
        return arc

    def merge(self, nodes: Sequence[int]) -> None:
        """Make one heap of those of `nodes`, for a new node with the next number."""
        top = _NONE
        for node in nodes:
            top = self._meld(top, self.top[node])
            self.top[node] = _NONE
        self.top.append(top)

    def _push_down(self, arc: int) -> None:
        add = self._add[arc]
        for below in (self._left[arc], self._right[arc]):
            if below >= 0:
                self._key[below] += add
                self._add[below] += add
        self._add[arc] = 0

    def _meld(self, one: int, other: int) -> int:
        key, add, left, right = self._key, self._add, self._left, self._right
        if one < 0 or other < 0:
            return max(one, other)
        top = last = _NONE
        while one >= 0 and other >= 0:
            if key[other] < key[one] or (key[other] == key[one] and other < one):
                one, other = other, one
            if last < 0:
                top = one
            else:
                left[last] = one
            if add[one]:
                self._push_down(one)
            last, one = one, right[one]
            right[last] = left[last]
        left[last] = max(one, other)
        return top


def _contract(nodes: int, tails: Sequence[int], heaps: _Heaps) -> tuple[list[int], list[int]]:
    """
    Walk and contract until every node is reached.

    Returns:
        Two lists over the nodes, then the contracted nodes in the order of their making: the
        contracted node it lies in (-1: in none), and the arc chosen to enter it.

    """
    within = [_NONE] * nodes
    chosen = [_NONE] * nodes
    outermost = list(range(nodes))
    state = [_REACHED] + [_NEW] * (nodes - 1)
    for start in range(1, nodes):
        path: list[int] = []
        node = _find(outermost, start)
        while state[node] != _REACHED:
            if state[node] == _WALKED:
                node = _close_cycle(path, node, heaps, within, outermost)
                chosen.append(_NONE)
                state.append(_NEW)
            state[node] = _WALKED
            path.append(node)
            chosen[node] = _cheapest_from_outside(node, tails, heaps, outermost)
            if chosen[node] < 0:
                raise ValueError(
                    f"node {_member(nodes, node, within)} cannot be reached from node 0"
                )
            node = _find(outermost, tails[chosen[node]])
        for node in path:
            state[node] = _REACHED
    return within, chosen


def _cheapest_from_outside(
    node: int, tails: Sequence[int], heaps: _Heaps, outermost: list[int]
) -> int:
    top = heaps.top
    while top[node] >= 0:
        if _find(outermost, tails[top[node]]) != node:
            return heaps.take(node)
        heaps.drop(node)
    return _NONE


def _close_cycle(
    path: list[int], first: int, heaps: _Heaps, within: list[int], outermost: list[int]
) -> int:
    """Contract the end of `path` from `first` on, and return the number of the new node."""
    cycle = [path.pop()]
    while cycle[-1] != first:
        cycle.append(path.pop())
    new = len(within)
    for node in cycle:
        within[node] = outermost[node] = new
    within.append(_NONE)
    outermost.append(new)
    heaps.merge(cycle)
    return new


def _member(nodes: int, node: int, within: list[int]) -> int:
    """Return one of the original nodes in a contracted one."""
    while node >= nodes:
        node = within.index(node)
    return node


def _find(outermost: list[int], node: int) -> int:
    """Return the contracted node that `node` lies in now, halving the path to it."""
    while outermost[node] != node:
        outermost[node] = node = outermost[outermost[node]]
    return node


def _expand(nodes: int, heads: Sequence[int], within: list[int], chosen: list[int]) -> list[int]:
    """
    Give the arc that enters a contracted node to every node around the place it points at.

    All others in a cycle keep the arc that made the cycle. From the last contracted node to the
    first, each node is visited once.
    """
    entered = [False] * len(within)
    for node in range(len(within) - 1, nodes - 1, -1):
        if entered[node]:
            continue
        arc = chosen[node]
        inner = heads[arc]
        while inner != node:
            chosen[inner] = arc
            entered[inner] = True
            inner = within[inner]
    return chosen[:nodes]
