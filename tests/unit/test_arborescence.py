"""The cheapest arborescence against networkx, all parent maps, and shapes of known cost."""

from __future__ import annotations

import itertools
import random
import warnings

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.planner.arborescence import minimum_arborescence

Arc = tuple[int, int, int]


def solve(nodes: int, arcs: list[Arc]) -> list[int]:
    tails, heads, weights = zip(*arcs, strict=True) if arcs else ((), (), ())
    return minimum_arborescence(nodes, tails, heads, weights)


def cost_of(entering: list[int], arcs: list[Arc]) -> int:
    return sum(arcs[arc][2] for arc in entering[1:])


def assert_arborescence(entering: list[int], arcs: list[Arc]) -> None:
    assert entering[0] == -1
    above = [0] + [arcs[arc][0] for arc in entering[1:]]
    assert [arcs[arc][1] for arc in entering[1:]] == list(range(1, len(entering)))
    reached = {0}
    for start in range(len(entering)):
        walk = []
        node = start
        while node not in reached:
            assert node not in walk, "a cycle"
            walk.append(node)
            node = above[node]
        reached.update(walk)


def cheapest_of_all_maps(nodes: int, arcs: list[Arc]) -> int | None:
    """Try every choice of one incoming arc per node."""
    into: list[list[Arc]] = [[arc for arc in arcs if arc[1] == node] for node in range(1, nodes)]
    costs = []
    for choice in itertools.product(*into):
        above = {head: tail for tail, head, _ in choice}
        reached = {0}
        for _ in range(nodes):
            reached |= {head for head, tail in above.items() if tail in reached}
        if len(reached) == nodes:
            costs.append(sum(weight for _, _, weight in choice))
    return min(costs, default=None)


def random_arcs(seed: int) -> tuple[int, list[Arc]]:
    chance = random.Random(seed)
    nodes = chance.randrange(2, 60)
    most = chance.choice([2, 10, 10**6])
    arcs = [(0, node, most + chance.randrange(most)) for node in range(1, nodes)]
    arcs += [
        (chance.randrange(nodes), chance.randrange(nodes), chance.randrange(most))
        for _ in range(nodes * chance.randrange(6))
    ]
    chance.shuffle(arcs)
    return nodes, arcs


@st.composite
def small_graphs(draw: st.DrawFn) -> tuple[int, list[Arc]]:
    nodes = draw(st.integers(1, 6))
    node = st.integers(0, nodes - 1)
    arcs = draw(st.lists(st.tuples(node, node, st.integers(-3, 9)), max_size=14))
    return nodes, arcs


class TestMinimumArborescence:
    @pytest.mark.parametrize("seed", range(100))
    def test_costs_what_networkx_finds(self, seed: int) -> None:
        nodes, arcs = random_arcs(seed)
        graph = nx.DiGraph()
        for tail, head, weight in sorted(arcs, key=lambda arc: -arc[2]):
            if head not in (0, tail):
                graph.add_edge(tail, head, weight=weight)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = nx.minimum_spanning_arborescence(graph)
        entering = solve(nodes, arcs)
        assert_arborescence(entering, arcs)
        assert cost_of(entering, arcs) == oracle.size(weight="weight")

    @given(small_graphs())
    def test_is_the_cheapest_of_all_maps(self, graph: tuple[int, list[Arc]]) -> None:
        nodes, arcs = graph
        cheapest = cheapest_of_all_maps(nodes, arcs)
        if cheapest is None:
            with pytest.raises(ValueError, match="cannot be reached"):
                solve(nodes, arcs)
        else:
            entering = solve(nodes, arcs)
            assert_arborescence(entering, arcs)
            assert cost_of(entering, arcs) == cheapest

    @given(small_graphs(), st.randoms())
    def test_cost_is_independent_of_order_and_numbers(
        self, graph: tuple[int, list[Arc]], chance: random.Random
    ) -> None:
        nodes, arcs = graph
        if cheapest_of_all_maps(nodes, arcs) is None:
            return
        names = list(range(1, nodes))
        chance.shuffle(names)
        names.insert(0, 0)
        renamed = [(names[tail], names[head], weight) for tail, head, weight in arcs]
        chance.shuffle(renamed)
        assert cost_of(solve(nodes, renamed), renamed) == cost_of(solve(nodes, arcs), arcs)

    def test_of_the_root_alone_is_empty(self) -> None:
        assert solve(1, []) == [-1]
        assert solve(1, [(0, 0, 5)]) == [-1]

    def test_equal_arcs_go_to_the_first_listed(self) -> None:
        arcs = [(0, 1, 3), (0, 1, 3), (0, 2, 9), (1, 2, 4), (0, 2, 4), (1, 2, 4)]
        assert solve(3, arcs) == [-1, 0, 3]

    def test_equal_arcs_go_to_the_first_listed_when_a_cycle_is_entered(self) -> None:
        cycle = [(1, 2, 1), (2, 1, 1)]
        assert solve(3, [*cycle, (0, 1, 7), (0, 2, 7)]) == [-1, 2, 0]
        assert solve(3, [*cycle, (0, 2, 7), (0, 1, 7)]) == [-1, 1, 2]

    def test_weights_beyond_64_bits_stay_exact(self) -> None:
        huge = 10**30
        arcs = [(0, 1, huge + 1), (0, 2, huge), (1, 2, 1), (2, 1, 0)]
        assert cost_of(solve(3, arcs), arcs) == huge

    def test_chain_of_5000_that_pulls_both_ways(self) -> None:
        nodes = 5001
        arcs = [(0, node, 10**6 + node) for node in range(1, nodes)]
        for node in range(2, nodes):
            arcs += [(node - 1, node, 2), (node, node - 1, 1)]
        entering = solve(nodes, arcs)
        assert_arborescence(entering, arcs)
        assert cost_of(entering, arcs) == 10**6 + 1 + 2 * (nodes - 2)

    def test_nested_cycles_are_opened_inwards(self) -> None:
        """Each pair of doubled blocks is a cycle of cycles, twelve levels deep."""
        levels = 12
        nodes = 2**levels + 1
        arcs = [(0, node, 10**6 + node) for node in range(1, nodes)]
        for level in range(levels):
            half = 2**level
            for start in range(1, nodes, 2 * half):
                arcs += [
                    (start, start + half, level + 1),
                    (start + half, start, level + 1),
                ]
        entering = solve(nodes, arcs)
        assert_arborescence(entering, arcs)
        below = sum((level + 1) * 2 ** (levels - 1 - level) for level in range(levels))
        assert cost_of(entering, arcs) == 10**6 + 1 + below

    def test_one_big_cycle_is_opened_where_it_costs_least(self) -> None:
        nodes = 1001
        arcs = [(node, node % 1000 + 1, 1) for node in range(1, nodes)]
        arcs += [(0, node, 5000 + (node != 700)) for node in range(1, nodes)]
        entering = solve(nodes, arcs)
        assert_arborescence(entering, arcs)
        assert cost_of(entering, arcs) == 5000 + 999

    @pytest.mark.parametrize(
        ("arcs", "cut_off"),
        [([(0, 1, 1)], "2|3"), ([(0, 1, 1), (2, 3, 1), (3, 2, 1), (2, 2, 0), (2, 1, 0)], "2|3")],
    )
    def test_names_a_node_that_cannot_be_reached(self, arcs: list[Arc], cut_off: str) -> None:
        with pytest.raises(ValueError, match=f"^node ({cut_off}) cannot be reached from node 0$"):
            solve(4, arcs)

    def test_refuses_lists_of_different_length(self) -> None:
        with pytest.raises(ValueError, match="differ in length"):
            minimum_arborescence(2, [0], [1], [])
