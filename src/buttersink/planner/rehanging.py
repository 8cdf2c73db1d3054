"""
A tree of diffs, made cheaper by re-hanging snapshots. No I/O here.

Moves are made in batches whose subtrees do not touch, so that their gains add up exactly, until no
one move makes the whole cheaper. Under a limit on the length of chains no move of a new diff may
make a chain longer. Everything is in integers, repeatable, without recursion.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from copy import copy
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from buttersink.planner.network import NONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buttersink.planner.network import Network

_FREE = -(2**62)  # no new diff at or below: no limit applies


class Move(NamedTuple):
    """Make `node` by `arc` from `tail` instead; `change` of the whole is below 0."""

    change: int
    node: int
    arc: int
    tail: int


class Tree:
    """
    One choice of diffs, and all that is known about each node in it.

    Attributes:
        entering: For each node the arc that makes it.
        depth: Length of its chain.
        rate: What its chain costs for each wanted node at its end.
        load: How many wanted nodes are at and below it. Where there are none it is not used.
        cost: Of the whole.
        priced: The same and each node's depth times its price.

    """

    def __init__(
        self, network: Network, entering: Sequence[int], prices: Sequence[int] | None = None
    ) -> None:
        self._network = network
        self._prices = prices or [0] * network.nodes
        self._into: list[list[tuple[int, int, int, int]]] = [[] for _ in range(network.nodes)]
        arcs = zip(network.tails, network.heads, network.costs, network.rates, strict=True)
        for arc, (tail, head, cost, rate) in enumerate(arcs):
            self._into[head].append((arc, tail, cost, rate))
        self.entering = list(entering)
        self._survey()

    def too_deep(self, limit: int) -> list[int]:
        """Return the nodes that a new diff makes deeper than `limit`."""
        return [
            node
            for node, depth in enumerate(self.depth)
            if depth > limit and self.load[node] and not self._network.stored[self.entering[node]]
        ]

    def descend(self, limit: int | None = None, held: int = 0) -> Tree:
        """Re-hang nodes but `held` until no one move makes the whole cheaper; return itself."""
        while self._improve(sorted(m for m in self._moves(limit) if m.node != held)):
            pass
        return self

    def fit(self, limit: int) -> Tree:
        """Hang what is too deep where it loses least, as far as that can be; return itself."""
        while deep := set(self.too_deep(limit)):
            moves = [m for m in self._all_moves(None) if m.node in deep]
            moves = [m for m in moves if self.depth[m.tail] < limit]
            if not moves:
                break
            self.make(self._independent(sorted(moves)))
        return self

    def forcible(self, limit: int | None) -> list[Move]:
        """
        Return every move that can be made, the last most worth a trial.

        Those are in turn the one that loses least, and the full send nearest to the middle of the
        load, from which chains are shortest.
        """
        moves = sorted(self._all_moves(limit))
        half = self.load[0] // 2
        full = [move for move in moves if not move.tail]
        full.sort(key=lambda move: abs(self.load[move.node] - half))
        others = [move for move in moves if move.tail]
        turns = zip_longest(others, full)
        return [move for turn in turns for move in turn if move is not None][::-1]

    def after(self, move: Move, limit: int | None) -> Tree:
        """Return what becomes of a copy when `move` is made, and held until nothing improves."""
        tree = copy(self)
        tree.make([move])
        tree.descend(limit, held=move.node)
        return tree.descend(limit)

    def _all_moves(self, limit: int | None) -> Iterator[Move]:
        """Yield every move that can be made, whatever it gains; prices are left out."""
        costs, first = self._network.costs, self._first
        for node in range(1, len(self.entering)):
            load, own = self.load[node], self.entering[node]
            if not load:
                continue
            now = costs[own] + load * self.rate[node] + self._spare[node]
            for arc, tail, cost, rate in self._into[node]:
                if (
                    arc != own
                    and not first[node] <= first[tail] < self._end[node]
                    and (limit is None or self._fits(node, arc, tail, limit))
                ):
                    change = cost + load * (self.rate[tail] + rate) + self._wake[tail] - now
                    yield Move(change, node, arc, tail)

    def _survey(self) -> None:
        """Work out everything from `entering`, downwards for chains and upwards for subtrees."""
        network, tails = self._network, self._network.tails
        order = self._order()
        self._first = [0] * network.nodes
        self.depth = [0] * network.nodes
        self.rate = [0] * network.nodes
        for place, node in enumerate(order):
            self._first[node] = place
            if node:
                arc = self.entering[node]
                self.depth[node] = self.depth[tails[arc]] + 1
                self.rate[node] = self.rate[tails[arc]] + network.rates[arc]
        self._sum_up(order)
        self._spare = [0] * network.nodes
        self._wake = [0] * network.nodes
        if not all(network.wanted[1:]):
            self._price_optional(order)

    def _order(self) -> list[int]:
        """Return the nodes so that each subtree is one stretch that its top begins."""
        below: list[list[int]] = [[] for _ in self.entering]
        for node, arc in enumerate(self.entering):
            if node:
                below[self._network.tails[arc]].append(node)
        order, waiting = [], [0]
        while waiting:
            node = waiting.pop()
            order.append(node)
            waiting += below[node]
        return order

    def _sum_up(self, order: Sequence[int]) -> None:
        network = self._network
        self.load = [int(wanted) for wanted in network.wanted]
        self._end = [place + 1 for place in self._first]
        self._weight = list(self._prices)
        self._reach = [_FREE] * network.nodes
        self.cost = self.priced = 0
        for node in reversed(order[1:]):
            arc = self.entering[node]
            above = network.tails[arc]
            load = self.load[node]
            self.load[above] += load
            self._weight[above] += self._weight[node]
            self._end[above] = max(self._end[above], self._end[node])
            reach = self._reach[node] if network.stored[arc] else max(0, self._reach[node])
            self._reach[above] = max(self._reach[above], reach + 1)
            if load:
                self.cost += network.costs[arc] + network.rates[arc] * load
            self.priced += self._prices[node] * self.depth[node]
        self.priced += self.cost

    def _price_optional(self, order: Sequence[int]) -> None:
        """
        Work out what a move gains or costs beside itself where nodes may be left out.

        `_spare` is what goes out of use above a node when it moves away, `_wake` what comes into
        use when something moves below it.
        """
        network = self._network
        for node in order[1:]:
            arc = self.entering[node]
            above = network.tails[arc]
            if above and not network.wanted[above] and self.load[above] == self.load[node]:
                self._spare[node] = network.costs[self.entering[above]] + self._spare[above]
            if not self.load[node]:
                self._wake[node] = network.costs[arc] + self._wake[above]

    def _moves(self, limit: int | None) -> Iterator[Move]:
        """Yield for each node the move that gains most, if any gains."""
        depth, rate, first, wake = self.depth, self.rate, self._first, self._wake
        for node in range(1, len(self.entering)):
            load, weight = self.load[node], self._weight[node]
            if not load:
                continue
            low, high = first[node], self._end[node]
            arc = self.entering[node]
            now = self._network.costs[arc] + load * rate[node] + weight * depth[node]
            least = now = now + self._spare[node]
            best = (NONE, NONE)
            for arc, tail, cost, arc_rate in self._into[node]:
                sum_ = (
                    cost + load * (rate[tail] + arc_rate) + weight * (depth[tail] + 1) + wake[tail]
                )
                if (
                    sum_ < least
                    and not low <= first[tail] < high
                    and (limit is None or self._fits(node, arc, tail, limit))
                ):
                    least, best = sum_, (arc, tail)
            if least < now:
                yield Move(least - now, node, *best)

    def _fits(self, node: int, arc: int, tail: int, limit: int) -> bool:
        reach = self._reach[node]
        if not self._network.stored[arc]:
            reach = max(0, reach)
        return self.depth[tail] + 1 + reach <= limit

    def _improve(self, moves: Sequence[Move]) -> bool:
        """Make the best moves that leave each other alone; tell whether the whole is cheaper."""
        before, entering = self.priced, self.entering
        if not moves:
            return False
        self.make(self._independent(moves))
        if self.priced < before:
            return True
        for move in moves:
            self.entering = entering
            self.make([move])
            if self.priced < before:
                return True
        self.entering = entering
        self._survey()
        return False

    def make(self, moves: Sequence[Move]) -> None:
        """Make these moves, which must not touch each other's subtrees."""
        self.entering = list(self.entering)
        for move in moves:
            self.entering[move.node] = move.arc
        self._survey()

    def _independent(self, moves: Sequence[Move]) -> list[Move]:
        """Return those moves, best first, that touch no subtree that another one moves."""
        chosen: list[Move] = []
        starts: list[int] = []  # of the moved stretches, which do not overlap
        ends: dict[int, int] = {}
        used: list[int] = []  # places that are moved or get something below them

        def moved(place: int) -> bool:
            at = bisect_right(starts, place)
            return at > 0 and ends[starts[at - 1]] > place

        for move in moves:
            top = self._top_out_of_use(move.node)
            low, high, target = self._first[top], self._end[top], self._first[move.tail]
            inside = bisect_left(used, high) - bisect_left(used, low)
            if not inside and not moved(low) and not moved(target):
                chosen.append(move)
                insort(starts, low)
                ends[low] = high
                insort(used, low)
                insort(used, target)
        return chosen

    def _top_out_of_use(self, node: int) -> int:
        """Return the highest node that goes out of use when `node` moves away, or itself."""
        while self._spare[node]:
            node = self._network.tails[self.entering[node]]
        return node
