"""The S3 store against real servers: what is kept, resumed, refused, and told."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from buttersink.catalogue import Diff, Exactness, Size, Snapshot, Uuid, uuid_text
from buttersink.errors import (
    ConflictError,
    DeleteError,
    LocationError,
    ReceiveError,
    SendError,
    UsageError,
)
from buttersink.location import S3Location
from buttersink.planner import Action
from buttersink.planner.plan import Step
from buttersink.stores.base import Mode, Role, Uploads
from buttersink.stores.s3 import S3Store, uploading
from tests.support.streams import KERNEL_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.s3servers import Bucket

MIB = 1 << 20


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def made(number: int, path: bytes = b"") -> Snapshot:
    path = path or b"home/%d" % number
    return Snapshot(uuid(number), uuid(number), None, None, 100 + number, 10**18 + number, path)


def sending(to: Snapshot, parent: Snapshot | None, size: int) -> Step:
    return Step(Action.SEND, to.path, to, parent=parent, size=Size(size, Exactness.MEASURED))


def bytes_of(seed: int, size: int) -> bytes:
    return Random(seed).randbytes(size)


@pytest.fixture
def opened(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    for name, value in s3.server.environment().items():
        monkeypatch.setenv(name, value)
    stores: list[S3Store] = []
    yield Opened(s3, stores)
    for store in stores:
        store.close()


def list_keys(opened: Opened, prefix: str = "") -> list[str]:
    return opened.bucket.keys(prefix)


class Opened:
    """Opens the bucket as a store, having listed it."""

    def __init__(self, bucket: Bucket, stores: list[S3Store]) -> None:
        self.bucket, self._stores = bucket, stores
        self.told: list[str] = []

    def __call__(
        self,
        prefix: str = "pre",
        *,
        mode: Mode = Mode.WRITE,
        role: Role = Role.DESTINATION,
        single: bool = False,
        part: int = 5 * MIB,
        storage_class: str = "",
    ) -> S3Store:
        location = S3Location(self.bucket.name, prefix, all_below=not single)
        uploads = Uploads(part_bytes=part, storage_class=storage_class, tell=self.told.append)
        store = S3Store(location, mode, role, uploads)
        self._stores.append(store)
        store.catalogue()
        return store

    def client(self) -> Any:  # noqa: ANN401  made as botocore runs
        return closing(self.bucket.server.client())


def upload(store: S3Store, step: Step, data: bytes, *, until: int | None = None) -> int:
    """Send bytes, or as many as `until`, and then be interrupted; return what was there already."""
    view = memoryview(data)
    with store.receive(step) as sink:
        for start in range(0, len(data) if until is None else until, 300_000):
            sink.write(view[start : start + 300_000])
        if until is not None:
            raise InterruptedError
    return sink.resumed


def interrupted(store: S3Store, step: Step, data: bytes, until: int) -> None:
    with pytest.raises(InterruptedError):
        upload(store, step, data, until=until)
    # moto may tell a wrong tag of a part that is listed while it arrives: FakeKey.etag has no lock.
    for thread in threading.enumerate():
        if thread.name.startswith("upload"):
            thread.join()
    store.catalogue()


def read(store: S3Store, diff: Diff) -> bytes:
    with store.send(diff) as chunks:
        return b"".join(bytes(chunk) for chunk in chunks)


FULL, STEP = Diff(uuid(1), None), Diff(uuid(2), uuid(1))


class TestWhatIsSent:
    @pytest.mark.parametrize("size", [1, 1000, 5 * MIB, 5 * MIB + 1, 33 * MIB + 17])
    def test_comes_back(self, opened: Opened, size: int) -> None:
        data = bytes_of(size, size)
        upload(opened(), sending(made(1), None, size), data)
        store = opened(mode=Mode.READ, role=Role.SOURCE)
        assert read(store, FULL) == data
        assert store.check(FULL).wrong == ""

    def test_is_verified_by_the_server_or_that_is_told(self, opened: Opened) -> None:
        data = bytes_of(1, 11 * MIB)
        upload(opened(), sending(made(1), None, len(data)), data)
        told = [line for line in opened.told if "MD5" in line]
        assert len(told) == (opened.bucket.server.name == "rclone")
        assert read(opened(mode=Mode.READ), FULL) == data

    def test_is_listed_with_all_that_was_known(self, opened: Opened) -> None:
        store = opened()
        upload(store, sending(made(1), None, 10), b"x" * 10)
        upload(store, sending(made(2), made(1), 5), b"y" * 5)
        found = store.catalogue()
        assert found.diffs == {FULL: Size(10, Exactness.STORED), STEP: Size(5, Exactness.STORED)}
        first, second = found.snapshots
        assert (first.path, first.uuid, first.generation, first.created) == (
            b"home/1",
            uuid(1),
            101,
            10**18 + 1,
        )
        assert first.size == Size(10, Exactness.STORED)
        assert second.size is None
        assert found.partials == ()

    @pytest.mark.parametrize(
        "path", [b"a b/c", "söndag/1".encode(), b"100%", b"new\nline", b"not utf-8 \xff", b"+&?#"]
    )
    def test_keeps_the_path(self, opened: Opened, path: bytes) -> None:
        store = opened()
        upload(store, sending(made(1, path), None, 3), b"abc")
        assert [snapshot.path for snapshot in store.catalogue().snapshots] == [path]
        assert read(store, FULL) == b"abc"

    def test_is_seen_below_its_prefix_alone(self, opened: Opened) -> None:
        upload(opened("one"), sending(made(1), None, 1), b"1")
        upload(opened("one-more"), sending(made(2), None, 1), b"2")
        assert [s.uuid for s in opened("one").catalogue().snapshots] == [uuid(1)]
        assert {s.uuid for s in opened("").catalogue().snapshots} == {uuid(1), uuid(2)}

    def test_lies_at_the_top_of_the_bucket_without_a_prefix(self, opened: Opened) -> None:
        upload(opened(""), sending(made(1), None, 1), b"1")
        assert f"home/1/{uuid_text(uuid(1))}_None" in list_keys(opened)

    def test_needs_the_mode(self, opened: Opened) -> None:
        store = opened(mode=Mode.READ)
        with pytest.raises(UsageError), store.receive(sending(made(1), None, 1)):
            pass
        with pytest.raises(UsageError):
            opened(mode=Mode.APPEND).delete(Step(Action.DELETE, b"home/1", made(1), diff=FULL))

    def test_never_takes_the_place_of_what_is_there(self, opened: Opened) -> None:
        store = opened()
        if not opened.bucket.server.traits.honours_conditions:
            upload(store, sending(made(1), None, 3), b"abc")
            return
        upload(opened(), sending(made(1), None, 3), b"abc")
        with pytest.raises(ConflictError, match="another run"):
            upload(store, sending(made(1), None, 3), b"abd")
        assert read(opened(), FULL) == b"abc"


class TestAnInterruptedUpload:
    SIZE = 23 * MIB

    def test_has_no_key_and_lists_as_a_partial(self, opened: Opened) -> None:
        store = opened()
        interrupted(store, sending(made(1), None, self.SIZE), bytes_of(1, self.SIZE), 22 * MIB)
        found = store.catalogue()
        assert found.snapshots == ()
        (partial,) = found.partials
        assert (partial.path, partial.uuid) == (b"home/1", uuid(1))
        assert 0 < (partial.size or 0) <= 20 * MIB
        store.discard(partial)
        assert opened.bucket.uploads() == []
        assert store.catalogue().partials == ()

    @pytest.mark.parametrize("part", [5 * MIB, 7 * MIB, 100 * MIB])
    def test_is_gone_on_with(self, opened: Opened, part: int) -> None:
        data = bytes_of(1, self.SIZE)
        step = sending(made(1), None, self.SIZE)
        interrupted(opened(), step, data, 22 * MIB)
        store = opened(part=part)
        (partial,) = store.catalogue().partials
        assert upload(store, step, data) >= (partial.size or 0) > 0  # more may have come in since
        assert opened.bucket.uploads() == []
        again = opened(mode=Mode.READ)
        assert read(again, FULL) == data
        assert again.check(FULL).wrong == ""

    def test_is_gone_on_with_again_and_again(self, opened: Opened) -> None:
        data = bytes_of(2, self.SIZE)
        step = sending(made(1), None, self.SIZE)
        for until in (6 * MIB, 13 * MIB, self.SIZE):
            interrupted(opened(), step, data, until)
            assert len(opened.bucket.uploads()) == 1
        assert upload(opened(), step, data) >= 15 * MIB
        assert read(opened(), FULL) == data

    def test_of_another_stream_is_sent_anew_where_that_differs(self, opened: Opened) -> None:
        data = bytearray(bytes_of(3, self.SIZE))
        step = sending(made(1), None, self.SIZE)
        interrupted(opened(), step, bytes(data), 21 * MIB)
        data[7 * MIB] ^= 1
        if opened.bucket.server.name == "rclone":  # takes no part twice
            with pytest.raises(ReceiveError, match=r"of another stream.*run again"):
                upload(opened(), step, bytes(data))
            assert upload(opened(), step, bytes(data)) == 0
        else:
            assert 5 * MIB <= upload(opened(), step, bytes(data)) <= 15 * MIB
        assert read(opened(), FULL) == data

    def test_that_never_began_leaves_nothing(self, opened: Opened) -> None:
        interrupted(opened(), sending(made(1), None, 10), b"x" * 10, 5)
        assert opened.bucket.uploads() == []
        assert list_keys(opened) == []


def test_a_stream_longer_than_known_has_few_enough_parts() -> None:
    """The last parts double in length."""
    lengths = [uploading.length_of_part(count, 5 * MIB) for count in range(uploading.MAX_PARTS)]
    assert set(lengths[:9000]) == {5 * MIB}
    assert sum(lengths) > 5 * MIB * 1024 * 100
    assert uploading.part_bytes(5 * 1024**4, 5 * MIB) * uploading.MAX_PARTS >= 5 * 1024**4
    assert uploading.part_bytes(None, 7 * MIB) == 7 * MIB


class TestDamage:
    DATA = bytes_of(9, 12 * MIB)

    def stored(self, opened: Opened) -> str:
        upload(opened(), sending(made(1), None, len(self.DATA)), self.DATA)
        (key,) = (key for key in list_keys(opened) if not key.endswith(".json"))
        return key

    def put(self, opened: Opened, key: str, data: bytes) -> None:
        with opened.client() as client:
            client.put_object(Bucket=opened.bucket.name, Key=key, Body=data)

    def test_of_one_bit_is_found_at_the_end(self, opened: Opened) -> None:
        key = self.stored(opened)
        bad = bytearray(self.DATA)
        bad[6 * MIB] ^= 4
        self.put(opened, key, bytes(bad))
        with pytest.raises(SendError, match="SHA-256"):
            read(opened(mode=Mode.READ), FULL)

    def test_that_makes_it_shorter_is_found_without_reading(self, opened: Opened) -> None:
        key = self.stored(opened)
        self.put(opened, key, self.DATA[:-1])
        store = opened(mode=Mode.READ)
        assert "bytes" in store.check(FULL).wrong
        with pytest.raises(SendError, match="SHA-256"):
            read(store, FULL)

    def test_of_the_record_is_told(self, opened: Opened) -> None:
        self.stored(opened)
        (key,) = (key for key in list_keys(opened) if key.endswith(".json"))
        self.put(opened, key, b"{}")
        store = opened(mode=Mode.READ)
        with pytest.raises(SendError, match="damaged record"):
            store.check(FULL)
        with pytest.raises(SendError, match="damaged record"):
            read(store, FULL)

    def test_while_it_is_read_is_no_other_object(self, opened: Opened) -> None:
        key = self.stored(opened)
        store = opened(mode=Mode.READ)
        self.put(opened, key, bytes(len(self.DATA)))
        with pytest.raises(SendError):
            read(store, FULL)


class TestDeleting:
    def test_goes_to_the_trash_with_the_record(self, opened: Opened) -> None:
        store = opened()
        upload(store, sending(made(1), None, 3), b"abc")
        before = list_keys(opened)
        store.catalogue()
        store.delete(Step(Action.DELETE, b"home/1", made(1), diff=FULL))
        assert list_keys(opened) == sorted(f"trash/{key}" for key in before)
        assert store.catalogue().snapshots == ()
        assert opened("").catalogue().snapshots == ()

    def test_of_a_large_one_is_copied_in_parts(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not opened.bucket.server.traits.copies_parts:
            return
        from buttersink.stores.s3 import trash

        monkeypatch.setattr(trash, "_COPY", 10 * MIB)
        monkeypatch.setattr(trash, "_PART", 6 * MIB)
        data = bytes_of(4, 13 * MIB)
        store = opened()
        upload(store, sending(made(1), None, len(data)), data)
        store.catalogue()
        store.delete(Step(Action.DELETE, b"home/1", made(1), diff=FULL))
        (key,) = (key for key in list_keys(opened, "trash/") if not key.endswith(".json"))
        with opened.client() as client:
            assert client.get_object(Bucket=opened.bucket.name, Key=key)["Body"].read() == data

    def test_of_what_is_not_there_is_an_error(self, opened: Opened) -> None:
        with pytest.raises(DeleteError, match="no such diff"):
            opened().delete(Step(Action.DELETE, b"home/1", made(1), diff=FULL))


class TestWhatOthersWrote:
    def test_by_0_6_is_listed_and_read(self, opened: Opened) -> None:
        key = f"pre/home/100%41/{uuid_text(uuid(1)).upper()}_None"
        with opened.client() as client:
            client.put_object(Bucket=opened.bucket.name, Key=key, Body=KERNEL_STREAM)
            client.put_object(Bucket=opened.bucket.name, Key="pre/home/100%41.bs", Body=b"x")
        store = opened(mode=Mode.READ)
        (snapshot,) = store.catalogue().snapshots
        assert (snapshot.path, snapshot.generation) == (b"home/100%41", 0)
        assert read(store, FULL) == KERNEL_STREAM
        assert "nothing was recorded" in store.check(FULL).note
        assert opened.told == []

    @pytest.mark.parametrize(
        "damaged",
        [KERNEL_STREAM[:-1], KERNEL_STREAM[:200] + b"x" + KERNEL_STREAM[201:], b"", b"no stream"],
    )
    def test_and_is_damaged_is_found_at_the_latest_at_the_end(
        self, opened: Opened, damaged: bytes
    ) -> None:
        """Nothing was recorded of it, but a stream has checksums of its own."""
        key = f"pre/home/1/{uuid_text(uuid(1))}_None"
        with opened.client() as client:
            client.put_object(Bucket=opened.bucket.name, Key=key, Body=damaged)
        with pytest.raises(SendError, match="send stream") as caught:
            read(opened(mode=Mode.READ), FULL)
        assert os.fsdecode(caught.value.where or b"") == key

    def test_that_is_no_diff_is_told_of_once(self, opened: Opened) -> None:
        with opened.client() as client:
            for key in ("pre/photo.jpg", "pre/a/b"):
                client.put_object(Bucket=opened.bucket.name, Key=key, Body=b"x")
        assert opened(mode=Mode.READ).catalogue().snapshots == ()
        assert any("2 other objects" in line for line in opened.told)

    def test_and_is_archived_is_told_with_what_to_do(self, opened: Opened) -> None:
        if opened.bucket.server.name != "moto":
            return  # the others have no such class
        upload(opened(storage_class="GLACIER"), sending(made(1), None, 3), b"abc")
        store = opened(mode=Mode.READ)
        with pytest.raises(SendError, match="restore-object"):
            read(store, FULL)
        assert "restore-object" in store.catalogue().unreadable[FULL]


class TestASingleSnapshot:
    def test_is_the_only_one_and_has_the_diffs_of_all(self, opened: Opened) -> None:
        store = opened()
        upload(store, sending(made(1, b"a"), None, 3), b"abc")
        upload(store, sending(made(2, b"b"), made(1), 3), b"abd")
        found = opened("pre/b", role=Role.SOURCE, single=True).catalogue()
        assert [s.path for s in found.snapshots] == [b"b"]
        assert [s.path for s in found.outside] == [b"a"]
        assert set(found.diffs) == {FULL, STEP}
        found = opened("pre/b", role=Role.LISTING, single=True).catalogue()
        assert [s.path for s in found.snapshots] == [b"b"]

    @pytest.mark.parametrize("name", [b"\xff", b"100%", b"two\nlines"])
    @pytest.mark.parametrize("role", [Role.SOURCE, Role.LISTING])
    def test_has_a_name_that_keys_cannot_hold(
        self, opened: Opened, name: bytes, role: Role
    ) -> None:
        store = opened()
        upload(store, sending(made(1, name), None, 3), b"abc")
        upload(store, sending(made(2, b"b"), made(1), 3), b"abd")
        place = f"pre/{name.decode('utf-8', 'surrogateescape')}"
        found = opened(place, role=role, single=True).catalogue()
        assert [s.path for s in found.snapshots] == [name]

    def test_no_destination_has_such_a_name(self, opened: Opened) -> None:
        with pytest.raises(LocationError, match="keys in a bucket are UTF-8"):
            opened("pre/\udcff", single=True)

    def test_that_is_not_there_is_an_error(self, opened: Opened) -> None:
        with pytest.raises(LocationError, match="no such snapshot"):
            opened("pre/b", role=Role.SOURCE, single=True)


class TestRefusals:
    def refused(self, opened: Opened, environment: Mapping[str, str]) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(LocationError) as error:
                opened()
        return str(error.value)

    @pytest.mark.usefixtures("opened")
    def test_no_such_bucket(self) -> None:
        store = S3Store(S3Location("no-such-bucket", "", all_below=True), Mode.READ, Role.SOURCE)
        with closing(store), pytest.raises(LocationError, match="no such bucket"):
            store.catalogue()

    def test_a_wrong_secret(self, opened: Opened) -> None:
        if opened.bucket.server.traits.verifies_signatures:
            said = self.refused(opened, {"AWS_SECRET_ACCESS_KEY": "wrong"})
            assert "secret key is wrong" in said or "does not allow" in said, said

    def test_an_unknown_key(self, opened: Opened) -> None:
        if opened.bucket.server.traits.verifies_signatures:
            said = self.refused(opened, {"AWS_ACCESS_KEY_ID": "NOBODY"})
            assert "access key" in said or "does not allow" in said, said

    def test_no_credentials(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", os.devnull)
        assert "no credentials" in self.refused(opened, {})

    def test_no_server(self, opened: Opened) -> None:
        said = self.refused(opened, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
        assert "Check the network" in said

    def test_no_such_profile(self, opened: Opened) -> None:
        assert "AWS_PROFILE" in self.refused(opened, {"AWS_PROFILE": "nobody"})

    def test_an_endpoint_that_is_no_url(self, opened: Opened) -> None:
        assert "nonsense" in self.refused(opened, {"AWS_ENDPOINT_URL": "nonsense"})

    def test_a_class_that_the_server_lacks(self, opened: Opened) -> None:
        if opened.bucket.server.name == "ceph":
            with pytest.raises(ReceiveError, match="cannot begin the upload"):
                upload(opened(storage_class="NONSENSE"), sending(made(1), None, 1), b"1")
