"""What has to hold for every choice of diffs, with the scorer as the only thing to trust."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.histories import make
from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.candidates import candidates
from buttersink.planner.descent import Chains, Network, cheapest_chains

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNREACHED = -1


def score(network: Network, entering: Sequence[int]) -> int | None:
    """Return what a choice costs; None if it does not reach every wanted node without a cycle."""
    load = [0] * network.nodes
    for node in range(1, network.nodes):
        walk = node
        for _ in range(network.nodes):
            if walk == 0 or not network.wanted[node]:
                break
            load[walk] += 1
            if entering[walk] == UNREACHED or network.heads[entering[walk]] != walk:
                return None
            walk = network.tails[entering[walk]]
        else:
            return None
    return sum(
        network.costs[arc] + network.rates[arc] * load[node]
        for node, arc in enumerate(entering)
        if node and load[node]
    )


def depths(network: Network, entering: Sequence[int]) -> list[int]:
    found = []
    for start in range(network.nodes):
        node = start
        depth = 0
        while node and entering[node] != UNREACHED:
            node = network.tails[entering[node]]
            depth += 1
        found.append(depth)
    return found


def assert_valid(network: Network, chains: Chains, limit: int | None = None) -> None:
    assert score(network, chains.entering) == chains.cost
    assert chains.lower_bound <= chains.cost
    assert chains.depths == depths(network, chains.entering)
    for node, arc in enumerate(chains.entering):
        if arc != UNREACHED and limit is not None and not network.stored[arc]:
            assert chains.depths[node] <= limit


def every_choice(network: Network) -> Iterator[list[int]]:
    into: list[list[int]] = [[UNREACHED] for _ in range(network.nodes)]
    for arc, head in enumerate(network.heads):
        into[head].append(arc)
    for choice in itertools.product(*into[1:]):
        yield [UNREACHED, *choice]


def of_history(
    kind: str,
    count: int,
    seed: int,
    *,
    hop: float = 1e-5,
    chain: float = 0,
    stored: int = 0,
    unwanted: Sequence[int] = (),
    delete: bool = False,
    near: bool = False,
) -> Network:
    """
    Return the network of a history in sixteenths of a byte; the oldest `stored` are one chain.

    These have nothing but their stored diff, and those in `unwanted` are among them.
    """
    history = make(kind, count, seed)
    uuids = [None, *(snapshot.uuid for snapshot in history.snapshots)]
    node = {uuid: number for number, uuid in enumerate(uuids)}
    if near:
        found = candidates(history.snapshots, (), history.lineage, far=True)
        pairs = [(node[diff.parent], node[diff.to]) for diff in found]
    else:
        pairs = [(a, b) for b in range(1, len(uuids)) for a in range(len(uuids)) if a != b]
    new = [(a, b, False) for a, b in pairs if b > stored]
    arcs = new + [(held - 1, held, True) for held in range(1, stored + 1)]
    sizes = [history.size(uuids[a], uuids[b] or b"") for a, b, _ in arcs]  # type: ignore[arg-type]
    full = statistics.median(
        size for size, (tail, _, _) in zip(sizes, arcs, strict=True) if not tail
    )
    costs = [
        (size if delete else 0) if held else 16 * (size + 65536) + size
        for size, (_, _, held) in zip(sizes, arcs, strict=True)
    ]
    rates = [int(16 * (hop * full + chain * size)) for size in sizes]
    wanted = [False] + [number not in unwanted for number in range(1, len(uuids))]
    tails, heads, held = zip(*arcs, strict=True)
    return Network(len(uuids), tails, heads, costs, rates, held, wanted)


def optimum(network: Network) -> float:
    """Return the least cost: a flow of one from the root to every wanted node, over open arcs."""
    highspy = pytest.importorskip("highspy")
    program = highspy.Highs()
    program.silent()
    arcs = range(len(network.heads))
    nodes = range(1, network.nodes)
    opened = [program.addBinary(obj=cost) for cost in network.costs]
    for goal in nodes:
        if not network.wanted[goal]:
            continue
        flow = [program.addVariable(lb=0, ub=1, obj=rate) for rate in network.rates]
        for arc in arcs:
            program.addConstr(flow[arc] <= opened[arc])
        for node in nodes:
            into = sum(flow[arc] for arc in arcs if network.heads[arc] == node)
            out = sum(flow[arc] for arc in arcs if network.tails[arc] == node)
            program.addConstr(into - out == (node == goal))
    program.minimize()
    assert program.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return float(program.getObjectiveValue())


def joined(networks: Sequence[Network]) -> Network:
    """Return networks side by side, with one root."""
    tails: list[int] = []
    heads: list[int] = []
    offset = 0
    for network in networks:
        tails += [tail + offset if tail else 0 for tail in network.tails]
        heads += [head + offset for head in network.heads]
        offset += network.nodes - 1
    return Network(
        offset + 1,
        tails,
        heads,
        [cost for network in networks for cost in network.costs],
        [rate for network in networks for rate in network.rates],
        [stored for network in networks for stored in network.stored],
        [False] + [wanted for network in networks for wanted in network.wanted[1:]],
    )


@st.composite
def networks(draw: st.DrawFn, most: int = 5) -> Network:
    """Every wanted node has a full send, stored arcs cost little, and anything else may be."""
    nodes = draw(st.integers(2, most))
    wanted = [False, *draw(st.lists(st.booleans(), min_size=nodes - 1, max_size=nodes - 1))]
    node = st.integers(0, nodes - 1)
    arcs = [(0, head, draw(st.integers(20, 60)), False) for head in range(1, nodes)]
    arcs += draw(
        st.lists(st.tuples(node, node, st.integers(0, 30), st.booleans()), max_size=2 * nodes)
    )
    arcs = [arc for arc in arcs if arc[1]]
    rates = draw(st.lists(st.integers(0, 9), min_size=len(arcs), max_size=len(arcs)))
    tails, heads, costs, stored = zip(*arcs, strict=True)
    return Network(nodes, tails, heads, costs, rates, stored, wanted)


KINDS = ["linear", "gfs", "branchy", "mixed"]
PRICES = [(1e-5, 0.0), (1e-3, 0.01)]


class TestCheapestChains:
    @settings(max_examples=150)
    @given(networks())
    def test_is_valid_and_the_bound_holds_for_every_choice(self, network: Network) -> None:
        chains = cheapest_chains(network)
        assert_valid(network, chains)
        scores = [cost for c in every_choice(network) if (cost := score(network, c)) is not None]
        assert chains.lower_bound <= min(scores) <= chains.cost

    @settings(max_examples=100)
    @given(networks())
    def test_without_rates_and_optional_nodes_it_is_the_optimum(self, network: Network) -> None:
        network = replace(
            network,
            rates=[0] * len(network.heads),
            wanted=[False] + [True] * (network.nodes - 1),
        )
        chains = cheapest_chains(network)
        entering = minimum_arborescence(network.nodes, network.tails, network.heads, network.costs)
        assert chains.cost == chains.lower_bound == sum(network.costs[a] for a in entering[1:])

    @pytest.mark.parametrize("prices", PRICES)
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("seed", range(3))
    def test_is_the_best_of_all_choices_of_five(
        self, kind: str, seed: int, prices: tuple[float, float]
    ) -> None:
        network = of_history(kind, 5, seed, hop=prices[0], chain=prices[1])
        chains = cheapest_chains(network)
        assert_valid(network, chains)
        scores = [cost for c in every_choice(network) if (cost := score(network, c)) is not None]
        assert chains.cost <= 1.0001 * min(scores)

    @pytest.mark.parametrize("prices", PRICES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_near_the_optimum_of_an_integer_program(
        self, kind: str, prices: tuple[float, float]
    ) -> None:
        network = of_history(kind, 24, 1, hop=prices[0], chain=prices[1])
        assert cheapest_chains(network).cost <= 1.005 * optimum(network)

    @settings(max_examples=100)
    @given(networks(), st.integers(0, 40))
    def test_scales_with_powers_of_two(self, network: Network, power: int) -> None:
        scaled = replace(
            network,
            costs=[cost << power for cost in network.costs],
            rates=[rate << power for rate in network.rates],
        )
        chains = cheapest_chains(network)
        assert cheapest_chains(scaled).entering == chains.entering
        assert cheapest_chains(scaled).cost == chains.cost << power

    @settings(max_examples=100)
    @given(st.lists(networks(), min_size=1, max_size=3))
    def test_lineages_cost_together_what_they_cost_alone(self, parts: list[Network]) -> None:
        assert cheapest_chains(joined(parts)).cost == sum(cheapest_chains(p).cost for p in parts)

    @settings(max_examples=100)
    @given(networks(), st.data())
    def test_without_rates_more_or_cheaper_arcs_never_cost_more(
        self, network: Network, data: st.DataObject
    ) -> None:
        network = replace(
            network,
            rates=[0] * len(network.heads),
            wanted=[False] + [True] * (network.nodes - 1),
        )
        before = cheapest_chains(network).cost
        arc = data.draw(st.integers(0, len(network.heads) - 1))
        costs = list(network.costs)
        costs[arc] //= 2
        assert cheapest_chains(replace(network, costs=costs)).cost <= before
        more = Network(
            network.nodes,
            [*network.tails, data.draw(st.integers(0, network.nodes - 1))],
            [*network.heads, data.draw(st.integers(1, network.nodes - 1))],
            [*network.costs, data.draw(st.integers(0, 60))],
            [*network.rates, 0],
            [*network.stored, False],
            network.wanted,
        )
        assert cheapest_chains(more).cost <= before

    @pytest.mark.parametrize("prices", PRICES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_never_dearer_than_all_full_or_the_plain_chain(
        self, kind: str, prices: tuple[float, float]
    ) -> None:
        network = of_history(kind, 60, 1, hop=prices[0], chain=prices[1])
        arc = {ends: i for i, ends in enumerate(zip(network.tails, network.heads, strict=True))}
        full = [UNREACHED] + [arc[0, node] for node in range(1, network.nodes)]
        chain = [UNREACHED] + [arc[node - 1, node] for node in range(1, network.nodes)]
        chains = cheapest_chains(network)
        assert_valid(network, chains)
        for choice in (full, chain):
            cost = score(network, choice)
            assert cost is not None
            assert chains.cost <= cost

    @pytest.mark.parametrize("prices", PRICES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_no_single_move_makes_it_cheaper(self, kind: str, prices: tuple[float, float]) -> None:
        network = of_history(kind, 300, 1, hop=prices[0], chain=prices[1], near=True)
        chains = cheapest_chains(network)
        step = max(1, len(network.heads) // 400)
        for arc in range(0, len(network.heads), step):
            moved = list(chains.entering)
            moved[network.heads[arc]] = arc
            cost = score(network, moved)
            assert cost is None or cost >= chains.cost

    def test_a_chain_of_5000_needs_no_recursion(self) -> None:
        nodes = 5001
        network = Network(
            nodes,
            [0] * (nodes - 1) + list(range(1, nodes - 1)),
            [*range(1, nodes), *range(2, nodes)],
            [10**9] * (nodes - 1) + [1] * (nodes - 2),
            [0] * (2 * nodes - 3),
            [False] * (2 * nodes - 3),
            [False] + [True] * (nodes - 1),
        )
        chains = cheapest_chains(network)
        assert max(chains.depths) == 5000
        assert chains.cost == 10**9 + nodes - 2

    def test_names_a_wanted_node_that_cannot_be_reached(self) -> None:
        network = Network(3, [0, 2], [1, 2], [5, 5], [0, 0], [False] * 2, [False, True, True])
        with pytest.raises(ValueError, match="node 2 cannot be reached"):
            cheapest_chains(network)


class TestOptionalNodes:
    def test_what_nobody_wants_is_left_out(self) -> None:
        network = of_history("gfs", 20, 1, stored=20, unwanted=range(11, 21), delete=True)
        chains = cheapest_chains(network)
        assert_valid(network, chains)
        assert chains.entering[11:] == [UNREACHED] * 10

    def test_what_nobody_wants_stays_where_a_chain_needs_it(self) -> None:
        network = of_history("gfs", 20, 1, stored=20, unwanted=[5, 9, 13], delete=True)
        chains = cheapest_chains(network)
        assert_valid(network, chains)
        assert all(network.stored[arc] for arc in chains.entering[1:])

    def test_an_orphan_that_nobody_wants_is_no_trouble(self) -> None:
        network = Network(3, [0, 2], [1, 2], [5, 5], [0, 0], [False, True], [False, True, False])
        assert cheapest_chains(network).entering == [UNREACHED, 0, UNREACHED]


class TestLimit:
    @settings(max_examples=100)
    @given(networks(), st.integers(1, 4))
    def test_binds_every_new_diff(self, network: Network, limit: int) -> None:
        chains = cheapest_chains(network, limit)
        assert_valid(network, chains, limit)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("limit", [1, 2, 5, 20])
    def test_holds_on_histories(self, kind: str, limit: int) -> None:
        network = of_history(kind, 100, 1, near=True)
        assert_valid(network, cheapest_chains(network, limit), limit)

    def test_that_does_not_bind_changes_nothing(self) -> None:
        network = of_history("gfs", 60, 1, near=True)
        assert cheapest_chains(network, 60) == cheapest_chains(network)

    @pytest.mark.parametrize("kind", KINDS)
    def test_does_not_send_again_what_is_stored(self, kind: str) -> None:
        network = of_history(kind, 60, 1, stored=40, near=True)
        chains = cheapest_chains(network, 8)
        assert_valid(network, chains, 8)
        assert all(network.stored[arc] for arc in chains.entering[1:41])

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_of_32_costs_a_linear_history_little(self, seed: int) -> None:
        network = of_history("linear", 200, seed, hop=0, near=True)
        capped = cheapest_chains(network, 32)
        assert_valid(network, capped, 32)
        assert capped.cost <= 1.03 * cheapest_chains(network).cost

    def test_names_a_node_that_no_short_chain_reaches(self) -> None:
        network = Network(
            4, [0, 1, 2], [1, 2, 3], [1] * 3, [0] * 3, [False] * 3, [False] + [True] * 3
        )
        with pytest.raises(ValueError, match="node 3 cannot be reached by 2 diffs"):
            cheapest_chains(network, 2)
