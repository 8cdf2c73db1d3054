"""Plans over sizes that are made up: order, depth, reasons, parents; and what is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from buttersink.catalogue import (
    Diff,
    Exactness,
    Measurement,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_text,
)
from buttersink.planner import Action, Arrival, Plan, Reason, Step, Survey, Weights, make_plan
from buttersink.planner.candidates import candidates
from buttersink.planner.measuring import Measuring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FULL = 1000


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


LIVE = uuid(10**6)


def made(number: int, path: bytes = b"", generation: int | None = None) -> Snapshot:
    """Return one of the snapshots of a writable subvolume."""
    when = number if generation is None else generation
    return Snapshot(uuid(number), uuid(number), LIVE, None, when, 0, path or b"%d" % number)


def sending(*snapshots: Snapshot, held: Iterable[Snapshot] = ()) -> Survey:
    arrivals = (Arrival(snapshot, snapshot.path) for snapshot in snapshots)
    return Survey(send=tuple(arrivals), held=tuple(held))


def sizes(table: Mapping[tuple[int, int | None], int]) -> dict[Diff, Size]:
    """Return the sizes of diffs, given as (to, parent): bytes."""
    return {
        Diff(uuid(to), None if parent is None else uuid(parent)): Size(size, Exactness.MEASURED)
        for (to, parent), size in table.items()
    }


def measured(size: int) -> Size:
    return Size(size, Exactness.MEASURED)


def parents(plan: Plan) -> dict[bytes, bytes | None]:
    """Return what each snapshot is sent from, by path, in the plan's order."""
    return {step.path: step.parent.path if step.parent else None for step in plan.of(Action.SEND)}


def chain(count: int) -> dict[tuple[int, int | None], int]:
    """Return the sizes of a history in which each differs little from the one before."""
    table: dict[tuple[int, int | None], int] = {}
    for number in range(1, count + 1):
        table[number, None] = FULL + number
        if number > 1:
            table[number, number - 1] = 2
            table[number - 1, number] = 1
    return table


def everything_asked(survey: Survey, commands: int = 1, length: int = 1) -> list[Diff]:
    """Return all that is asked for where each measurement has so many commands, all for data."""
    measuring, asked = Measuring(survey), list[Diff]()
    while batch := measuring.next():
        asked += batch
        for diff in batch:
            size = length if diff.parent else FULL
            measuring.learn(Measurement(diff, size, commands, extents=commands))
    return asked


A, B, C, D = made(1), made(2), made(3), made(4)


class TestChoice:
    def test_of_nothing_is_an_empty_plan(self) -> None:
        assert make_plan(Survey(), {}) == Plan(())

    def test_sends_one_in_full_and_the_rest_from_each_other(self) -> None:
        plan = make_plan(sending(A, B, C), sizes(chain(3)))
        assert parents(plan) == {b"1": None, b"2": b"1", b"3": b"2"}

    def test_begins_with_a_later_one_where_that_is_less(self) -> None:
        table = chain(3) | {(1, None): 5000}
        plan = make_plan(sending(A, B, C), sizes(table))
        assert parents(plan) == {b"2": None, b"1": b"2", b"3": b"2"}

    def test_starts_from_what_the_destination_has(self) -> None:
        plan = make_plan(sending(B, C, held=[A]), sizes(chain(3)))
        assert parents(plan) == {b"2": b"1", b"3": b"2"}

    def test_sends_in_full_what_is_smaller_than_any_difference(self) -> None:
        plan = make_plan(sending(B, held=[A]), sizes({(2, None): 10, (2, 1): 11}))
        assert parents(plan) == {b"2": None}

    def test_is_not_greedy(self) -> None:
        """The smallest diffs into 1 and 2 make a circle; what enters it counts as a whole."""
        table = {(1, None): 100, (2, None): 90, (1, 2): 1, (2, 1): 20}
        assert parents(make_plan(sending(A, B), sizes(table))) == {b"2": None, b"1": b"2"}

    def test_of_equal_ones_takes_the_first_listed(self) -> None:
        table = {(2, 1): 7, (2, None): 7, (2, 3): 7}
        plan = make_plan(sending(B, held=[A, C]), sizes(table))
        assert parents(plan) == {b"2": b"1"}

    def test_has_the_sizes_it_was_given(self) -> None:
        guess = Size(7, Exactness.ESTIMATED)
        (step,) = make_plan(sending(A), {Diff(A.uuid, None): guess}).steps
        assert step.size is guess

    def test_ignores_sizes_of_what_is_not_sent(self) -> None:
        plan = make_plan(sending(B), sizes(chain(9)))
        assert parents(plan) == {b"2": None}

    def test_without_a_way_to_a_snapshot_says_so_and_plans_the_rest(self) -> None:
        plan = make_plan(sending(A, B, C), sizes({(1, None): 5, (3, 2): 1}))
        assert [(step.path, step.problem) for step in plan.steps] == [
            (b"1", ""),
            (b"2", "no diff that makes it is known"),
            (
                b"3",
                (
                    "what makes it starts from a snapshot that nothing leads to "
                    "(00000000-0000-0000-0000-000000000002)"
                ),
            ),
        ]

    @pytest.mark.parametrize(
        ("to", "parent", "size", "why"),
        [
            (2, 9, 5, "it starts from 00000000-0000-0000-0000-000000000009, a snapshot that is"),
            (9, 2, 5, "nobody knows that snapshot"),
            (2, 1, -1, "its length is -1 bytes"),
        ],
    )
    def test_leaves_out_a_diff_that_makes_no_sense_and_tells(
        self, to: int, parent: int, size: int, why: str
    ) -> None:
        table = {(1, None): 9, (2, None): 8, (to, parent): size}
        plan = make_plan(sending(A, B), sizes(table))
        assert parents(plan) == {b"1": None, b"2": None}
        (fault,) = plan.faults
        assert str(uuid_text(uuid(to))) in str(fault)
        assert why in str(fault)


class TestOrder:
    def test_has_parents_first_whatever_their_age(self) -> None:
        table = {(1, None): FULL, (1, 9): 1, (9, None): FULL, (9, 5): 1, (5, None): FULL}
        plan = make_plan(sending(A, made(9), made(5)), sizes(table))
        assert list(parents(plan)) == [b"5", b"9", b"1"]

    def test_among_the_possible_has_the_oldest_first(self) -> None:
        table = {(1, None): 5, (2, None): 5, (3, None): 5, (4, None): 5, (2, 4): 1, (1, 3): 1}
        plan = make_plan(sending(A, B, C, D), sizes(table))
        assert list(parents(plan)) == [b"3", b"1", b"4", b"2"]

    def test_of_one_generation_goes_by_path(self) -> None:
        same = [made(1, b"z", 7), made(2, b"a", 7), made(3, b"m", 7)]
        plan = make_plan(sending(*same), sizes({(n, None): 5 for n in (1, 2, 3)}))
        assert list(parents(plan)) == [b"a", b"m", b"z"]

    def test_has_deletions_last_and_what_is_there_first(self) -> None:
        there, gone, old = made(5), made(6), made(7)
        partial = Partial(b"p", uuid(8), 0)
        survey = Survey(
            keep=(there,),
            copy=(Arrival(old, b"copied"),),
            send=(Arrival(A, b"1"), Arrival(B, b"2", problem="taken")),
            delete=(gone,),
            discard=(partial,),
        )
        plan = make_plan(survey, sizes({(1, None): 5}))
        assert [(str(step.action), step.path) for step in plan.steps] == [
            ("keep", b"5"),
            ("copy", b"copied"),
            ("send", b"1"),
            ("send", b"2"),
            ("delete", b"6"),
            ("discard", b"p"),
        ]


class TestDepth:
    def test_counts_the_diffs_that_have_to_arrive(self) -> None:
        plan = make_plan(sending(A, B, C), sizes(chain(3)))
        assert [step.depth for step in plan.steps] == [1, 2, 3]

    def test_begins_anew_at_what_the_destination_has(self) -> None:
        plan = make_plan(sending(B, C, held=[A]), sizes(chain(3)))
        assert [step.depth for step in plan.steps] == [1, 2]

    def test_is_that_of_the_longest_way_in_a_tree(self) -> None:
        table = {(1, None): 9, (2, 1): 1, (3, 1): 1, (4, 3): 1}
        plan = make_plan(sending(A, B, C, D), sizes(table))
        assert {step.path: step.depth for step in plan.steps} == {
            b"1": 1,
            b"2": 2,
            b"3": 2,
            b"4": 3,
        }

    def test_of_3000(self) -> None:
        count = 3000
        plan = make_plan(sending(*map(made, range(count, 0, -1))), sizes(chain(count)))
        assert [step.depth for step in plan.steps] == list(range(1, count + 1))
        assert plan.send_bytes == FULL + 1 + 2 * (count - 1)


class TestProblem:
    """A snapshot that cannot appear is in the plan, and nothing is made from it."""

    TAKEN = Survey(send=(Arrival(A, b"1", problem="taken"), Arrival(B, b"2")))

    def test_is_no_parent(self) -> None:
        plan = make_plan(self.TAKEN, sizes({(1, None): 9, (2, None): 9, (2, 1): 1}))
        assert parents(plan) == {b"2": None, b"1": None}

    def test_is_not_measured(self) -> None:
        assert everything_asked(self.TAKEN) == [Diff(B.uuid, None)]

    def test_is_told_with_its_step(self) -> None:
        old = made(9)
        survey = Survey(send=(Arrival(A, b"1", replaces=old, problem="taken"),))
        assert make_plan(survey, {}).steps == (
            Step(Action.SEND, b"1", A, replaces=old, problem="taken"),
        )

    def test_of_a_copy_is_told_with_its_step(self) -> None:
        survey = Survey(copy=(Arrival(A, b"1", problem="taken"),))
        assert make_plan(survey, {}).steps == (Step(Action.COPY, b"1", A, problem="taken"),)


class TestPassing:
    """What nobody wants is sent where others start from it, and goes again."""

    CHAIN: ClassVar = {(1, None): 9, (2, 1): 3, (3, 2): 2, (4, 3): 1}

    def test_is_every_snapshot_on_the_way_of_a_chain(self) -> None:
        survey = Survey(send=(Arrival(C, b"there/3"),), passing=(A, B, D))
        plan = make_plan(survey, sizes(self.CHAIN))
        assert [(step.path, step.passing) for step in plan.steps] == [
            (b"1", True),
            (b"2", True),
            (b"there/3", False),
        ]
        assert [step.parent for step in plan.steps] == [None, A, B]
        assert plan.send_bytes == plan.lower_bound == 14
        assert plan.cost == plan.cost_bound
        assert not plan.faults

    def test_begins_at_what_the_destination_has(self) -> None:
        survey = Survey(send=(Arrival(D, b"4"),), passing=(A, C), held=(B,))
        plan = make_plan(survey, sizes(self.CHAIN))
        assert [(step.path, step.passing) for step in plan.steps] == [(b"3", True), (b"4", False)]

    def test_is_not_there_where_it_costs_more(self) -> None:
        survey = Survey(send=(Arrival(C, b"3"),), passing=(A, B, D))
        plan = make_plan(survey, sizes(self.CHAIN | {(3, None): 13}))
        assert parents(plan) == {b"3": None}

    def test_is_cheapest_by_the_bytes_of_all(self) -> None:
        survey = Survey(send=(Arrival(C, b"3"),), passing=(A, B, D))
        table = {(1, None): 90, (3, 1): 1, (2, None): 50, (3, 2): 40, (4, None): 5, (2, 4): 44}
        assert parents(make_plan(survey, sizes(table))) == {b"2": None, b"3": b"2"}

    def test_with_a_broken_chain_names_what_is_missing(self) -> None:
        survey = Survey(send=(Arrival(D, b"4"), Arrival(A, b"1")), passing=(C,))
        plan = make_plan(survey, sizes({(1, None): 9, (3, 2): 2, (4, 3): 1}))
        assert [(step.path, step.problem) for step in plan.steps] == [
            (b"1", ""),
            (
                b"4",
                (
                    "its chain starts from a snapshot that nothing leads to "
                    "(00000000-0000-0000-0000-000000000002)"
                ),
            ),
        ]
        assert not plan.faults

    def test_that_cannot_be_read_says_why_for_all_that_need_it(self) -> None:
        table = sizes({(1, None): 9, (2, 1): 2, (3, 2): 1, (4, None): 5})
        archived = {Diff(uuid(2), uuid(1)): "it is archived"}
        arrivals = tuple(Arrival(each, b"%d" % each.generation) for each in (A, B, C, D))
        plan = make_plan(Survey(send=arrivals, unreadable=archived), table)
        assert [(step.path, step.problem) for step in plan.steps] == [
            (b"1", ""),
            (b"4", ""),
            (b"2", "it is archived"),
            (b"3", "it is archived"),
        ]

    def test_that_cannot_be_read_is_no_matter_where_there_is_another_way(self) -> None:
        table = sizes({(1, None): 9, (2, 1): 2, (2, None): 10})
        archived = {Diff(uuid(2), uuid(1)): "it is archived"}
        survey = Survey(send=(Arrival(A, b"1"), Arrival(B, b"2")), unreadable=archived)
        assert parents(make_plan(survey, table)) == {b"1": None, b"2": None}

    def test_may_be_one_that_cannot_appear(self) -> None:
        survey = Survey(send=(Arrival(A, b"1", problem="taken"), Arrival(B, b"2")), passing=(A,))
        plan = make_plan(survey, sizes(self.CHAIN))
        assert [(step.path, step.passing, step.problem) for step in plan.steps] == [
            (b"1", True, ""),
            (b"2", False, ""),
            (b"1", False, "taken"),
        ]

    def test_takes_up_its_partial(self) -> None:
        mine, other = Partial(b"p", A.uuid, 0), Partial(b"x/p", A.uuid, 0)
        survey = Survey(send=(Arrival(B, b"2"),), passing=(A,), discard=(mine, other))
        plan = make_plan(survey, sizes(self.CHAIN))
        assert [step.path for step in plan.of(Action.DISCARD)] == [b"x/p"]

    def test_stays_where_diffs_stay_diffs(self) -> None:
        survey = Survey(send=(Arrival(C, b"3"),), passing=(A, B, D))
        plan = make_plan(survey, sizes(self.CHAIN), Weights(keeps_diffs=True))
        assert [(step.path, step.passing) for step in plan.steps] == [
            (b"1", False),
            (b"2", False),
            (b"3", False),
        ]

    def test_where_diffs_stay_diffs_none_hangs_in_the_air(self) -> None:
        survey = Survey(send=(Arrival(C, b"3"), Arrival(D, b"4")), passing=(B,))
        plan = make_plan(
            survey, sizes({(2, 1): 3, (3, 2): 2, (4, None): 9}), Weights(keeps_diffs=True)
        )
        assert [(step.path, bool(step.problem)) for step in plan.steps] == [
            (b"4", False),
            (b"3", True),
        ]

    def test_where_diffs_stay_diffs_is_not_kept_for_its_own_sake(self) -> None:
        """Its link is there, and what that starts from is sent."""
        stored = sizes({(2, 1): 3})
        survey = Survey(send=(Arrival(C, b"3"),), passing=(A, B), stored=stored)
        plan = make_plan(survey, sizes(self.CHAIN), Weights(keeps_diffs=True))
        assert [(step.action, step.path) for step in plan.steps] == [
            (Action.SEND, b"1"),
            (Action.SEND, b"3"),
        ]

    def test_with_delete_what_is_excluded_is_left_as_it_is(self) -> None:
        """Even where a smaller diff than the one stored is to be had."""
        survey = Survey(
            keep=(A,),
            stay=(B,),
            held=(A, B),
            send=(Arrival(C, b"3"),),
            stored=sizes({(1, None): 10**6, (2, None): 10**9}),
            prunes=True,
        )
        plan = make_plan(survey, sizes({(2, 1): 5, (3, 2): 1}), Weights(keeps_diffs=True))
        assert [(step.action, step.path) for step in plan.steps] == [
            (Action.KEEP, b"1"),
            (Action.SEND, b"3"),
        ]

    def test_says_why_it_is_sent(self) -> None:
        survey = Survey(send=(Arrival(B, b"2"),), passing=(A,))
        plan = make_plan(survey, sizes(self.CHAIN))
        assert [step.reason for step in plan.steps] == [
            Reason("what is wanted starts from it"),
            Reason(),
        ]


class TestStep:
    def test_of_a_send_says_what_it_replaces(self) -> None:
        old = made(9)
        survey = Survey(send=(Arrival(A, b"1", replaces=old),))
        (step,) = make_plan(survey, sizes({(1, None): 5})).steps
        assert step.replaces is old

    def test_has_its_path_at_the_destination(self) -> None:
        survey = Survey(send=(Arrival(A, b"there"),))
        (step,) = make_plan(survey, sizes({(1, None): 5})).steps
        assert (step.path, step.snapshot) == (b"there", A)

    def test_names_the_next_best_as_its_reason(self) -> None:
        plan = make_plan(sending(B, held=[A]), sizes({(2, None): 12345, (2, 1): 7}))
        assert plan.steps[0].reason == Reason(size=measured(12345))

    def test_names_a_next_best_parent(self) -> None:
        odd = made(1, b"new\nline")
        plan = make_plan(sending(B, held=[odd]), sizes({(2, None): 5, (2, 1): 7}))
        assert plan.steps[0].reason == Reason(parent=odd, size=measured(7))

    def test_names_the_smallest_of_the_others(self) -> None:
        table = {(2, None): 30, (2, 1): 1, (2, 3): 10, (2, 4): 20}
        for order in (table, dict(reversed(table.items()))):
            plan = make_plan(sending(B, held=[A, C, D]), sizes(order))
            assert plan.steps[0].reason == Reason(parent=C, size=measured(10))

    def test_does_not_name_what_could_not_have_been_chosen(self) -> None:
        survey = Survey(send=(Arrival(A, b"1", problem="taken"), Arrival(B, b"2")), held=(C,))
        plan = make_plan(survey, sizes({(2, None): 30, (2, 1): 1, (2, 3): 10, (2, 9): 2}))
        assert plan.of(Action.SEND)[0].reason == Reason(size=measured(30))

    def test_does_not_name_what_itself_comes_from_it(self) -> None:
        table = {(1, None): 9, (2, 1): 1, (3, 2): 1, (1, 2): 2, (1, 3): 2, (3, 1): 5, (2, 3): 4}
        plan = make_plan(sending(A, B, C), sizes(table | {(1, 4): 90}))
        assert [step.reason for step in plan.steps] == [
            Reason(),
            Reason(),
            Reason(parent=A, size=measured(5)),
        ]

    def test_may_name_a_sibling_that_comes_later(self) -> None:
        plan = make_plan(sending(A, B), sizes({(1, None): 5, (2, None): 6, (1, 2): 50, (2, 1): 40}))
        assert [step.reason for step in plan.steps] == [
            Reason(parent=B, size=measured(50)),
            Reason(parent=A, size=measured(40)),
        ]

    def test_without_a_choice_says_so(self) -> None:
        (step,) = make_plan(sending(A), sizes({(1, None): 5})).steps
        assert step.reason == Reason()


class TestPlan:
    def test_gives_the_steps_of_one_action_in_order(self) -> None:
        plan = make_plan(
            Survey(keep=(C,), send=(Arrival(A, b"1"), Arrival(B, b"2")), delete=(D,)),
            sizes({(1, None): 5, (2, None): 7}),
        )
        assert [step.path for step in plan.of(Action.SEND)] == [b"1", b"2"]
        assert [step.path for step in plan.of(Action.DELETE)] == [b"4"]
        assert plan.of(Action.COPY) == ()

    def test_has_the_bytes_of_its_sends(self) -> None:
        plan = make_plan(sending(A, B), sizes({(1, None): 5, (2, 1): 7}))
        assert plan.send_bytes == 12

    def test_has_no_bytes_for_what_cannot_be_sent(self) -> None:
        survey = Survey(send=(Arrival(A, b"1", problem="taken"), Arrival(B, b"2")))
        plan = make_plan(survey, sizes({(2, None): 7}))
        assert plan.send_bytes == plan.lower_bound == 7

    def test_is_its_own_lower_bound(self) -> None:
        plan = make_plan(sending(A, B, C), sizes(chain(3)))
        assert plan.lower_bound == plan.send_bytes == FULL + 1 + 2 + 2


class TestMeasuring:
    HISTORY = sending(*map(made, range(1, 400)))

    def test_asks_nothing_where_nothing_is_sent(self) -> None:
        assert everything_asked(Survey(keep=(A,), held=(B,), others=(C,))) == []

    def test_asks_for_what_each_grew_out_of_first(self) -> None:
        assert Measuring(sending(B, C, held=[A])).next() == (
            Diff(B.uuid, A.uuid),
            Diff(C.uuid, B.uuid),
        )

    def test_asks_for_all_pairs_of_a_small_history(self) -> None:
        asked = everything_asked(sending(A, B, held=[C]), length=10**9)
        others = {A: (None, B.uuid, C.uuid), B: (None, A.uuid, C.uuid)}
        assert set(asked) == {Diff(to.uuid, parent) for to in others for parent in others[to]}

    def test_asks_for_nothing_that_makes_what_is_there(self) -> None:
        assert {pair.to for pair in everything_asked(sending(A, B, held=[C]))} == {A.uuid, B.uuid}

    def test_asks_for_no_parent_that_the_destination_lacks(self) -> None:
        survey = Survey(send=(Arrival(B, b"2"),), held=(A,), others=(C,))
        assert {pair.parent for pair in everything_asked(survey)} <= {None, A.uuid}

    def test_asks_for_nothing_twice(self) -> None:
        asked = everything_asked(self.HISTORY)
        assert len(set(asked)) == len(asked)

    def test_asks_for_everything_that_is_cheap(self) -> None:
        survey = sending(*map(made, range(1, 12)))
        snapshots = [arrival.snapshot for arrival in survey.send]
        assert set(everything_asked(survey, length=10**9)) >= set(candidates(snapshots, (), {}))

    def test_of_dear_ones_asks_for_little_more_than_has_to_be(self) -> None:
        """As much again as goes into a sixth of sending, and one batch that was under way."""
        asked = everything_asked(self.HISTORY, commands=10**6)
        assert 399 <= len(asked) <= 399 * 10 // 6 + 16

    def test_of_dear_ones_still_reaches_a_plan(self) -> None:
        table = {
            diff: Size(5, Exactness.MEASURED) for diff in everything_asked(self.HISTORY, 10**6)
        }
        assert len(make_plan(self.HISTORY, table).of(Action.SEND)) == 399

    def test_counts_what_it_asked_for(self) -> None:
        measuring = Measuring(sending(B, C, held=[A]))
        measuring.next()
        assert (measuring.asked, measuring.sizes) == (2, {})

    def test_takes_sizes_measured_or_guessed(self) -> None:
        measuring = Measuring(sending(B, C, held=[A]))
        first, second = measuring.next()
        measuring.learn(Measurement(first, 5, 1))
        measuring.guess(second, 7)
        assert measuring.sizes == {
            first: Size(5, Exactness.MEASURED),
            second: Size(7, Exactness.ESTIMATED),
        }
