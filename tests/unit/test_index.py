"""What a listing of subvolumes becomes, seen from one directory of the file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import Exactness, Partial, Size, Snapshot, Uuid
from buttersink.kernel.ioctl import SubvolumeInfo
from buttersink.kernel.subvolumes import Subvolume
from buttersink.stores.btrfs.index import Index, base_name, partial_name, uuid_of_partial

if TYPE_CHECKING:
    from collections.abc import Mapping

UUID = Uuid(bytes.fromhex("00112233445566778899aabbccddeeff"))
NOTHING = Uuid(bytes(16))


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def subvolume(
    number: int,
    path: bytes,
    *,
    received: int | None = None,
    parent: int | None = None,
    read_only: bool = True,
    stransid: int = 0,
) -> Subvolume:
    """Return a subvolume whose number is its UUID, too."""
    return Subvolume(
        id=number,
        parent_id=5,
        path=path,
        generation=number + 3000,
        read_only=read_only,
        level=0,
        uuid=uuid(number),
        parent_uuid=None if parent is None else uuid(parent),
        received_uuid=None if received is None else uuid(received),
        ctransid=number + 1000,
        stransid=stransid,
        created=number + 2000,
    )


def info(number: int, *, ctransid: int | None = None, read_only: bool = True) -> SubvolumeInfo:
    """Return what the kernel says of such a subvolume."""
    changed = number + 1000 if ctransid is None else ctransid
    return SubvolumeInfo(number, read_only, uuid(number), NOTHING, NOTHING, changed, 0)


def index(
    *found: Subvolume,
    directory: bytes = b"snaps",
    single: bytes | None = None,
    quota: Mapping[int, tuple[int, int]] | None = None,
    confined: bool = False,
) -> Index:
    return Index(list(found), quota or {}, directory, single, confined=confined)


def paths(snapshots: tuple[Snapshot, ...]) -> list[bytes]:
    return [snapshot.path for snapshot in snapshots]


class TestPartialName:
    def test_says_which_snapshot_it_was_going_to_be(self) -> None:
        assert partial_name(UUID) == b".buttersink-00112233-4455-6677-8899-aabbccddeeff.part"
        assert base_name(UUID) == b".buttersink-00112233-4455-6677-8899-aabbccddeeff.base"

    @given(st.binary(min_size=16, max_size=16).map(Uuid))
    def test_is_recognised(self, uuid: Uuid) -> None:
        assert uuid_of_partial(partial_name(uuid)) == uuid_of_partial(base_name(uuid)) == uuid
        assert uuid_of_partial(partial_name(uuid, 2)) == uuid

    @given(st.integers(0, 10**6))
    def test_of_every_stand_in_is_recognised_and_its_own(self, number: int) -> None:
        assert uuid_of_partial(base_name(UUID, number)) == UUID
        assert base_name(UUID, number) != base_name(UUID, number + 1)

    @pytest.mark.parametrize(
        "name",
        [
            b"",
            b"monday",
            b".buttersink-.part",
            b".buttersink-monday.part",
            b"00112233-4455-6677-8899-aabbccddeeff",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff",
            b"00112233-4455-6677-8899-aabbccddeeff.part",
            b".buttersink-00112233445566778899aabbccddeeff.part",
            b".buttersink-00112233-4455-6677-8899-AABBCCDDEEFF.part",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.part.part",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.part.base",
            b".buttersink-.buttersink-00112233-4455-6677-8899-aabbccddeeff.part",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.part\n",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.part0",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.part3",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.journal",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.base0",
            b".buttersink-00112233-4455-6677-8899-aabbccddeeff.base01",
            b".buttersink-\xff0112233-4455-6677-8899-aabbccddeeff.part",
        ],
    )
    def test_that_is_only_similar_is_none(self, name: bytes) -> None:
        assert uuid_of_partial(name) is None

    @given(st.binary())
    def test_of_garbage_is_none(self, name: bytes) -> None:
        assert uuid_of_partial(b".buttersink-" + name + b".part") in (None, *map_uuid(name))


def map_uuid(name: bytes) -> list[Uuid]:
    """Return the one UUID that a name can hold."""
    try:
        return [Uuid(bytes.fromhex(name.decode("ascii").replace("-", "")))]
    except ValueError:
        return []


class TestPlace:
    def test_below_the_directory_is_inside_with_its_path_from_there(self) -> None:
        found = index(subvolume(256, b"snaps/a"), subvolume(257, b"snaps/deep/er/b"))
        assert paths(found.catalogue.snapshots) == [b"a", b"deep/er/b"]
        assert found.catalogue.outside == ()

    def test_beside_the_directory_is_outside_with_its_path_from_the_top(self) -> None:
        found = index(subvolume(256, b"other/a"), subvolume(257, b"b"))
        assert paths(found.catalogue.outside) == [b"b", b"other/a"]
        assert found.catalogue.snapshots == ()

    def test_with_a_name_that_only_begins_alike_is_outside(self) -> None:
        found = index(subvolume(256, b"snaps2/a"), subvolume(257, b"snapsa"))
        assert paths(found.catalogue.outside) == [b"snaps2/a", b"snapsa"]

    def test_of_the_directory_itself_is_outside(self) -> None:
        found = index(subvolume(256, b"snaps"), subvolume(257, b"snaps/a"))
        assert paths(found.catalogue.outside) == [b"snaps"]

    def test_seen_from_the_top_is_always_inside(self) -> None:
        found = index(subvolume(256, b"a"), subvolume(257, b"x/b"), directory=b"")
        assert paths(found.catalogue.snapshots) == [b"a", b"x/b"]

    def test_is_in_order_of_the_paths_bytes(self) -> None:
        names = [b"b", b"\xff", b"a/z", b"a b", b"B", b"a"]
        found = index(*(subvolume(256 + n, b"snaps/" + name) for n, name in enumerate(names)))
        assert paths(found.catalogue.snapshots) == sorted(names)

    def test_may_have_any_bytes(self) -> None:
        found = index(subvolume(256, b"sn\n aps/\xff\n -x"), directory=b"sn\n aps")
        assert paths(found.catalogue.snapshots) == [b"\xff\n -x"]

    def test_of_what_is_writable_is_nowhere(self) -> None:
        found = index(
            subvolume(256, b"snaps/live", read_only=False), subvolume(257, b"x", read_only=False)
        )
        assert (found.catalogue.snapshots, found.catalogue.outside) == ((), ())


class TestSingle:
    def test_is_the_only_one_inside(self) -> None:
        found = index(subvolume(256, b"snaps/a"), subvolume(257, b"snaps/b"), single=b"b")
        assert paths(found.catalogue.snapshots) == [b"b"]
        assert paths(found.catalogue.outside) == [b"snaps/a"]

    def test_is_not_one_of_the_same_name_farther_down(self) -> None:
        found = index(subvolume(256, b"snaps/x/b"), subvolume(257, b"snaps/b"), single=b"b")
        assert paths(found.catalogue.snapshots) == [b"b"]

    def test_is_not_one_of_the_same_name_beside(self) -> None:
        found = index(subvolume(256, b"b"), subvolume(257, b"snaps/b"), single=b"b")
        assert paths(found.catalogue.outside) == [b"b"]

    def test_has_no_partials(self) -> None:
        found = index(
            subvolume(256, b"snaps/" + partial_name(UUID)), subvolume(257, b"snaps/b"), single=b"b"
        )
        assert found.catalogue.partials == ()


class TestIdentity:
    def test_of_an_original_is_its_own_uuid(self) -> None:
        (snapshot,) = index(subvolume(256, b"snaps/a", parent=300)).catalogue.snapshots
        assert (snapshot.uuid, snapshot.own_uuid) == (uuid(256), uuid(256))
        assert (snapshot.parent_uuid, snapshot.received_uuid) == (uuid(300), None)

    def test_of_a_received_one_is_its_received_uuid(self) -> None:
        (snapshot,) = index(subvolume(256, b"snaps/a", received=9)).catalogue.snapshots
        assert (snapshot.uuid, snapshot.own_uuid) == (uuid(9), uuid(256))
        assert (snapshot.parent_uuid, snapshot.received_uuid) == (None, uuid(9))

    def test_has_the_generation_where_it_was_made(self) -> None:
        original, received, odd = index(
            subvolume(256, b"snaps/a"),
            subvolume(257, b"snaps/b", received=9, stransid=42),
            subvolume(258, b"snaps/c", received=9, stransid=0),
        ).catalogue.snapshots
        assert (original.generation, received.generation, odd.generation) == (1256, 42, 1258)

    def test_has_number_and_time(self) -> None:
        (snapshot,) = index(subvolume(256, b"snaps/a")).catalogue.snapshots
        assert (snapshot.subvolume_id, snapshot.created) == (256, 2256)

    def test_has_sizes_where_quota_groups_tell(self) -> None:
        first, second = index(
            subvolume(256, b"snaps/a"), subvolume(257, b"snaps/b"), quota={257: (8192, 0)}
        ).catalogue.snapshots
        assert (first.size, first.exclusive) == (None, None)
        assert (second.size, second.exclusive) == (Size(8192, Exactness.MEASURED), 0)


class TestPartials:
    def test_are_told_by_name_not_by_being_writable(self) -> None:
        name = partial_name(UUID)
        for read_only in (True, False):
            found = index(subvolume(256, b"snaps/x/" + name, read_only=read_only))
            assert found.catalogue.partials == (Partial(b"x/" + name, UUID, 2256, 256),)
            assert found.catalogue.snapshots == ()

    def test_are_stand_ins_for_parents_too(self) -> None:
        found = index(subvolume(256, b"snaps/" + base_name(UUID)))
        assert [partial.uuid for partial in found.catalogue.partials] == [UUID]

    def test_elsewhere_are_nobodys(self) -> None:
        catalogue = index(subvolume(256, b"other/" + partial_name(UUID))).catalogue
        assert (catalogue.partials, catalogue.outside) == ((), ())

    def test_have_sizes_where_quota_groups_tell(self) -> None:
        found = index(subvolume(256, b"snaps/" + partial_name(UUID)), quota={256: (4096, 1)})
        assert [partial.size for partial in found.catalogue.partials] == [4096]

    def test_do_not_make_a_partial_of_what_lies_in_one(self) -> None:
        found = index(subvolume(256, b"snaps/" + partial_name(UUID) + b"/a"))
        assert found.catalogue.partials == ()

    def test_are_found_by_no_uuid(self) -> None:
        """A received UUID proves nothing under a partial name."""
        found = index(subvolume(256, b"snaps/" + partial_name(uuid(9)), received=9))
        with pytest.raises(KeyError):
            found[uuid(9)]


class TestLookup:
    """Which of several subvolumes with one effective UUID stands for it."""

    def test_prefers_inside_to_outside(self) -> None:
        outside, inside = subvolume(256, b"x/a", received=9), subvolume(300, b"snaps/a", received=9)
        assert index(outside, inside)[uuid(9)].subvolume_id == 300
        assert index(inside, outside)[uuid(9)].subvolume_id == 300

    def test_prefers_a_copy_inside_to_the_original_outside(self) -> None:
        inside, outside = subvolume(300, b"snaps/a", received=256), subvolume(256, b"x/a")
        assert index(outside, inside)[uuid(256)].subvolume_id == 300
        assert index(inside, outside)[uuid(256)].subvolume_id == 300

    @pytest.mark.parametrize("place", [b"snaps/", b"x/"])
    def test_prefers_the_original_to_copies_in_the_same_place(self, place: bytes) -> None:
        original = subvolume(257, place + b"b")
        first = subvolume(256, place + b"a", received=257)
        last = subvolume(258, place + b"c", received=257)
        for order in ((first, original, last), (last, first, original), (original, last, first)):
            assert index(*order)[uuid(257)].subvolume_id == 257

    def test_of_copies_only_takes_the_oldest(self) -> None:
        copies = [subvolume(number, b"snaps/%d" % number, received=9) for number in (256, 257)]
        assert index(*copies)[uuid(9)].subvolume_id == 256

    def test_finds_what_is_outside(self) -> None:
        assert index(subvolume(256, b"x/a"))[uuid(256)].path == b"x/a"

    def test_of_what_is_not_there_is_a_key_error(self) -> None:
        with pytest.raises(KeyError):
            index()[uuid(1)]

    def test_knows_what_is_inside(self) -> None:
        found = index(subvolume(256, b"snaps/a"), subvolume(257, b"x/b"))
        assert [found.is_inside(found[uuid(n)]) for n in (256, 257)] == [True, False]

    def test_gives_the_path_from_the_top(self) -> None:
        found = index(subvolume(256, b"snaps/a"), subvolume(257, b"x/b"))
        assert [found.top_path(found[uuid(n)]) for n in (256, 257)] == [b"snaps/a", b"x/b"]

    def test_gives_the_transaction_here_even_of_what_was_received(self) -> None:
        found = index(subvolume(256, b"snaps/a", received=9, stransid=42))
        assert found.ctransid(found[uuid(9)]) == 1256


class TestReceived:
    def test_holds_every_subvolume_that_the_receiver_could_find(self) -> None:
        """Writable ones and partials too: `btrfs receive` does not ask."""
        found = index(
            subvolume(256, b"snaps/a", received=9),
            subvolume(257, b"x/b", received=9, read_only=False),
            subvolume(258, b"snaps/" + partial_name(UUID), received=8),
            subvolume(259, b"snaps/c"),
        )
        assert found.received == {uuid(9): {256, 257}, uuid(8): {258}}

    def test_finds_a_snapshot_where_no_other_has_that_uuid(self) -> None:
        found = index(
            subvolume(256, b"snaps/a", received=9),
            subvolume(257, b"snaps/b", received=8),
            subvolume(258, b"x/b", received=8, read_only=False),
            subvolume(259, b"snaps/original"),
        )
        expected = {9: True, 8: False, 259: False}
        assert {number: found.is_found(found[uuid(number)]) for number in expected} == expected


class TestPassing:
    """What is here for a while, under an invented received UUID."""

    def test_is_found_by_what_was_invented_until_it_is_released(self) -> None:
        found = index(subvolume(257, b"snaps/a"))
        passing = Snapshot(UUID, UUID, None, None, 7, 0, b"source/path")
        found.add(passing, info(300), partial_name(UUID), received=uuid(99))
        here = found[UUID]
        assert (here.own_uuid, here.received_uuid) == (uuid(300), uuid(99))
        assert found.is_found(here)
        assert found.top_path(here) == b"snaps/" + partial_name(UUID)
        found.release(UUID)
        assert not found.is_found(here)
        assert UUID not in found.received

    def test_gives_way_to_the_snapshot_that_was_there(self) -> None:
        found = index(subvolume(257, b"snaps/a", received=9))
        before = found[uuid(9)]
        found.add(before, info(300), partial_name(uuid(9)), received=uuid(99))
        found.release(uuid(9))
        assert found[uuid(9)] == before

    def test_that_is_not_there_releases_nothing_else(self) -> None:
        found = index(subvolume(257, b"snaps/a", received=9), subvolume(258, b"snaps/b"))
        for number in (9, 258, 1):
            found.release(uuid(number))
        assert [found[uuid(number)].subvolume_id for number in (9, 258)] == [257, 258]
        assert found.is_found(found[uuid(9)])


class TestLineage:
    def test_is_that_of_every_subvolume(self) -> None:
        found = index(
            subvolume(256, b"live", parent=255, read_only=False),
            subvolume(257, b"snaps/a", parent=256),
            subvolume(258, b"snaps/" + partial_name(UUID), parent=257),
        )
        expected = {uuid(256): uuid(255), uuid(257): uuid(256), uuid(258): uuid(257)}
        assert dict(found.catalogue.lineage) == expected

    def test_of_what_was_made_from_nothing_is_zero(self) -> None:
        """So that the planner knows it has no origin, and does not search for one."""
        found = index(subvolume(256, b"live", read_only=False))
        assert dict(found.catalogue.lineage) == {uuid(256): NOTHING}


class TestConfined:
    """For a user who is trusted with one directory alone."""

    @pytest.fixture
    def found(self) -> Index:
        return index(
            subvolume(250, b"elsewhere/root"),
            subvolume(256, b"live", parent=250, read_only=False),
            subvolume(257, b"snaps/a", parent=256),
            subvolume(258, b"elsewhere/b", parent=256, received=9),
            subvolume(259, b"snapshots/c", parent=256),
            subvolume(260, b"elsewhere/" + partial_name(UUID)),
            confined=True,
        )

    def test_nothing_outside_is_listed(self, found: Index) -> None:
        assert paths(found.catalogue.snapshots) == [b"a"]
        assert not found.catalogue.outside
        assert not found.catalogue.partials

    @pytest.mark.parametrize("number", [250, 9, 259])
    def test_nothing_outside_is_found(self, found: Index, number: int) -> None:
        with pytest.raises(KeyError):
            found[uuid(number)]

    def test_of_the_lineage_there_is_what_leads_to_what_is_listed(self, found: Index) -> None:
        assert dict(found.catalogue.lineage) == {
            uuid(257): uuid(256),
            uuid(256): uuid(250),
            uuid(250): NOTHING,
        }

    def test_what_the_receiver_would_find_elsewhere_is_known_all_the_same(
        self, found: Index
    ) -> None:
        assert found.received == {uuid(9): {258}}

    def test_a_circle_in_the_lineage_has_an_end(self) -> None:
        found = index(
            subvolume(257, b"snaps/a", parent=258),
            subvolume(258, b"snaps/b", parent=257),
            confined=True,
        )
        assert len(found.catalogue.lineage) == 2

    def test_the_neighbours_of_a_single_snapshot_are_there(self) -> None:
        found = index(
            subvolume(257, b"snaps/a"),
            subvolume(258, b"snaps/b"),
            subvolume(259, b"elsewhere/c"),
            single=b"a",
            confined=True,
        )
        assert paths(found.catalogue.snapshots) == [b"a"]
        assert paths(found.catalogue.outside) == [b"snaps/b"]


class TestArrival:
    """What was just received is found as if it had been listed."""

    @pytest.fixture
    def arrived(self) -> Index:
        found = index(subvolume(256, b"x/old", received=7))
        (source,) = index(subvolume(300, b"snaps/new")).catalogue.snapshots
        found.add(source, info(260), b"d/new")
        return found

    def test_by_its_effective_uuid(self, arrived: Index) -> None:
        here = arrived[uuid(300)]
        assert (here.uuid, here.own_uuid, here.received_uuid) == (uuid(300), uuid(260), uuid(300))
        assert (here.path, here.subvolume_id, here.generation) == (b"d/new", 260, 1300)

    def test_inside(self, arrived: Index) -> None:
        assert arrived.is_inside(arrived[uuid(300)])

    def test_at_its_path_from_the_top(self, arrived: Index) -> None:
        assert arrived.top_path(arrived[uuid(300)]) == b"snaps/d/new"

    def test_by_the_receiver(self, arrived: Index) -> None:
        assert arrived.received == {uuid(7): {256}, uuid(300): {260}}

    def test_stands_before_another_copy(self) -> None:
        found = index(subvolume(256, b"x/old", received=300))
        (source,) = index(subvolume(300, b"snaps/new")).catalogue.snapshots
        found.add(source, info(260), b"new")
        assert found[uuid(300)].subvolume_id == 260
        assert found.received == {uuid(300): {256, 260}}


class TestUnchanged:
    def test_as_it_was_listed(self) -> None:
        found = index(subvolume(256, b"snaps/a", received=7))
        (listed,) = found.catalogue.snapshots
        assert found.is_unchanged(listed, info(256))
        assert not found.is_unchanged(listed, info(256, ctransid=1257))
        assert not found.is_unchanged(listed, info(256, read_only=False))
        assert not found.is_unchanged(listed, info(257, ctransid=1256))

    def test_as_it_arrived(self) -> None:
        found = index()
        (source,) = index(subvolume(300, b"snaps/new")).catalogue.snapshots
        found.add(source, info(260, ctransid=5), b"new")
        assert found.is_unchanged(found[uuid(300)], info(260, ctransid=5))
        assert not found.is_unchanged(found[uuid(300)], info(260, ctransid=6))

    def test_what_passes_is_not_on_disk_and_may_still_move(self) -> None:
        found = index()
        passing = Snapshot(UUID, UUID, None, None, 7, 0, b"source/path")
        found.add(passing, info(260, ctransid=5), partial_name(UUID), received=uuid(99))
        assert found.is_unchanged(found[UUID], info(260, ctransid=6))
        assert not found.is_unchanged(found[UUID], info(260, read_only=False))
