"""
Cheap diffs with short chains, for a store where diffs stay diffs. No I/O here.

A diff costs once, when it is sent and stored, and again for every wanted snapshot whose chain it is
part of: there it can be lost, and is read to restore. With `load(v)` wanted snapshots at and below
`v`, the whole is the sum over the diffs of `cost + rate * load(head)`. Its least is NP-hard to
find, so this re-hangs snapshots in several good trees while that makes the whole cheaper. Moves are
made in batches whose subtrees do not touch, so that their gains add up exactly.

A limit on the length of chains binds new diffs only: what is stored stays as it is. It is reached
by putting a price on the depth of each snapshot that is too deep, raised until none is. Parts that
meet only at the root are solved apart. Everything is in integers, repeatable, without recursion.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from copy import copy
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from buttersink.planner.arborescence import minimum_arborescence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NONE = -1
_FREE = -(2**62)  # no new diff at or below: no limit applies
_FACTORS = (3, 10)  # further starts are what is best when chains are so many times dearer
_LIMIT_ROUNDS = 60
_NEARLY = 20  # the part of the nodes that may still be too deep when a tree is made to fit
_FORCED_WORK = 2**18  # arcs times moves that are forced
_LIMIT_WORK = 2**18  # nodes times rounds, so that large families take no minutes


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


def cheapest_chains(network: Network, max_chain: int | None = None) -> Chains:
    """
    Return the cheapest choice found that reaches every wanted node.

    No new diff makes a chain longer than `max_chain`, a stored one may.

    Raises:
        ValueError: A wanted node cannot be reached, or not within `max_chain`; names it.

    """
    reached = _reached(network)
    for node, (wanted, can_be) in enumerate(zip(network.wanted, reached, strict=True)):
        if wanted and not can_be:
            raise ValueError(f"node {node} cannot be reached from node 0")
    entering = [_NONE] * network.nodes
    depths = [0] * network.nodes
    cost = lower_bound = 0
    for part, nodes, arcs in _parts(network, reached):
        bound, start = _bound(part)
        tree = _best(part, start, max_chain, nodes)
        for node in range(1, part.nodes):
            if tree.load[node]:
                entering[nodes[node]] = arcs[tree.entering[node]]
                depths[nodes[node]] = tree.depth[node]
        cost += tree.cost
        lower_bound += bound
    return Chains(entering, depths, cost, lower_bound)


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


def _reached(network: Network) -> list[bool]:
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


def _parts(
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


def _bound(network: Network) -> tuple[int, list[int]]:
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
    cheapest = [_NONE] * network.nodes
    waiting = [(0, 0)]
    while waiting:
        rate, node = heapq.heappop(waiting)
        if cheapest[node] == _NONE:
            cheapest[node] = rate
            for arc in out[node]:
                heapq.heappush(waiting, (rate + network.rates[arc], network.heads[arc]))
    return cheapest


def _best(network: Network, start: list[int], limit: int | None, names: Sequence[int]) -> _Tree:
    """Return the cheapest of the trees that descents from several starts lead to."""
    trees = [_Tree(network, start).descend()]
    for factor in _FACTORS:
        dearer = replace(network, rates=[rate * factor for rate in network.rates])
        trees.append(_Tree(network, _Tree(dearer, start).descend().entering).descend())
    best = min(trees, key=lambda tree: tree.cost)
    if limit is not None and best.too_deep(limit):
        best = _within(network, best.entering, limit, names)
    return _forced(network, best, limit)


def _forced(network: Network, best: _Tree, limit: int | None) -> _Tree:
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


def _within(network: Network, start: list[int], limit: int, names: Sequence[int]) -> _Tree:
    """
    Return the cheapest tree found in which no new diff lies deeper than `limit`.

    In rounds: where a snapshot is too deep its depth becomes dearer, elsewhere less dear. When few
    are left they are hung elsewhere, and the tree is finished under the limit without those prices.
    """
    found = [tree] if (tree := _shallow(network, limit)) else []
    prices = [0] * network.nodes
    step = 1 + _Tree(network, start).cost // (1000 * network.nodes)
    for _ in range(min(_LIMIT_ROUNDS, 1 + _LIMIT_WORK // network.nodes)):
        tree = _Tree(network, start, prices).descend()
        start = tree.entering
        deep = set(tree.too_deep(limit))
        if len(deep) <= network.nodes // _NEARLY:
            tree = _Tree(network, start).fit(limit).descend(limit)
            found += [] if tree.too_deep(limit) else [tree]
        for node, price in enumerate(prices):
            prices[node] = (
                price * 3 // 2 + step if node in deep else price * (9 if deep else 6) // 10
            )
    if not found:
        deep = set(_Tree(network, start).too_deep(limit))
        raise ValueError(f"node {names[min(deep)]} cannot be reached by {limit} diffs or fewer")
    return min(found, key=lambda tree: tree.cost)


def _shallow(network: Network, limit: int) -> _Tree | None:
    """Return what stored diffs and full sends alone lead to; None if that is too deep, too."""
    hops = [
        0 if stored else network.nodes if tail else 1
        for stored, tail in zip(network.stored, network.tails, strict=True)
    ]
    start = minimum_arborescence(network.nodes, network.tails, network.heads, hops)
    tree = _Tree(network, start).descend(limit)
    return None if tree.too_deep(limit) else tree


class _Move(NamedTuple):
    """Make `node` by `arc` from `tail` instead; `change` of the whole is below 0."""

    change: int
    node: int
    arc: int
    tail: int


class _Tree:
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

    def descend(self, limit: int | None = None, held: int = 0) -> _Tree:
        """Re-hang nodes but `held` until no one move makes the whole cheaper; return itself."""
        while self._improve(sorted(m for m in self._moves(limit) if m.node != held)):
            pass
        return self

    def fit(self, limit: int) -> _Tree:
        """Hang what is too deep where it loses least, as far as that can be; return itself."""
        while deep := set(self.too_deep(limit)):
            moves = [m for m in self._all_moves(None) if m.node in deep]
            moves = [m for m in moves if self.depth[m.tail] < limit]
            if not moves:
                break
            self.make(self._independent(sorted(moves)))
        return self

    def forcible(self, limit: int | None) -> list[_Move]:
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

    def after(self, move: _Move, limit: int | None) -> _Tree:
        """Return what becomes of a copy when `move` is made, and held until nothing improves."""
        tree = copy(self)
        tree.make([move])
        tree.descend(limit, held=move.node)
        return tree.descend(limit)

    def _all_moves(self, limit: int | None) -> Iterator[_Move]:
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
                    yield _Move(change, node, arc, tail)

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

    def _moves(self, limit: int | None) -> Iterator[_Move]:
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
            best = (_NONE, _NONE)
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
                yield _Move(least - now, node, *best)

    def _fits(self, node: int, arc: int, tail: int, limit: int) -> bool:
        reach = self._reach[node]
        if not self._network.stored[arc]:
            reach = max(0, reach)
        return self.depth[tail] + 1 + reach <= limit

    def _improve(self, moves: Sequence[_Move]) -> bool:
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

    def make(self, moves: Sequence[_Move]) -> None:
        """Make these moves, which must not touch each other's subtrees."""
        self.entering = list(self.entering)
        for move in moves:
            self.entering[move.node] = move.arc
        self._survey()

    def _independent(self, moves: Sequence[_Move]) -> list[_Move]:
        """Return those moves, best first, that touch no subtree that another one moves."""
        chosen: list[_Move] = []
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
