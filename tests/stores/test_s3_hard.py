"""The S3 store where it is hard: broken and silent networks, two runs at once, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from buttersink.errors import ConflictError, DeleteError, Error, ReceiveError, SendError
from buttersink.planner import Action
from buttersink.planner.plan import Step
from buttersink.stores.base import Mode
from buttersink.stores.s3 import connection, listing
from tests.stores.test_s3_store import (
    FULL,
    MIB,
    STEP,
    Opened,
    bytes_of,
    interrupted,
    made,
    read,
    sending,
    upload,
    uuid,
)
from tests.support.cuttingproxy import CuttingProxy
from tests.support.httpfront import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from buttersink.stores.s3 import S3Store
    from tests.conftest import StartedServer
    from tests.support.s3servers import Bucket, Server

POINTS = 5  # of each kind, on each server
IN_FLIGHT = 5  # parts: four that are sent, and one that is filled


class Place(Opened):
    """A bucket, opened by whatever way to its server is taken."""

    def __init__(self, bucket: Bucket, patch: pytest.MonkeyPatch) -> None:
        super().__init__(bucket, [])
        self._patch = patch
        self.by(bucket.server)

    def by(self, server: Server) -> None:
        """Open the bucket as this server from now on."""
        for name, value in server.environment().items():
            self._patch.setenv(name, value)

    def by_endpoint(self, endpoint: str) -> None:
        """Open the bucket through a proxy from now on."""
        self.by(replace(self.bucket.server, endpoint=endpoint))

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def copies(self, ending: str = "") -> list[str]:
        """Return the keys of diffs that are not deleted."""
        keys = self.bucket.keys("pre/")
        return [key for key in keys if key.endswith(ending) and not key.endswith(".json")]


@pytest.fixture
def place(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    found = Place(s3, monkeypatch)
    yield found
    found.close()


@pytest.fixture
def moto_place(
    s3_servers: StartedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Place]]:
    """Open a bucket made with these arguments on the server that has versions and locks."""
    places = []

    def make(name: str, **arguments: Any) -> Place:  # noqa: ANN401
        from tests.support.s3servers import Bucket

        server = s3_servers("moto")
        with closing(server.client()) as client:
            client.create_bucket(Bucket=name, **arguments)
        places.append(Place(Bucket(server, name), monkeypatch))
        return places[-1]

    yield make
    for each in places:
        each.close()


@pytest.fixture
def proxy(place: Place) -> Iterator[CuttingProxy]:
    with CuttingProxy(place.bucket.server.endpoint) as proxy:
        place.by_endpoint(proxy.endpoint)
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try twice only."""
    monkeypatch.setattr(connection, "_ATTEMPTS", 2)


def requests_of(kind: str) -> int:
    return sum(thread.name == kind for thread in threading.enumerate())


def assert_threads_end(kind: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while requests_of(kind):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def delete(store: S3Store) -> None:
    store.catalogue()
    store.delete(Step(Action.DELETE, b"home/1", made(1), diff=FULL))


@pytest.mark.waits
class TestACutNetwork:
    SIZE = 40 * MIB

    def test_is_ridden_out_by_an_upload(self, place: Place, proxy: CuttingProxy) -> None:
        size = 2 * self.SIZE  # some cuts find several parts on their way
        data, random = bytes_of(1, size), Random(1)
        store = place()
        view, before = memoryview(data), proxy.connections
        with store.receive(sending(made(1), None, size)) as sink:
            for start in range(0, size, 4 * MIB):
                proxy.cut_after(random.randrange(3 * MIB))
                sink.write(view[start : start + 4 * MIB])
        assert proxy.connections - before >= 6
        assert place.bucket.uploads() == []
        assert read(place(mode=Mode.READ), FULL) == data

    def test_is_ridden_out_by_a_download(self, place: Place, proxy: CuttingProxy) -> None:
        data, random = bytes_of(2, self.SIZE), Random(2)
        upload(place(), sending(made(1), None, self.SIZE), data)
        store = place(mode=Mode.READ)
        passed, connections = proxy.passed, proxy.connections
        got = bytearray()
        with store.send(FULL) as chunks:
            for number in range(10):
                proxy.cut_after(random.randrange(3 * MIB))
                while len(got) < number * 4 * MIB:
                    got += next(chunks)
            for chunk in chunks:
                got += chunk
        assert got == data
        assert proxy.connections - connections >= 2
        # What is lost by a cut is what the system holds of four connections.
        assert proxy.passed - passed < self.SIZE + 10 * 4 * MIB // 2

    def test_in_a_record_is_ridden_out(self, place: Place) -> None:
        data = bytes_of(5, 6 * MIB)
        upload(place(), sending(made(1), None, len(data)), data)
        with Front(place.bucket.server.endpoint, lambda *_: 0) as front:
            front.breaks = lambda method, path: method == "GET" and path.endswith(".json")
            place.by_endpoint(front.endpoint)
            assert read(place(mode=Mode.READ), FULL) == data
            assert front.broken == 1

    def test_for_seconds_is_ridden_out(self, place: Place, proxy: CuttingProxy) -> None:
        data = bytes_of(3, 12 * MIB)
        store = place()
        proxy.cut_after(7 * MIB, then_refuse=True)
        timer = threading.Timer(1.5, proxy.accept)
        timer.start()
        upload(store, sending(made(1), None, len(data)), data)
        timer.join()
        assert read(place(mode=Mode.READ), FULL) == data

    @pytest.mark.usefixtures("impatient")
    def test_that_stays_away_ends_an_upload_and_the_next_goes_on(
        self, place: Place, proxy: CuttingProxy
    ) -> None:
        data, random = bytes_of(4, self.SIZE), Random(4)
        for point in range(POINTS):
            prefix, part = f"at-{point}", random.choice((5, 6, 8)) * MIB
            step = sending(made(1), None, self.SIZE)
            proxy.accept()
            store = place(prefix, part=part)
            before, cut = proxy.passed, random.randrange(self.SIZE)
            proxy.cut_after(cut, then_refuse=True)
            with pytest.raises(ReceiveError) as error:
                upload(store, step, data)
            assert "\n" not in str(error.value)
            assert "Check the network" in str(error.value)
            sent = proxy.passed - before
            assert_threads_end("upload")
            proxy.accept()
            store = place(prefix, part=random.choice((5, 7, 16)) * MIB)
            assert store.catalogue().snapshots == ()
            before = proxy.passed
            resumed = upload(store, step, data)
            assert resumed >= sent - IN_FLIGHT * part - MIB // 4  # and what is not parts
            assert proxy.passed - before <= self.SIZE - resumed + MIB
            assert place.bucket.uploads() == []
            again = place(prefix, mode=Mode.READ)
            assert read(again, FULL) == data
            assert again.check(FULL).wrong == ""

    @pytest.mark.usefixtures("impatient")
    def test_that_stays_away_ends_a_download(self, place: Place, proxy: CuttingProxy) -> None:
        data, random = bytes_of(5, 20 * MIB), Random(5)
        upload(place(), sending(made(1), None, len(data)), data)
        for _ in range(POINTS):
            proxy.accept()
            store = place(mode=Mode.READ)
            proxy.cut_after(random.randrange(len(data)), then_refuse=True)
            started = time.monotonic()
            with pytest.raises(SendError, match="Check the network") as error:
                read(store, FULL)
            assert "\n" not in str(error.value)
            assert time.monotonic() - started < 10
            assert_threads_end("download")
        proxy.accept()
        assert read(place(mode=Mode.READ), FULL) == data


@pytest.fixture
def paused(place: Place) -> Iterator[Callable[[float], None]]:
    """Let the server be silent for so many seconds from now, or until the test is over."""
    server, timers = place.bucket.server, list[threading.Timer]()

    def pause(seconds: float) -> None:
        server.pause()
        timers.append(threading.Timer(seconds, server.resume))
        timers[-1].start()

    yield pause
    for timer in timers:
        timer.cancel()
        timer.join()
    server.resume()


@pytest.mark.waits
class TestASilentServer:
    DATA = bytes_of(6, 22 * MIB)
    STEP = sending(made(1), None, len(DATA))

    @pytest.fixture(autouse=True)
    def patience(self, impatient: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:  # noqa: ARG002
        """Wait for so many seconds, in stores opened from now on, in place of minutes."""

        def wait(seconds: int) -> None:
            monkeypatch.setattr(connection, "_READ", seconds)
            monkeypatch.setattr(connection, "_CONNECT", seconds)

        wait(2)
        return wait

    def test_ends_an_upload_and_the_next_goes_on(
        self, place: Place, paused: Callable[[float], None], patience: Callable[[int], None]
    ) -> None:
        store = place()
        view, started = memoryview(self.DATA), time.monotonic()
        with (  # noqa: PT012  it is silent in the middle
            pytest.raises(ReceiveError, match="Check the network"),
            store.receive(self.STEP) as sink,
        ):
            sink.write(view[: 12 * MIB])
            paused(60)
            sink.write(view[12 * MIB :])
        assert time.monotonic() - started < 30
        place.bucket.server.resume()
        assert_threads_end("upload")
        patience(60)
        with suppress(ReceiveError):  # what the first has sent may reach the server only now
            upload(place(part=9 * MIB), self.STEP, self.DATA)
        if FULL not in place().catalogue().diffs:
            upload(place(part=9 * MIB), self.STEP, self.DATA)
        assert read(place(mode=Mode.READ), FULL) == self.DATA
        assert place.bucket.uploads() == []

    def test_ends_a_download(self, place: Place, paused: Callable[[float], None]) -> None:
        data = bytes_of(6, 120 * MIB)  # of which 80 can be under way
        upload(place(), sending(made(1), None, len(data)), data)
        store, started = place(mode=Mode.READ), time.monotonic()
        with store.send(FULL) as chunks:
            next(chunks)
            paused(60)
            with pytest.raises(SendError):  # what came before it is read first
                for _chunk in chunks:
                    pass
        assert time.monotonic() - started < 30
        place.bucket.server.resume()
        assert_threads_end("download")

    def test_that_speaks_again_is_waited_for(
        self,
        place: Place,
        paused: Callable[[float], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(connection, "_ATTEMPTS", 5)
        store = place()
        paused(3)
        upload(store, self.STEP, self.DATA)
        store = place(mode=Mode.READ)
        paused(3)
        assert read(store, FULL) == self.DATA


class TestTwoRunsAtOnce:
    DATA = bytes_of(7, 17 * MIB)
    STEP = sending(made(1), None, len(DATA))

    def assert_right(self, place: Place) -> None:
        (key,) = place.copies()
        store = place(mode=Mode.READ)
        assert read(store, FULL) == self.DATA
        assert store.check(FULL).wrong == ""
        assert [s.path for s in store.catalogue().snapshots] == [b"home/1"]
        assert key.startswith("pre/home/1/")

    def both(self, stores: list[S3Store], starts: tuple[int, int]) -> list[Error]:
        """Send by both, a bit of one and a bit of the other; return what went wrong."""
        errors: list[Error] = []
        view = memoryview(self.DATA)

        def one(store: S3Store, before: int) -> None:
            try:
                with store.receive(self.STEP) as sink:
                    sink.write(view[:before])
                    barrier.wait()
                    sink.write(view[before:])
            except Error as error:
                errors.append(error)

        barrier = threading.Barrier(2, timeout=60)
        threads = [
            threading.Thread(target=one, args=(store, start))
            for store, start in zip(stores, starts, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(isinstance(error, (ConflictError, ReceiveError)) for error in errors)
        return errors

    @pytest.mark.parametrize("parts", [(5, 5), (5, 7)])
    def test_with_an_upload_each(self, place: Place, parts: tuple[int, int]) -> None:
        stores = [place(part=part * MIB) for part in parts]
        assert len(self.both(stores, (8 * MIB, 12 * MIB))) <= 1
        self.assert_right(place)
        assert place(mode=Mode.READ).catalogue().partials == ()

    @pytest.mark.parametrize("until", [0, 6 * MIB])
    @pytest.mark.parametrize("parts", [(5, 5), (5, 7)])
    def test_that_go_on_with_the_same_upload(
        self, place: Place, parts: tuple[int, int], until: int
    ) -> None:
        if until:
            interrupted(place(), self.STEP, self.DATA, until)
        else:
            with place.client() as client:
                client.create_multipart_upload(
                    Bucket=place.bucket.name, Key="pre/home/1/" + _name(1)
                )
        stores = [place(part=part * MIB) for part in parts]
        errors = self.both(stores, (5 * MIB, 13 * MIB))
        if len(errors) == 2:  # neither could; but the next can
            self.upload_again(place)
        self.assert_right(place)

    def upload_again(self, place: Place) -> None:
        """Upload by another run, or by the one after it, which does not go on with what is left."""
        with suppress(ReceiveError):
            upload(place(), self.STEP, self.DATA)
        if not place.copies():
            upload(place(), self.STEP, self.DATA)

    def test_that_left_parts_after_the_last_one(self, place: Place) -> None:
        """As two runs with parts of other sizes can."""
        target = {"Bucket": place.bucket.name, "Key": "pre/home/1/" + _name(1)}
        with place.client() as client:
            begun = client.create_multipart_upload(**target)["UploadId"]
            for number, mib in enumerate((7, 5, 5, 2), start=1):
                body = bytes_of(number, mib * MIB)
                client.upload_part(**target, UploadId=begun, PartNumber=number, Body=body)
        self.upload_again(place)
        self.assert_right(place)
        assert place.bucket.uploads() == []

    def test_that_left_a_part_on_its_way(self, place: Place) -> None:
        """Nothing is listed yet that tells how long parts are; rclone takes none twice."""
        target = {"Bucket": place.bucket.name, "Key": "pre/home/1/" + _name(1)}
        with place.client() as client:
            begun = client.create_multipart_upload(**target)["UploadId"]
            with place(part=7 * MIB).receive(self.STEP) as sink:
                body = self.DATA[: 5 * MIB]
                client.upload_part(**target, UploadId=begun, PartNumber=1, Body=body)
                sink.write(memoryview(self.DATA))
        self.assert_right(place)
        assert place.bucket.uploads() == []

    def test_one_after_the_other_has_not_seen(self, place: Place) -> None:
        """The second has listed before the first wrote; the stream is another one."""
        late = place()
        upload(place(), self.STEP, self.DATA)
        other = bytes_of(8, len(self.DATA))
        if place.bucket.server.traits.honours_conditions:
            with pytest.raises(ConflictError, match="another run"):
                upload(late, self.STEP, other)
            self.assert_right(place)
            assert place.bucket.uploads() == []
        else:
            upload(late, self.STEP, other)
            store = place(mode=Mode.READ)
            assert read(store, FULL) == other
            assert store.check(FULL).wrong == ""

    def test_an_upload_that_ends_while_it_is_listed(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        interrupted(place(), self.STEP, self.DATA, 12 * MIB)
        uploads = listing._uploads  # noqa: SLF001  the moment between two requests

        def and_is_gone(*arguments: Any) -> Any:  # noqa: ANN401
            found = list(uploads(*arguments))
            with place.client() as client:
                for key, upload_id in place.bucket.uploads():
                    client.abort_multipart_upload(
                        Bucket=place.bucket.name, Key=key, UploadId=upload_id
                    )
            return found

        monkeypatch.setattr(listing, "_uploads", and_is_gone)
        store = place()
        store.catalogue()
        monkeypatch.undo()
        place.by(place.bucket.server)
        upload(store, self.STEP, self.DATA)
        self.assert_right(place)

    def test_an_upload_that_ends_before_it_is_discarded(self, place: Place) -> None:
        store = place()
        interrupted(store, self.STEP, self.DATA, 12 * MIB)
        (partial,) = store.catalogue().partials
        place().discard(partial)
        store.discard(partial)
        assert place.bucket.uploads() == []


def _name(number: int) -> str:
    from buttersink.catalogue import uuid_text

    return f"{uuid_text(uuid(number))}_None"


class TestAnUploadWithGaps:
    """Of several parts at once any can be the one that did not arrive."""

    DATA = bytes_of(9, 27 * MIB)
    STEP = sending(made(1), None, len(DATA))

    @pytest.mark.parametrize("missing", [1, 2, 4, 6])
    def test_is_gone_on_with(self, place: Place, missing: int) -> None:
        with place.client() as client:
            target = {"Bucket": place.bucket.name, "Key": "pre/home/1/" + _name(1)}
            begun = client.create_multipart_upload(**target)["UploadId"]
            for number in range(1, 7):
                if number != missing:
                    body = self.DATA[(number - 1) * 5 * MIB : number * 5 * MIB]
                    client.upload_part(**target, UploadId=begun, PartNumber=number, Body=body)
        store = place(part=8 * MIB)
        left = 2 * MIB if missing == 6 else 5 * MIB
        assert upload(store, self.STEP, self.DATA) == len(self.DATA) - left
        assert read(place(mode=Mode.READ), FULL) == self.DATA


@pytest.mark.waits
class TestABusyServer:
    def test_is_asked_again(self, place: Place) -> None:
        """Every kind of request is refused at first."""
        seen: dict[str, int] = {}

        def wrong(method: str, path: str) -> int:
            query = path.partition("?")[2]
            kind = method + "".join(
                name
                for name in ("list-type", "uploads", "partNumber", "uploadId", ".json", "trash/")
                if name in (path if "." in name or "/" in name else query)
            )
            seen[kind] = seen.get(kind, 0) + 1
            return 0 if seen[kind] > 1 else 503 if len(seen) % 2 else 500

        data = bytes_of(10, 6 * MIB)
        with Front(place.bucket.server.endpoint, wrong) as front:
            place.by_endpoint(front.endpoint)
            interrupted(place(), sending(made(1), None, len(data)), data, 5 * MIB)
            store = place()
            upload(store, sending(made(1), None, len(data)), data)
            store = place()
            assert read(store, FULL) == data
            delete(store)
            assert store.catalogue().snapshots == ()
            assert front.refused >= 9
        assert place.bucket.uploads() == []

    def test_several_times_is_asked_again(self, place: Place) -> None:
        left = [503, 500, 503]

        def wrong(method: str, path: str) -> int:
            return left.pop() if left and method == "PUT" and "partNumber=1" in path else 0

        with Front(place.bucket.server.endpoint, wrong) as front:
            place.by_endpoint(front.endpoint)
            upload(place(), sending(made(1), None, 3), b"abc")
            assert front.refused == 3
            place.by(place.bucket.server)
        assert read(place(mode=Mode.READ), FULL) == b"abc"

    @pytest.mark.usefixtures("impatient")
    def test_for_ever_is_told(self, place: Place) -> None:
        with Front(place.bucket.server.endpoint, lambda m, _path: 503 * (m == "PUT")) as front:
            place.by_endpoint(front.endpoint)
            with pytest.raises(ReceiveError, match="SlowDown"):
                upload(place(), sending(made(1), None, 3), b"abc")

    def test_that_loses_its_answer_is_not_taken_for_another_run(self, place: Place) -> None:
        """The upload is completed, and the client hears of a failure."""
        with Front(place.bucket.server.endpoint, lambda *_: 0) as front:
            front.loses = lambda method, path: method == "POST" and "uploadId" in path
            place.by_endpoint(front.endpoint)
            data = bytes_of(11, 6 * MIB)
            upload(place(), sending(made(1), None, len(data)), data)
            assert front.lost == 1
            place.by(place.bucket.server)
        store = place(mode=Mode.READ)
        assert read(store, FULL) == data
        assert store.check(FULL).wrong == ""


class TestVersions:
    def versioned(self, make: Callable[..., Place], name: str) -> Place:
        place = make(name)
        with place.client() as client:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return place

    def markers(self, place: Place) -> list[str]:
        with place.client() as client:
            found = client.list_object_versions(Bucket=place.bucket.name)
        return [each["Key"] for each in found.get("DeleteMarkers", ())]

    def test_that_are_deleted_are_not_listed_and_can_be_sent_again(
        self, moto_place: Callable[..., Place]
    ) -> None:
        self.deleted_and_sent_again(self.versioned(moto_place, "versioned"))

    def test_on_every_server_that_has_them(self, place: Place) -> None:
        if place.bucket.server.name != "ceph":
            return  # the others have none, or are tested above
        with place.client() as client:
            client.put_bucket_versioning(
                Bucket=place.bucket.name, VersioningConfiguration={"Status": "Enabled"}
            )
        self.deleted_and_sent_again(place)

    def deleted_and_sent_again(self, place: Place) -> None:
        upload(place(), sending(made(1), None, 3), b"abc")
        delete(place())
        assert len(self.markers(place)) == 2  # of the diff and its record
        store = place()
        assert store.catalogue().snapshots == ()
        assert len(place.bucket.keys("trash/")) == 2
        upload(store, sending(made(1), None, 3), b"abd")
        assert read(place(), FULL) == b"abd"
        delete(place())
        assert place().catalogue().snapshots == ()

    def test_under_a_lock_are_deleted_by_a_marker(self, moto_place: Callable[..., Place]) -> None:
        place = moto_place("locked", ObjectLockEnabledForBucket=True)
        upload(place(), sending(made(1), None, 3), b"abc")
        (key,) = place.copies()
        until = datetime.now(UTC) + timedelta(days=1)
        with place.client() as client:
            client.put_object_retention(
                Bucket="locked", Key=key, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until}
            )
        delete(place())
        assert place().catalogue().snapshots == ()
        upload(place(), sending(made(1), None, 3), b"abc")
        assert read(place(), FULL) == b"abc"
        with place.client() as client:
            found = client.list_object_versions(Bucket="locked", Prefix=key)["Versions"]
            kept = next(each for each in found if not each["IsLatest"] and each["Key"] == key)
            with pytest.raises(ClientError, match="AccessDenied"):
                client.delete_object(Bucket="locked", Key=key, VersionId=kept["VersionId"])

    def test_are_written_where_all_are_retained(self, moto_place: Callable[..., Place]) -> None:
        place = moto_place("retained", ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        with place.client() as client:
            client.put_object_lock_configuration(
                Bucket="retained",
                ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
            )
        upload(place(), sending(made(1), None, 3), b"abc")
        assert read(place(), FULL) == b"abc"

    def test_records_can_be_written_under_a_lock(self, place: Place) -> None:
        """Amazon's wants a digest of what is put where there is a retention."""
        seen: list[str] = []

        def look(method: str, path: str) -> int:
            if method == "PUT" and ".json" in path:
                seen.append(path)
            return 0

        with Front(place.bucket.server.endpoint, look) as front:
            place.by_endpoint(front.endpoint)
            upload(place(), sending(made(1), None, 3), b"abc")
            (headers,) = (h for m, p, h in front.headers if m == "PUT" and ".json" in p)
        assert "content-md5" in headers


class TestWhatIsNotAllowed:
    """By a policy, on a server that has a second user."""

    ALL = (
        *("s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"),
        *("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
    )

    def without(self, place: Place, *refused: str) -> bool:
        if place.bucket.server.guest is None:
            return False
        place.bucket.let_guest(*(action for action in self.ALL if action not in refused))
        place.by(place.bucket.server.as_guest())
        return True

    def test_to_delete_loses_nothing(self, place: Place) -> None:
        upload(place(), sending(made(1), None, 3), b"abc")
        if not self.without(place, "s3:DeleteObject"):
            return
        store = place()
        with pytest.raises(DeleteError, match="do not allow"):
            delete(store)
        store = place()
        assert [s.path for s in store.catalogue().snapshots] == [b"home/1"]
        assert read(store, FULL) == b"abc"

    @pytest.mark.parametrize(
        "refused", ["s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"]
    )
    def test_to_list_uploads_is_no_need(self, place: Place, refused: str) -> None:
        data = bytes_of(12, 7 * MIB)
        interrupted(place(), sending(made(1), None, len(data)), data, 6 * MIB)
        if not self.without(place, refused):
            return
        store = place()
        upload(store, sending(made(1), None, len(data)), data)
        upload(store, sending(made(2), made(1), 3), b"abc")
        store = place()
        assert len(store.catalogue().snapshots) == 2
        assert read(store, STEP) == b"abc"

    def test_to_put_is_told_soon(self, place: Place) -> None:
        if not self.without(place, "s3:PutObject"):
            return
        started = time.monotonic()
        with pytest.raises(ReceiveError, match="do not allow"):
            upload(place(), sending(made(1), None, 3), b"abc")
        assert time.monotonic() - started < 5

    def test_to_read_is_told(self, place: Place) -> None:
        upload(place(), sending(made(1), None, 3), b"abc")
        if not self.without(place, "s3:GetObject"):
            return
        with pytest.raises(SendError, match="do not allow"):
            read(place(mode=Mode.READ), FULL)


NAMES = [
    *(
        b" leading",
        b"trailing ",
        b"a//b".replace(b"//", b"/"),
        b"100%",
        b"%41",
        b"%ff",
        b"new\nline",
    ),
    *(
        b"\xff" * 255,
        b"\xef\xbf\xbe",
        b"\xef\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xc2\x85",
        b"\x7f",
        b"+ &",
    ),
    *("\u2028".encode(), "e\u0301".encode(), "\U0001f9c8".encode(), b"trash", b"None", b"~", b"\\"),
    *(b"a=b;c", b"<&>\"'", b"x.json", b"x.bs", b"..x", b"*?[", b"$HOME `id`", b"n" * 255),
]


class TestNames:
    def test_of_any_bytes_are_kept(self, place: Place) -> None:
        """Whole, interrupted, and deleted."""
        store, names = place(), dict(enumerate(NAMES, start=1))
        if place.bucket.server.name == "rclone":  # whose keys are names of files
            names = {n: name for n, name in names.items() if name != b"\xff" * 255}
        for number, name in names.items():
            upload(store, sending(made(number, name), None, 3), b"abc")
        found = store.catalogue()
        assert {s.uuid: s.path for s in found.snapshots} == {uuid(n): p for n, p in names.items()}
        for diff in found.diffs:
            assert read(store, diff) == b"abc"
            store.delete(Step(Action.DELETE, b"", diff=diff))
        assert store.catalogue().snapshots == ()
        assert len(place.bucket.keys("trash/pre/")) == 2 * len(names)

    def test_of_any_bytes_are_those_of_partials(self, place: Place) -> None:
        names = dict(enumerate(NAMES, start=1))
        if place.bucket.server.name == "rclone":
            names = {n: name for n, name in names.items() if name != b"\xff" * 255}
        store = place()
        for number, name in names.items():
            size = 5 * MIB + 1
            with pytest.raises(InterruptedError):
                upload(store, sending(made(number, name), None, size), bytes(size), until=size)
        found = store.catalogue()
        assert {p.uuid: p.path for p in found.partials} == {uuid(n): p for n, p in names.items()}
        for partial in found.partials:
            store.discard(partial)
        assert place.bucket.uploads() == []


_SENDER = """
import sys
from buttersink.catalogue import Exactness, Size, Snapshot, Uuid
from buttersink.location import S3Location
from buttersink.planner import Action
from buttersink.planner.plan import Step
from buttersink.stores.base import Mode, Role, Uploads
from buttersink.stores.s3 import S3Store
bucket, mebibytes = sys.argv[1], int(sys.argv[2])
uuid = Uuid(bytes(15) + bytes([mebibytes % 256]))
snapshot = Snapshot(uuid, uuid, None, None, 1, 1, b"big-%d" % mebibytes)
size = Size(mebibytes << 20, Exactness.MEASURED)
store = S3Store(S3Location(bucket, "p", all_below=True), Mode.APPEND, Role.DESTINATION, Uploads())
store.catalogue()
chunk = memoryview(bytes(1 << 20))
with store.receive(Step(Action.SEND, snapshot.path, snapshot, size=size)) as sink:
    for _ in range(mebibytes):
        sink.write(chunk)
"""


def peak_bytes(bucket: Bucket, mebibytes: int) -> int:
    """Return the most memory that an upload of so much had."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SENDER, bucket.name, str(mebibytes)],
        env={**os.environ, **bucket.server.environment()},
    )
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_memory_is_that_of_six_parts(s3: Bucket) -> None:
    base = peak_bytes(s3, 1)
    assert peak_bytes(s3, 256) < base + 6 * 16 * MIB + 8 * MIB


def test_a_document_of_a_record_is_one_line() -> None:
    from buttersink.stores.s3.record import Record

    text = Record(b"new\nline\xff", 1, bytes(32), 0, ()).to_json()
    assert text.count(b"\n") == 1
    assert json.loads(text)["size"] == 1
