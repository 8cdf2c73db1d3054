"""What has to hold for every choice, with the scorer here as the only thing to trust."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from buttersink.catalogue import Catalogue, Diff, Exactness, Size, Snapshot, Uuid
from buttersink.planner import Action, Plan, PlanOptions, Weights, make_plan, survey
from buttersink.planner.choosing import Choice, Problem, choose
from buttersink.planner.costs import UNIT, in_bytes
from buttersink.planner.reaching import reachable

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

FULL = 200  # bytes of a full send, about
CHAINED = Weights(keeps_diffs=True, per_diff=3, hop=0.02)
WEIGHTS = st.builds(
    Weights,
    keeps_diffs=st.sampled_from([True]),
    per_diff=st.sampled_from([0, 3, 40]),
    part_bytes=st.sampled_from([0, 16]),
    per_part=st.just(2),
    storage=st.sampled_from([0, 1, 16]),
    least_stored=st.sampled_from([0, 50]),
    hop=st.sampled_from([0.0, 0.005, 0.05]),
)
Sizes = dict[Diff, Size]


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def measured(size: int) -> Size:
    return Size(size, Exactness.MEASURED)


# --- the scorer ----------------------------------------------------------------------------------


def price_of(problem: Problem, diffs: Mapping[Uuid, Diff]) -> int | None:
    """Return what a choice costs in sixteenths of a byte; None if it reaches not all."""
    used: dict[Diff, int] = {}
    for goal in problem.wanted:
        node, seen = goal, set[Uuid]()
        while node not in problem.held:
            if node in seen or node not in diffs:
                return None
            seen.add(node)
            used[diffs[node]] = used.get(diffs[node], 0) + 1
            above = diffs[node].parent
            if above is None:
                break
            node = above
    weights, total = problem.weights, 0
    sizes = {**problem.offers, **problem.stored}
    fulls = sorted(size.bytes for diff, size in sizes.items() if diff.parent is None)
    middle = (fulls[(len(fulls) - 1) // 2] + fulls[len(fulls) // 2]) / 2 if fulls else 0
    hop = int(UNIT * weights.hop * middle) if weights.keeps_diffs else 0
    for diff, load in used.items():
        size = sizes[diff].bytes
        kept = weights.storage * max(size, weights.least_stored) if weights.keeps_diffs else 0
        parts = max(1, -(-size // weights.part_bytes)) if weights.part_bytes else 1
        sent = UNIT * (size + weights.per_diff + (parts - 1) * weights.per_part) + kept
        stored = kept if problem.prunes else 0
        total += (stored if diff in problem.stored else sent) + hop * load
    return total


def every_choice(problem: Problem) -> Iterator[dict[Uuid, Diff]]:
    there = reachable(problem.stored)
    nodes = dict.fromkeys((*problem.wanted, *problem.optional))
    ways: list[list[Diff | None]] = [
        [
            *(diff for diff in problem.stored if diff.to == node),
            *(d for d in problem.offers if d.to == node and (problem.prunes or node not in there)),
            *([None] if node not in problem.wanted else []),
        ]
        for node in nodes
    ]
    for chosen in itertools.product(*ways):
        yield {diff.to: diff for diff in chosen if diff}


def least(problem: Problem) -> int:
    prices = (price_of(problem, choice) for choice in every_choice(problem))
    return min(price for price in prices if price is not None)


def priced(problem: Problem, choice: Choice) -> int:
    price = price_of(problem, choice.diffs)
    assert price is not None
    return price


# --- problems ------------------------------------------------------------------------------------


@st.composite
def problems(
    draw: st.DrawFn, most: int = 4, weights: st.SearchStrategy[Weights] = WEIGHTS
) -> Problem:
    """Draw snapshots with all diffs between them, and chains that are stored, some broken."""
    wanted = [uuid(number) for number in range(1, draw(st.integers(1, most)) + 1)]
    optional = [uuid(50)] if draw(st.booleans()) else []
    nodes = [*wanted, *optional]
    offers = {
        Diff(to, parent): measured(draw(st.integers(1, 60)) + (FULL if parent is None else 0))
        for to in wanted
        for parent in (None, *(each for each in wanted if each != to))
    }
    pairs = [Diff(to, parent) for to in nodes for parent in (None, *nodes) if parent != to]
    stored = {
        diff: Size(draw(st.integers(1, FULL)), Exactness.STORED)
        for diff in draw(st.lists(st.sampled_from(pairs), max_size=4, unique=True))
    }
    return Problem(
        tuple(wanted),
        offers,
        optional=tuple(optional),
        stored=stored,
        weights=draw(weights),
        prunes=draw(st.booleans()),
    )


def nearly(cost: int) -> int:
    """Return how much a choice may cost of which the least is `cost`."""
    return cost + -(-cost // 200)


class TestChoice:
    @settings(max_examples=300)
    @given(problems())
    def test_is_valid_and_costs_what_it_says(self, problem: Problem) -> None:
        choice = choose(problem)
        assert not choice.missing
        price = priced(problem, choice)
        assert choice.cost == in_bytes(price)
        for node, diff in choice.diffs.items():
            assert diff.to == node
            assert diff in problem.offers or diff in problem.stored
            above = 0 if diff.parent is None else choice.chains[diff.parent]
            assert choice.chains[node] == above + 1

    @settings(max_examples=200)
    @given(problems())
    def test_is_the_cheapest_of_all_and_never_below_its_bound(self, problem: Problem) -> None:
        choice, best = choose(problem), least(problem)
        assert choice.cost_bound <= in_bytes(best)
        assert in_bytes(best) <= choice.cost <= nearly(in_bytes(best))

    @settings(max_examples=200)
    @given(problems())
    def test_sends_no_less_than_the_fewest_bytes(self, problem: Problem) -> None:
        choice = choose(problem)
        sent = (problem.offers[d].bytes for d in choice.diffs.values() if d not in problem.stored)
        assert choice.fewest_bytes <= sum(sent)

    @settings(max_examples=150)
    @given(problems(), st.data())
    def test_gets_no_dearer_by_more_or_smaller_diffs(
        self, problem: Problem, data: st.DataObject
    ) -> None:
        """
        But by what the search for short chains may miss of the least, which is 1 in 200.

        Full sends stay as they are: their median is the price of a chain.
        """
        before = choose(problem).cost
        diffs = [diff for diff in problem.offers if diff.parent]
        if not diffs:
            return
        diff = data.draw(st.sampled_from(diffs))
        smaller = dict(problem.offers) | {diff: measured(problem.offers[diff].bytes // 2)}
        assert choose(replace(problem, offers=smaller)).cost <= nearly(before)
        fewer = {each: size for each, size in problem.offers.items() if each != diff}
        assert before <= nearly(choose(replace(problem, offers=fewer)).cost)
        more = {**problem.stored, diff: problem.offers[diff]}
        if not problem.prunes:
            assert choose(replace(problem, stored=more)).cost <= nearly(before)

    @settings(max_examples=150)
    @given(problems(), st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order_of_the_input(
        self, problem: Problem, chance: random.Random
    ) -> None:
        def shuffled(sizes: Mapping[Diff, Size]) -> Sizes:
            items = list(sizes.items())
            chance.shuffle(items)
            return dict(items)

        other = replace(problem, offers=shuffled(problem.offers), stored=shuffled(problem.stored))
        assert choose(other).cost == choose(problem).cost

    @settings(max_examples=100)
    @given(problems(), st.integers(1, 30))
    def test_scales(self, problem: Problem, power: int) -> None:
        def scaled(sizes: Mapping[Diff, Size]) -> Sizes:
            return {diff: measured(size.bytes << power) for diff, size in sizes.items()}

        weights = replace(problem.weights, per_diff=0, part_bytes=0, least_stored=0, hop=0.5)
        one = replace(problem, weights=weights)
        other = replace(one, offers=scaled(one.offers), stored=scaled(one.stored))
        assert priced(other, choose(other)) == priced(one, choose(one)) << power

    @settings(max_examples=100)
    @given(problems(most=3), problems(most=3))
    def test_of_unrelated_snapshots_is_that_of_each(self, one: Problem, other: Problem) -> None:
        """Without a price on chains, which is one for all."""
        weights = replace(CHAINED, hop=0.0)
        one = replace(one, weights=weights, prunes=True)
        other = replace(other, weights=weights, prunes=True)
        both = joined(one, other)
        together = priced(both, choose(both))
        assert together == priced(one, choose(one)) + priced(other, choose(other))

    @settings(max_examples=150)
    @given(problems())
    def test_is_no_dearer_than_all_full_or_the_plain_chain(self, problem: Problem) -> None:
        problem = replace(problem, stored={}, optional=())
        cost = choose(problem).cost
        full = {node: Diff(node, None) for node in problem.wanted}
        first, *others = problem.wanted
        before = dict(zip(others, problem.wanted, strict=False))
        chain = {first: Diff(first, None)} | {n: Diff(n, p) for n, p in before.items()}
        for plain in (full, chain):
            price = price_of(problem, plain)
            assert price is not None
            assert cost <= in_bytes(price)

    @settings(max_examples=150)
    @given(problems(), st.integers(1, 3))
    def test_limits_new_chains_and_leaves_stored_ones(self, problem: Problem, limit: int) -> None:
        """The full sends are all there, so every snapshot can be reached within any limit."""
        problem = replace(problem, max_chain=limit, prunes=False)
        choice = choose(problem)
        assert not choice.missing
        there = reachable(problem.stored)
        for node, diff in choice.diffs.items():
            if diff in problem.offers and diff not in problem.stored:
                assert choice.chains[node] <= limit
            if node in there:
                assert diff in problem.stored


class TestWhole:
    @settings(max_examples=100)
    @given(problems(), WEIGHTS, st.integers(1, 3))
    def test_does_not_depend_on_prices_of_chains_or_their_limit(
        self, problem: Problem, weights: Weights, limit: int
    ) -> None:
        plain = replace(problem, stored={}, optional=(), weights=Weights(part_bytes=0))
        other = replace(weights, keeps_diffs=False, part_bytes=0)
        assert choose(plain).diffs == choose(replace(plain, weights=other, max_chain=limit)).diffs


@st.composite
def detours(draw: st.DrawFn, most: int = 3) -> Problem:
    """Draw some of the diffs between what is wanted and what may be on the way, few full ones."""
    wanted = [uuid(number) for number in range(1, draw(st.integers(1, most)) + 1)]
    optional = [uuid(number) for number in range(50, 50 + draw(st.integers(1, 4)))]
    nodes = [*wanted, *optional]
    pairs = [Diff(to, parent) for to in nodes for parent in nodes if parent != to]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=8, unique=True))
    full = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=2, unique=True))
    offers = {diff: measured(draw(st.integers(1, 60))) for diff in chosen}
    offers |= {Diff(to, None): measured(draw(st.integers(1, FULL))) for to in full}
    per_diff = draw(st.sampled_from([0, 3, 40]))
    return Problem(
        tuple(wanted), offers, optional=tuple(optional), weights=Weights(per_diff=per_diff)
    )


def needed(problem: Problem, choice: Choice) -> set[Uuid]:
    """Return the snapshots that the wanted ones are made by way of, themselves included."""
    found: set[Uuid] = set()
    for goal in problem.wanted:
        node: Uuid | None = goal
        while node and node in choice.diffs and node not in found:
            found.add(node)
            node = choice.diffs[node].parent
    return found


class TestOnTheWay:
    """Where snapshots arrive whole and others than the wanted ones may be sent for them."""

    @given(detours())
    def test_is_within_its_bounds(self, problem: Problem) -> None:
        choice = choose(problem)
        problem = replace(
            problem, wanted=tuple(goal for goal in problem.wanted if goal not in choice.missing)
        )
        best = least(problem)
        assert choice.cost_bound <= in_bytes(best) <= choice.cost
        assert choice.cost == in_bytes(priced(problem, choice))
        sent = sum(problem.offers[diff].bytes for diff in choice.diffs.values())
        unweighted = replace(problem, weights=Weights(per_diff=0))
        assert choice.fewest_bytes <= in_bytes(least(unweighted)) <= sent

    @given(detours())
    def test_sends_nothing_in_vain(self, problem: Problem) -> None:
        choice = choose(problem)
        assert choice.diffs.keys() == needed(problem, choice)

    @given(detours())
    def test_misses_only_what_no_diffs_lead_to(self, problem: Problem) -> None:
        choice = choose(problem)
        assert set(problem.wanted) - choice.missing.keys() == set(problem.wanted) & reachable(
            problem.offers
        )

    @given(detours(most=1))
    def test_is_the_least_for_a_single_snapshot(self, problem: Problem) -> None:
        choice = choose(problem)
        if not choice.missing:
            assert choice.cost == choice.cost_bound == in_bytes(least(problem))

    @given(detours(), st.randoms(use_true_random=False))
    def test_is_the_least_where_each_has_one_diff(
        self, problem: Problem, rng: random.Random
    ) -> None:
        """As in a store where every snapshot was sent once."""
        diffs = list(problem.offers)
        rng.shuffle(diffs)
        one_each = {diff.to: diff for diff in diffs}
        problem = replace(
            problem, offers={diff: problem.offers[diff] for diff in one_each.values()}
        )
        choice = choose(problem)
        assert choice.cost == choice.cost_bound
        sent = sum(problem.offers[diff].bytes for diff in choice.diffs.values())
        assert sent == choice.fewest_bytes


def joined(one: Problem, other: Problem) -> Problem:
    def moved(node: Uuid) -> Uuid:
        return Uuid(b"other" + node[5:])

    def renamed(sizes: Mapping[Diff, Size]) -> Sizes:
        return {Diff(moved(d.to), d.parent and moved(d.parent)): s for d, s in sizes.items()}

    return replace(
        one,
        wanted=(*one.wanted, *map(moved, other.wanted)),
        optional=(*one.optional, *map(moved, other.optional)),
        offers={**one.offers, **renamed(other.offers)},
        stored={**one.stored, **renamed(other.stored)},
    )


# --- plans carried out ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """Snapshots at a source, by number, and diffs at a destination that keeps diffs."""

    here: frozenset[int]
    stored: frozenset[Diff]
    delete: bool
    weights: Weights = CHAINED

    def plan(self, max_chain: int | None = None) -> Plan:
        source = Catalogue(tuple(made(number) for number in sorted(self.here)))
        numbers = {int.from_bytes(diff.to, "big") for diff in self.stored}
        there = Catalogue(
            tuple(made(number) for number in sorted(numbers)),
            diffs={diff: size_of(diff) for diff in sorted(self.stored, key=str)},
        )
        found = survey(source, there, PlanOptions(delete=self.delete), keeps_diffs=True)
        nodes = [uuid(number) for number in sorted(self.here)]
        new = [s.uuid for s in (*(arrival.snapshot for arrival in found.send), *found.rehang)]
        pairs = [Diff(to, parent) for to in new for parent in (None, *nodes) if parent != to]
        return make_plan(found, {pair: size_of(pair) for pair in pairs}, self.weights, max_chain)

    def after(self, plan: Plan, steps: int | None = None) -> Situation:
        stored = set(self.stored)
        for step in plan.steps[:steps]:
            if step.action is Action.SEND and step.snapshot:
                stored.add(Diff(step.snapshot.uuid, step.parent.uuid if step.parent else None))
            elif step.action is Action.DELETE and step.diff:
                stored.remove(step.diff)
        return replace(self, stored=frozenset(stored))

    @property
    def whole(self) -> frozenset[Uuid | None]:
        return frozenset(reachable(self.stored))


def made(number: int) -> Snapshot:
    return Snapshot(uuid(number), uuid(number), None, None, number, 0, b"%d" % number)


def size_of(diff: Diff) -> Size:
    spread = 1 + sum((diff.to + (diff.parent or b"\xff" * 3))[::3]) * 37 % 61
    return measured(spread + (FULL if diff.parent is None else 0))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    numbers = st.integers(1, 5)
    pairs = st.tuples(numbers, st.one_of(st.none(), numbers)).filter(lambda p: p[0] != p[1])
    stored = draw(st.frozensets(pairs, max_size=6))
    return Situation(
        draw(st.frozensets(numbers, min_size=1)),
        frozenset(
            Diff(uuid(to), None if parent is None else uuid(parent)) for to, parent in stored
        ),
        draw(st.booleans()),
    )


def sent(plan: Plan) -> set[Uuid]:
    return {step.snapshot.uuid for step in plan.of(Action.SEND) if step.snapshot}


class TestCarriedOut:
    @settings(max_examples=300)
    @given(situations())
    def test_everything_wanted_can_be_restored_and_nothing_is_left_to_do(
        self, before: Situation
    ) -> None:
        """With --delete without a price on chains, which changes with the full sends known."""
        if before.delete:
            before = replace(before, weights=replace(CHAINED, hop=0.0))
        plan = before.plan()
        after = before.after(plan)
        assert after.whole >= {uuid(number) for number in before.here}
        again = after.plan()
        assert {step.action for step in again.steps} <= {Action.KEEP}
        if before.delete:
            assert all(diff.parent in after.whole for diff in after.stored)

    @settings(max_examples=300)
    @given(situations())
    def test_whenever_it_is_cut_no_chain_is_broken_and_the_rest_is_all_that_is_left(
        self, before: Situation
    ) -> None:
        """With no price on chains: that comes from the full sends that are known at the time."""
        before = replace(before, weights=replace(CHAINED, hop=0.0))
        plan = before.plan()
        wanted = {uuid(number) for number in before.here}
        for steps in range(len(plan.steps) + 1):
            cut = before.after(plan, steps)
            assert cut.whole >= before.whole & wanted
            sound = {diff for diff in before.stored if diff.parent in before.whole}
            assert all(diff.parent in cut.whole for diff in cut.stored & sound)
            left = Plan(plan.steps[steps:])
            again = cut.plan()
            assert again.send_bytes <= left.send_bytes
            assert sent(again) <= sent(left)

    @settings(max_examples=200)
    @given(situations(), st.integers(1, 3))
    def test_without_delete_nothing_stored_is_sent_again_whatever_the_limit(
        self, before: Situation, limit: int
    ) -> None:
        plan = replace(before, delete=False).plan(limit)
        assert not sent(plan) & before.whole
        assert not plan.of(Action.DELETE)
