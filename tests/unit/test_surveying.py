"""What becomes of every snapshot: each rule of the survey by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

import pytest

from buttersink.catalogue import (
    Catalogue,
    Diff,
    Exactness,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_text,
)
from buttersink.errors import RefusedError
from buttersink.planner import Arrival, PlanOptions, Survey, survey


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def original(number: int, path: bytes) -> Snapshot:
    """Return a snapshot known by its own UUID."""
    return Snapshot(uuid(number), uuid(number), None, None, number, 0, path)


def copy(number: int, path: bytes, own: int = 0) -> Snapshot:
    """Return one known by the UUID of what it was received from."""
    own = own or 1000 + number
    return Snapshot(uuid(number), uuid(own), None, uuid(number), number, 0, path)


def store(
    *snapshots: Snapshot, outside: tuple[Snapshot, ...] = (), partials: tuple[Partial, ...] = ()
) -> Catalogue:
    """Return what a store holds, in the order that stores give."""
    by_path = sorted(snapshots, key=lambda snapshot: snapshot.path)
    return Catalogue(tuple(by_path), outside=outside, partials=partials)


def excluding(*patterns: bytes, delete: bool = False) -> PlanOptions:
    return PlanOptions(delete=delete, exclude=tuple(map(re.compile, patterns)))


KEEPING = PlanOptions()
DELETING = PlanOptions(delete=True)

A, B, C = original(1, b"a"), original(2, b"b"), original(3, b"c")


class TestPresence:
    def test_of_nothing_on_either_side_is_nothing_to_do(self) -> None:
        assert survey(Catalogue(), Catalogue(), DELETING) == Survey()

    def test_what_the_destination_lacks_is_sent_to_the_same_path(self) -> None:
        found = survey(store(A, B), store(), KEEPING)
        assert found == Survey(send=(Arrival(A, b"a"), Arrival(B, b"b")))

    def test_what_the_destination_has_is_kept(self) -> None:
        there = copy(1, b"a")
        found = survey(store(A), store(there), KEEPING)
        assert found == Survey(keep=(there,), held=(A,))

    def test_is_told_by_uuid_not_by_path(self) -> None:
        there = copy(1, b"elsewhere/other name")
        found = survey(store(A), store(there), KEEPING)
        assert (found.keep, found.send) == ((there,), ())

    def test_of_another_snapshot_at_the_path_counts_for_nothing(self) -> None:
        found = survey(store(A), store(copy(9, b"a")), KEEPING)
        assert (found.keep, [arrival.snapshot for arrival in found.send]) == ((), [A])

    def test_works_backwards_too(self) -> None:
        """What was received here and is sent to where it came from."""
        here, there = copy(1, b"a"), original(1, b"a")
        found = survey(store(here), store(there), KEEPING)
        assert (found.keep, found.held, found.send) == ((there,), (here,), ())

    def test_what_two_received_from_a_third_is_the_same(self) -> None:
        here, there = copy(1, b"a", own=5), copy(1, b"a", own=6)
        assert survey(store(here), store(there), KEEPING).keep == (there,)

    def test_every_copy_at_the_destination_is_kept(self) -> None:
        there = (copy(1, b"a", own=5), copy(1, b"a2", own=6))
        found = survey(store(A), store(*there), DELETING)
        assert (found.keep, found.delete) == (there, ())

    def test_what_lies_elsewhere_on_its_file_system_is_copied(self) -> None:
        outside = copy(1, b"other/place")
        found = survey(store(A), store(outside=(outside,)), KEEPING)
        assert found == Survey(copy=(Arrival(outside, b"a"),), held=(A,))

    def test_what_lies_both_inside_and_elsewhere_is_kept(self) -> None:
        inside, outside = copy(1, b"a", own=5), copy(1, b"other", own=6)
        found = survey(store(A), store(inside, outside=(outside,)), KEEPING)
        assert (found.keep, found.copy) == ((inside,), ())

    def test_what_is_elsewhere_at_the_source_is_not_wanted(self) -> None:
        found = survey(store(A, outside=(B,)), store(), KEEPING)
        assert [arrival.snapshot for arrival in found.send] == [A]


class TestCopiesOfOneSnapshot:
    """Several with one effective UUID."""

    def test_at_the_source_are_sent_once(self) -> None:
        first, second = copy(1, b"a", own=5), copy(1, b"b", own=6)
        assert survey(store(second, first), store(), KEEPING).send == (Arrival(first, b"a"),)

    @pytest.mark.parametrize("path", [b"a", b"z"])
    def test_at_the_source_give_way_to_the_original(self, path: bytes) -> None:
        first = original(1, path)
        others = [copy(1, b"m", own=5), copy(1, b"n", own=6)]
        assert survey(store(first, *others), store(), KEEPING).send == (Arrival(first, path),)

    def test_elsewhere_on_the_destination_give_way_to_the_original(self) -> None:
        first, other = original(1, b"z"), copy(1, b"b", own=5)
        found = survey(store(copy(1, b"a")), store(outside=(other, first)), KEEPING)
        assert found.copy == (Arrival(first, b"a"),)

    def test_are_one_parent(self) -> None:
        """The original, were it outside the location."""
        first, other = original(1, b"elsewhere"), copy(1, b"a", own=5)
        found = survey(store(other, outside=(first,)), store(copy(1, b"a")), KEEPING)
        assert found.held == (first,)

    def test_are_sent_from_the_path_that_is_not_excluded(self) -> None:
        left_out, other = original(1, b"tmp/a"), copy(1, b"a", own=5)
        found = survey(store(left_out, other), store(), excluding(b"^tmp/"))
        assert found.send == (Arrival(other, b"a"),)


class TestParents:
    def test_are_what_both_sides_have(self) -> None:
        found = survey(store(A, B), store(copy(1, b"a"), copy(9, b"z")), KEEPING)
        assert (found.held, found.others) == ((A,), ())

    def test_may_be_elsewhere_on_either_side(self) -> None:
        found = survey(store(B, outside=(A,)), store(outside=(copy(1, b"x"),)), KEEPING)
        assert (found.held, found.copy) == ((A,), ())

    def test_may_be_what_is_deleted_at_the_end(self) -> None:
        there = copy(1, b"a")
        found = survey(store(B, outside=(A,)), store(there), DELETING)
        assert (found.held, found.delete) == ((A,), (there,))

    def test_may_be_excluded(self) -> None:
        found = survey(store(A, B), store(copy(1, b"a")), excluding(b"^a$"))
        assert (found.held, found.keep) == ((A,), ())

    def test_that_only_the_source_has_and_nobody_wants_are_the_others(self) -> None:
        found = survey(store(A, B, outside=(C,)), store(), excluding(b"^b$"))
        assert (found.held, found.others) == ((), (B, C))

    def test_come_with_the_lineage_of_the_source(self) -> None:
        lineage = MappingProxyType({uuid(1): uuid(2)})
        found = survey(Catalogue((A,), lineage=lineage), Catalogue(), KEEPING)
        assert found.lineage == lineage


class TestPassing:
    """Of a source that has no diffs but those it holds, what may be sent for others' sake."""

    DIFFS = MappingProxyType({Diff(uuid(1), None): Size(5, Exactness.STORED)})

    def of(self, *snapshots: Snapshot, outside: tuple[Snapshot, ...] = ()) -> Catalogue:
        return replace(store(*snapshots, outside=outside), diffs=self.DIFFS)

    def test_is_what_is_excluded_or_elsewhere(self) -> None:
        found = survey(self.of(A, B, outside=(C,)), store(), excluding(b"^b$"))
        assert (found.passing, found.others) == ((B, C), (B, C))

    def test_is_not_what_the_destination_has(self) -> None:
        there = store(copy(2, b"x"), outside=(copy(3, b"y"),))
        found = survey(self.of(A, B, outside=(C,)), there, excluding(b"^b$"))
        assert (found.passing, found.held) == ((), (B, C))

    def test_is_what_cannot_appear_at_its_path(self) -> None:
        found = survey(self.of(A, B), store(copy(9, b"a")), KEEPING)
        assert found.passing == (A,)

    def test_is_nothing_of_a_source_that_makes_any_diff(self) -> None:
        found = survey(store(A, B, outside=(C,)), store(copy(9, b"a")), excluding(b"^b$"))
        assert found.passing == ()


class TestExclude:
    def test_leaves_out_what_it_matches_anywhere_in_the_path(self) -> None:
        source = store(original(1, b"x/tmp1/a"), original(2, b"y"), original(3, b"tmp2"))
        found = survey(source, store(), excluding(rb"tmp\d"))
        assert [arrival.path for arrival in found.send] == [b"y"]

    @pytest.mark.parametrize("patterns", [(b"^a$", b"^b$"), (b"^[ab]$",), (b"^b", b"^a", b"c.")])
    def test_may_be_several_patterns(self, patterns: tuple[bytes, ...]) -> None:
        found = survey(store(A, B, C), store(), excluding(*patterns))
        assert [arrival.snapshot for arrival in found.send] == [C]

    def test_matches_bytes_that_are_no_text(self) -> None:
        odd = original(1, b"\xff\n")
        assert survey(store(odd), store(), excluding(rb"\xff\n\Z")).send == ()

    def test_protects_at_the_destination(self) -> None:
        there = store(copy(8, b"local/x"), copy(9, b"z"))
        found = survey(store(A), there, excluding(b"^local/", delete=True))
        assert [snapshot.path for snapshot in found.delete] == [b"z"]

    def test_neither_keeps_nor_deletes_what_it_matches_on_both_sides(self) -> None:
        found = survey(store(A, B), store(copy(1, b"a")), excluding(b"^a$", delete=True))
        assert (found.keep, found.delete) == ((), ())

    def test_protects_what_the_destination_has_under_another_name(self) -> None:
        there = copy(1, b"kept")
        found = survey(store(A, B), store(there), excluding(b"^a$", delete=True))
        assert found.delete == ()

    def test_protects_what_is_in_the_way(self) -> None:
        found = survey(store(A, B), store(copy(9, b"a")), excluding(b"^a$", delete=True))
        assert (found.send, found.delete) == ((Arrival(B, b"b"),), ())


class TestDelete:
    def test_lets_go_what_the_source_does_not_have(self) -> None:
        gone = copy(9, b"z")
        found = survey(store(A), store(copy(1, b"a"), gone), DELETING)
        assert found.delete == (gone,)

    def test_is_not_done_unless_asked_for(self) -> None:
        found = survey(store(A), store(copy(9, b"z")), KEEPING)
        assert found.delete == ()

    def test_never_touches_what_lies_outside(self) -> None:
        found = survey(store(A), store(outside=(copy(9, b"z"),)), DELETING)
        assert found.delete == ()

    def test_lets_go_what_the_source_has_elsewhere_only(self) -> None:
        there = copy(2, b"b")
        assert survey(store(A, outside=(B,)), store(there), DELETING).delete == (there,)

    def test_lets_go_of_every_copy(self) -> None:
        copies = (copy(9, b"y", own=5), copy(9, b"z", own=6))
        assert survey(store(A), store(*copies), DELETING).delete == copies

    def test_with_an_empty_source_is_refused(self) -> None:
        with pytest.raises(RefusedError, match="Is it mounted"):
            survey(Catalogue(), store(A), DELETING)

    def test_with_a_source_that_has_only_something_elsewhere_is_refused(self) -> None:
        with pytest.raises(RefusedError):
            survey(store(outside=(A,)), store(A), DELETING)

    def test_without_it_an_empty_source_is_nothing_to_do(self) -> None:
        assert survey(Catalogue(), store(A), KEEPING) == Survey(stay=(A,))


class TestPartials:
    def of(self, *paths: bytes) -> tuple[Partial, ...]:
        """Return what was left on the way of snapshot 1 to these paths."""
        return tuple(Partial(path, uuid(1), 0) for path in paths)

    def test_are_let_go_with_delete(self) -> None:
        partials = self.of(b"p", b"x/q")
        assert survey(store(B), store(partials=partials), DELETING).discard == partials

    def test_of_what_is_there_by_now_are_let_go(self) -> None:
        there = store(copy(1, b"a"), partials=self.of(b"p"))
        assert survey(store(A), there, DELETING).discard == self.of(b"p")

    def test_that_an_arrival_takes_up_are_left_to_it(self) -> None:
        wanted = original(1, b"x/y/a")
        found = survey(store(wanted), store(partials=self.of(b"x/y/p")), DELETING)
        assert (found.discard, found.send) == ((), (Arrival(wanted, b"x/y/a"),))

    def test_that_a_copy_takes_up_are_left_to_it(self) -> None:
        there = store(outside=(copy(1, b"x"),), partials=self.of(b"p"))
        assert survey(store(A), there, DELETING).discard == ()

    def test_in_another_directory_are_taken_up_by_nobody(self) -> None:
        partials = self.of(b"x/p", b"p", b"x/y/z/p")
        found = survey(store(original(1, b"x/y/a")), store(partials=partials), DELETING)
        assert found.discard == partials

    def test_of_what_cannot_arrive_are_let_go(self) -> None:
        """The obstacle is at the source, too, under another name."""
        there = store(copy(9, b"a"), partials=self.of(b"p"))
        found = survey(store(A, original(9, b"z")), there, DELETING)
        assert found.discard == self.of(b"p")

    def test_are_left_alone_without_delete(self) -> None:
        assert survey(store(B), store(partials=self.of(b"p")), KEEPING).discard == ()

    def test_that_are_excluded_are_left_alone(self) -> None:
        """Another machine's transfer into its own part of the destination may be going on."""
        there = store(partials=self.of(b"local/p", b"p"))
        found = survey(store(B), there, excluding(b"^local/", delete=True))
        assert found.discard == self.of(b"p")

    def test_are_let_go_even_if_the_source_is_empty(self) -> None:
        found = survey(Catalogue(), store(partials=self.of(b"p")), DELETING)
        assert found.discard == self.of(b"p")


class TestObstacle:
    """Another snapshot lies where one is to appear."""

    OLD = copy(9, b"a")

    def test_that_the_source_does_not_have_is_a_problem_that_delete_solves(self) -> None:
        (arrival,) = survey(store(A), store(self.OLD), KEEPING).send
        assert arrival.replaces is None
        assert uuid_text(self.OLD.uuid) in arrival.problem
        assert arrival.problem.endswith("; --delete replaces it")

    def test_that_the_source_does_not_have_is_replaced_with_delete(self) -> None:
        found = survey(store(A), store(self.OLD), DELETING)
        assert found.send == (Arrival(A, b"a", replaces=self.OLD),)

    def test_that_is_replaced_is_not_deleted_as_well(self) -> None:
        assert survey(store(A), store(self.OLD), DELETING).delete == ()

    def test_that_is_replaced_is_no_parent(self) -> None:
        found = survey(store(A, outside=(original(9, b"x"),)), store(self.OLD), DELETING)
        assert (found.held, found.others) == ((), (original(9, b"x"),))

    def test_that_is_replaced_is_still_a_parent_where_it_has_a_copy(self) -> None:
        there = store(self.OLD, outside=(copy(9, b"x", own=5),))
        found = survey(store(A, outside=(original(9, b"x"),)), there, DELETING)
        assert found.held == (original(9, b"x"),)

    @pytest.mark.parametrize("options", [KEEPING, DELETING])
    def test_that_the_source_has_elsewhere_is_a_problem(self, options: PlanOptions) -> None:
        twin = original(9, b"new\nplace")
        (arrival,) = survey(store(A, twin), store(self.OLD), options).send
        assert arrival.snapshot == A
        assert arrival.replaces is None
        assert r"at the source that is new\nplace" in arrival.problem

    def test_that_the_source_has_elsewhere_is_kept(self) -> None:
        found = survey(store(A, original(9, b"z")), store(self.OLD), DELETING)
        assert (found.keep, found.delete) == ((self.OLD,), ())

    def test_that_the_source_has_but_excluded_is_a_problem(self) -> None:
        options = excluding(b"^z$", delete=True)
        (arrival,) = survey(store(A, original(9, b"z")), store(self.OLD), options).send
        assert arrival.replaces is None
        assert arrival.problem

    def test_stands_in_the_way_of_a_copy_too(self) -> None:
        there = store(self.OLD, outside=(copy(1, b"x"),))
        (arrival,) = survey(store(A), there, KEEPING).copy
        assert "--delete replaces it" in arrival.problem

    def test_is_replaced_by_a_copy_too(self) -> None:
        outside = copy(1, b"x")
        found = survey(store(A), store(self.OLD, outside=(outside,)), DELETING)
        assert found.copy == (Arrival(outside, b"a", replaces=self.OLD),)

    def test_is_not_what_lies_at_the_path_outside(self) -> None:
        found = survey(store(A), store(outside=(copy(9, b"a"),)), KEEPING)
        assert found.send == (Arrival(A, b"a"),)

    def test_hinders_only_the_snapshot_whose_path_it_has(self) -> None:
        found = survey(store(A, B), store(self.OLD), KEEPING)
        assert [bool(arrival.problem) for arrival in found.send] == [True, False]

    def test_of_two_that_changed_places_is_none(self) -> None:
        there = store(copy(1, b"b"), copy(2, b"a"))
        found = survey(store(A, B), there, DELETING)
        assert (found.send, found.delete, len(found.keep)) == ((), (), 2)
