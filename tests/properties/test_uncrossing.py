"""The best choice without crossings is that: beside every such choice for rows of few snapshots."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from buttersink.planner.network import Network
from buttersink.planner.rehanging import Tree
from buttersink.planner.uncrossing import uncrossed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FEW = 5


@st.composite
def rows(draw: st.DrawFn, most: int = FEW) -> Network:
    """Full sends of all, a diff to each from the one before, and perhaps any others."""
    count = draw(st.integers(1, most))
    pairs = [(0, node) for node in range(1, count + 1)]
    pairs += [(node, node + 1) for node in range(1, count)]
    others = st.tuples(st.integers(1, count), st.integers(1, count))
    pairs += draw(st.lists(others.filter(lambda pair: pair[0] != pair[1]), max_size=3 * count))
    numbers = st.lists(st.integers(0, 30), min_size=len(pairs), max_size=len(pairs))
    full = [1000 if not tail else 0 for tail, _ in pairs]
    return Network(
        count + 1,
        [tail for tail, _ in pairs],
        [head for _, head in pairs],
        [cost + more for cost, more in zip(draw(numbers), full, strict=True)],
        draw(numbers),
        [False] * len(pairs),
        [False] + [True] * count,
    )


def in_order(network: Network) -> Tree:
    """Return the tree whose order is that of the nodes: each is made from the one before."""
    return Tree(network, [-1, 0, *range(network.nodes - 1, 2 * network.nodes - 3)])


def crosses(network: Network, arcs: Sequence[int]) -> bool:
    """Tell whether any two diffs cross; a full send comes straight from above."""
    spans = [sorted((network.tails[arc], network.heads[arc])) for arc in arcs]
    between = [span for span in spans if span[0]]
    entered = [span[1] for span in spans if not span[0]]
    return any(low < node < high for low, high in between for node in entered) or any(
        one[0] < other[0] < one[1] < other[1] or other[0] < one[0] < other[1] < one[1]
        for one, other in combinations(between, 2)
    )


def without_crossings(network: Network, limit: int | None) -> Iterator[Tree]:
    """Yield every tree that has none, and no chain longer than the limit."""
    into = [
        [arc for arc, head in enumerate(network.heads) if head == node]
        for node in range(1, network.nodes)
    ]
    for choice in product(*into):
        if is_tree(network, choice) and not crosses(network, choice):
            tree = Tree(network, [-1, *choice])
            if limit is None or max(tree.depth) <= limit:
                yield tree


def is_tree(network: Network, choice: Sequence[int]) -> bool:
    for node in range(1, network.nodes):
        walk = node
        for _ in choice:
            walk = network.tails[choice[walk - 1]] if walk else 0
        if walk:
            return False
    return True


@given(rows())
@settings(max_examples=200)
def test_is_the_cheapest_without_crossings(network: Network) -> None:
    best = min(tree.cost for tree in without_crossings(network, None))
    arcs = uncrossed(network, in_order(network))
    assert arcs is not None
    assert Tree(network, arcs).cost == best
    assert not crosses(network, arcs[1:])


@given(rows(), st.integers(1, FEW))
@settings(max_examples=200)
def test_within_a_limit_too(network: Network, limit: int) -> None:
    best = min(tree.cost for tree in without_crossings(network, limit))
    arcs = uncrossed(network, in_order(network), limit)
    assert arcs is not None
    assert Tree(network, arcs).cost == best
    assert max(Tree(network, arcs).depth) <= limit


@given(rows(most=40))
def test_a_limit_that_does_not_bind_changes_nothing(network: Network) -> None:
    tree = in_order(network)
    free, bound = uncrossed(network, tree), uncrossed(network, tree, network.nodes)
    assert free is not None
    assert bound is not None
    assert Tree(network, free).cost == Tree(network, bound).cost
