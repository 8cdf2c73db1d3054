"""
A tree of diffs made to obey a limit on the length of chains. No I/O here.

The limit binds new diffs only: what is stored stays as it is. Two ways lead there, and the cheaper
one counts. Where lineages hardly branch it is the best tree without crossings. Where they branch
much, a price on the depth of each snapshot that is too deep is raised until few are, and those are
hung elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.planner.network import NONE
from buttersink.planner.rehanging import Tree
from buttersink.planner.uncrossing import uncrossed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buttersink.planner.network import Network

_ROUNDS = 30
_WORK = 2**17  # nodes times rounds, so that large families take no minutes
_NEARLY = 20  # the part of the nodes that may still be too deep when a tree is made to fit


def shortened(network: Network, tree: Tree, limit: int, names: Sequence[int]) -> Tree:
    """
    Return the cheapest tree found in which no new diff lies deeper than `limit`.

    Raises:
        ValueError: A wanted node cannot be reached like that; it is called by its name.

    """
    return min(_found(network, tree, limit, names), key=lambda tree: tree.cost)


def _found(network: Network, tree: Tree, limit: int, names: Sequence[int]) -> Iterator[Tree]:
    """Yield trees within the limit, one at a time, since large ones take much memory."""
    yield _fewest(network, limit, names).descend(limit)
    yield from _priced(network, tree, limit)
    entering = uncrossed(network, tree, limit)
    if entering is not None:
        yield Tree(network, entering).descend(limit)


def _fewest(network: Network, limit: int, names: Sequence[int]) -> Tree:
    """Return the tree of the shortest chains; at the limit only stored diffs go on."""
    out: list[list[int]] = [[] for _ in range(network.nodes)]
    for arc, tail in enumerate(network.tails):
        out[tail].append(arc)
    entering = [NONE] * network.nodes
    depth = [0] + [NONE] * (network.nodes - 1)
    reached = [0]
    for most in (limit, network.nodes):  # what nobody wants may be too deep
        for node in reached:
            for arc in out[node]:
                head = network.heads[arc]
                if depth[head] == NONE and (depth[node] < most or network.stored[arc]):
                    entering[head] = arc
                    depth[head] = depth[node] + 1
                    reached.append(head)
        for node, wanted in enumerate(network.wanted):
            if wanted and depth[node] == NONE:
                raise ValueError(f"node {names[node]} cannot be reached by {limit} diffs or fewer")
    return Tree(network, entering)


def _priced(network: Network, tree: Tree, limit: int) -> Iterator[Tree]:
    """
    Yield trees within the limit that prices on depth lead to.

    In rounds: where a snapshot is too deep its depth becomes dearer, elsewhere less dear. When few
    are left they are hung elsewhere, and the tree is finished under the limit without those prices.
    """
    entering = tree.entering
    prices = [0] * network.nodes
    step = 1 + tree.cost // (1000 * network.nodes)
    for _ in range(min(_ROUNDS, 1 + _WORK // network.nodes)):
        entering = Tree(network, entering, prices).descend().entering
        plain = Tree(network, entering)
        deep = set(plain.too_deep(limit))
        if len(deep) <= network.nodes // _NEARLY:
            fitting = plain.fit(limit).descend(limit)
            if not fitting.too_deep(limit):
                yield fitting
        for node, price in enumerate(prices):
            prices[node] = (
                price * 3 // 2 + step if node in deep else price * (9 if deep else 6) // 10
            )
