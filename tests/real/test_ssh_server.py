"""The server against clients that ask for what they may not have, or make no sense: all refused."""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from buttersink.catalogue import uuid_text
from buttersink.remote.protocol import HEADER, MAGIC, Kind, encode
from tests.support.command import buttersink
from tests.support.loopfs import MIB, create_subvolume, show_subvolume, snapshot
from tests.support.rawclient import RawClient, raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root

STRANGER = "00112233-4455-6677-8899-aabbccddeeff"
SUDO = {"SUDO_UID": "1000", "SUDO_USER": "guest"}


@pytest.fixture
def place(make_filesystem: MakeFilesystem) -> Path:
    """A directory with one snapshot and one partial, and beside it another with a snapshot."""
    top = make_filesystem("there").mountpoint
    live = create_subvolume(top / "live")
    (live / "file").write_bytes(os.urandom(MIB))
    for name in ("mine", "other"):
        (top / name).mkdir()
        snapshot(live, top / name / name)
    create_subvolume(top / "mine" / f".buttersink-{STRANGER}.part")
    return top / "mine"


@pytest.fixture
def everything(place: Path) -> Iterator[None]:
    """Fail if anything at all has changed in and around the place."""
    before = state(place.parent)
    yield
    assert state(place.parent) == before


def state(top: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            found[path] = (status.st_mode, status.st_ino, size)
    return found


def wish_to_receive(path: str, **more: object) -> dict[str, object]:
    snapshot = {
        "uuid": STRANGER,
        "own": STRANGER,
        "parent": None,
        "received": None,
        "generation": 7,
        "created": 7,
        "path": "x",
        "id": 0,
        "size": None,
        "exclusive": None,
    }
    return {"snapshot": snapshot, "path": path, "parent": None, "clones": [], **more}


def opened(client: RawClient, mode: str) -> RawClient:
    role = "listing" if mode == "r" else "destination"
    assert client.greet(mode=mode, role=role)[0] is Kind.END
    return client


def assert_over(client: RawClient) -> None:
    """Fail unless the server has hung up with an error."""
    assert client.next() == (Kind.END, None)
    assert client.leave() != 0


def refused(answer: tuple[Kind, Any], *words: str) -> None:
    kind, document = answer
    assert kind is Kind.ERROR, answer
    text = " ".join(str(document[key]) for key in ("class", "what", "where", "why"))
    assert all(word in text for word in words), text


@pytest.mark.usefixtures("everything")
class TestMode:
    def test_more_than_allowed_is_not_opened(self, place: Path) -> None:
        for allowed, wished in (("r", "a"), ("r", "w"), ("a", "w")):
            with raw_client(place, allowed) as client:
                refused(client.greet(mode=wished, role="destination"), "UsageError", "not allowed")

    def test_each_request_is_held_against_it(self, place: Path) -> None:
        step = wish_to_receive("x")
        with raw_client(place, "r") as client:
            listed = opened(client, "r").catalogue()
            (mine,), (partial,) = listed["snapshots"], listed["partials"]
            for request in ("resumable", "receive", "release"):
                refused(client.ask(request, step=step), "UsageError", "opened in mode r")
            outside = listed["outside"][0]
            refused(client.ask("copy", snapshot=outside, path="y"), "opened in mode r")
            refused(client.ask("flush"), "opened in mode r")
            refused(client.ask("delete", snapshot=mine), "opened in mode r")
            refused(client.ask("discard", partial=partial), "opened in mode r")
            assert client.leave() == 0
        with raw_client(place, "a") as client:
            opened(client, "a").catalogue()
            refused(client.ask("delete", snapshot=mine), "opened in mode a")
            refused(client.ask("discard", partial=partial), "opened in mode a")
            replacing = wish_to_receive("mine", replaces=mine)
            for request in ("resumable", "receive"):
                refused(client.ask(request, step=replacing), "opened in mode a")
            copying = {"snapshot": outside, "path": "mine", "replaces": mine}
            refused(client.ask("copy", **copying), "opened in mode a")

    def test_a_server_that_is_allowed_more_does_what_was_wished(self, place: Path) -> None:
        with raw_client(place, "w") as client:
            (mine,) = opened(client, "a").catalogue()["snapshots"]
            refused(client.ask("delete", snapshot=mine), "opened in mode a")


ESCAPES = ["../x", "a/../../x", "/etc/x", "a//b", "./x", "x/", "", ".", "..", "a\0b", "\ud800"]


@pytest.mark.usefixtures("everything")
class TestPlace:
    @pytest.mark.parametrize("path", ESCAPES, ids=repr)
    @pytest.mark.parametrize("request_name", ["receive", "resumable", "release"])
    def test_paths_that_lead_out(self, place: Path, path: str, request_name: str) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            refused(client.ask(request_name, step=wish_to_receive(path)), "ProtocolError")
            assert_over(client)

    def test_links_on_the_way(self, place: Path) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            (place / "link").symlink_to(place.parent / "other")
            refused(client.ask("receive", step=wish_to_receive("link/x")), "link")
            refused(client.ask("resumable", step=wish_to_receive("link/x")), "link")
            (place / "link").unlink()

    @pytest.mark.parametrize(
        "path", [f".buttersink-{STRANGER}.part", f".buttersink-{STRANGER}.journal/x"]
    )
    def test_names_that_mean_something_else(self, place: Path, path: str) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            refused(client.ask("receive", step=wish_to_receive(path)), "what has not arrived")

    def test_snapshots_that_were_not_listed(self, place: Path) -> None:
        with raw_client(place, environment=SUDO) as client:
            listed = opened(client, "w").catalogue()
            assert [each["path"] for each in listed["snapshots"]] == ["mine"]
            assert "outside" not in listed
            text = uuid_text(show_subvolume(place.parent / "other" / "other").effective_uuid)
            assert text not in str(listed)
            mine = listed["snapshots"][0]["uuid"]
            unknown: list[tuple[str, dict[str, object]]] = [
                ("send", {"diff": {"to": text, "from": None}}),
                ("send", {"diff": {"to": mine, "from": text}}),
                ("send", {"diff": {"to": mine, "from": None, "clones": [text]}}),
                ("measure", {"diffs": [{"to": text, "from": None}]}),
                ("estimate", {"diffs": [{"to": mine, "from": text}]}),
                ("receive", {"step": wish_to_receive("x", parent=text)}),
                ("receive", {"step": wish_to_receive("x", clones=[text])}),
                ("copy", {"snapshot": {"uuid": text, "path": "other/other"}, "path": "x"}),
                ("delete", {"snapshot": {"uuid": text, "path": "other/other"}}),
                ("delete", {"snapshot": {"uuid": mine, "path": "other"}}),
                ("discard", {"partial": {"uuid": STRANGER, "path": "mine"}}),
                ("discard", {"partial": {"uuid": mine, "path": "mine"}}),
            ]
            for request, fields in unknown:
                refused(client.ask(request, **fields), "UsageError", "it is not here")
            assert client.leave() == 0

    def test_nothing_before_the_catalogue(self, place: Path) -> None:
        mine = {"uuid": STRANGER, "path": "mine"}
        with raw_client(place) as client:
            opened(client, "w")
            refused(client.ask("delete", snapshot=mine), "it is not here")

    @pytest.mark.parametrize("single", ["../other/other", "/etc", "a/b", "..", ""])
    def test_a_single_snapshot_elsewhere(self, place: Path, single: str) -> None:
        with raw_client(place, "r", SUDO) as client:
            client.raw(MAGIC)
            wish = {"mode": "r", "role": "source", "single": single, "all_below": False}
            client.send(Kind.HELLO, {"versions": [1, 1], "wish": wish})
            assert client.next()[0] is Kind.HELLO
            assert client.next()[0] in (Kind.ERROR, Kind.END)
            assert_over(client)

    @pytest.mark.parametrize("role", ["listing", "destination"])
    def test_a_single_snapshot_that_is_no_source(self, place: Path, role: str) -> None:
        with raw_client(place, "w", SUDO) as client:
            answer = client.greet(mode="w", role=role, single="mine", all_below=False)
            refused(answer, "ProtocolError", "that is no source")
            assert_over(client)

    def test_a_link_as_the_single_snapshot(self, place: Path) -> None:
        (place.parent / "elsewhere").mkdir()
        (place.parent / "elsewhere" / "link").symlink_to(place / "mine")
        with raw_client(place.parent / "elsewhere", "r", SUDO) as client:
            answer = client.greet(role="source", single="link", all_below=False)
            refused(answer, "LocationError")
        (place.parent / "elsewhere" / "link").unlink()
        (place.parent / "elsewhere").rmdir()


GARBAGE = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    MAGIC[:-1] + b"x",
    MAGIC + b"\xff" * 100,
    MAGIC + struct.pack("<BII", Kind.HELLO, 0xFFFFFFFF, 0),
    MAGIC + struct.pack("<BII", Kind.HELLO, 1 << 20, 0) + bytes(1 << 20),
    MAGIC + encode(Kind.HELLO, b"{"),
    MAGIC + encode(Kind.HELLO, b"[" * 100_000),
    MAGIC + encode(Kind.HELLO, b"{}"),
    MAGIC + encode(Kind.HELLO, b'{"versions": [1, 1], "wish": []}'),
    MAGIC + encode(Kind.HELLO, b'{"versions": [true, true]}'),
    MAGIC + encode(Kind.REQUEST, b'{"op": "catalogue"}'),
    MAGIC + encode(Kind.DATA, b"x" * 1000) * 10,
    MAGIC + encode(Kind.HELLO, b'{"versions": [1, 1]}')[:-1],
]


@pytest.mark.usefixtures("everything")
class TestNonsense:
    @pytest.mark.parametrize("number", range(len(GARBAGE)))
    def test_instead_of_a_greeting(self, place: Path, number: int) -> None:
        with raw_client(place) as client:
            client.raw(GARBAGE[number])
            client.leave()
            assert client.process.stderr
            assert b"Traceback" not in client.process.stderr.read()

    @pytest.mark.parametrize(
        "raw",
        [
            encode(Kind.DATA, b"x"),
            encode(Kind.END),
            encode(Kind.HELLO, b"{}"),
            encode(Kind.REQUEST, b"{}"),
            encode(Kind.REQUEST, b"[]"),
            encode(Kind.REQUEST, b'{"op": "__init__"}'),
            encode(Kind.REQUEST, b'{"op": ["catalogue"]}'),
            encode(Kind.REQUEST, b'{"op": "measure", "diffs": [1]}'),
            encode(Kind.REQUEST, b'{"op": "measure", "diffs": {}}'),
            encode(Kind.REQUEST, b'{"op": "send"}'),
            encode(Kind.REQUEST, b'{"op": "receive"}'),
            encode(Kind.REQUEST, b'{"op": "delete", "snapshot": null}'),
            HEADER.pack(99, 0, 0),
        ],
        ids=range(13),
    )
    def test_after_it(self, place: Path, raw: bytes) -> None:
        with raw_client(place) as client:
            opened(client, "w")
            client.raw(raw)
            refused(client.next(), "ProtocolError")
            client.leave()
            assert client.process.returncode == 1
            assert client.process.stderr
            assert b"Traceback" not in client.process.stderr.read()

    def test_a_version_that_there_is_not(self, place: Path) -> None:
        with raw_client(place) as client:
            client.raw(MAGIC)
            client.send(Kind.HELLO, {"versions": [7, 9], "program": "9.0"})
            assert client.next()[0] is Kind.HELLO
            refused(client.next(), "ProtocolError", "too far apart")
            assert_over(client)

    def test_what_a_later_version_adds_is_ignored(self, place: Path) -> None:
        with raw_client(place) as client:
            client.raw(MAGIC)
            wish = {"mode": "r", "role": "listing", "all_below": True, "new": [1]}
            client.send(Kind.HELLO, {"versions": [1, 9], "newer": {}, "wish": wish})
            assert client.next()[0] is Kind.HELLO
            assert client.next()[0] is Kind.END
            assert client.ask("catalogue", more=1)[0] is Kind.END


class TestUpload:
    def test_that_is_no_stream(self, place: Path) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            client.send(Kind.REQUEST, {"op": "receive", "step": wish_to_receive("x")})
            assert client.next()[0] is Kind.ITEM
            for _frame in range(20):
                client.send(Kind.DATA, payload=b"no stream at all" * 1000)
            refused(client.next(), "StreamError")
            client.send(Kind.DATA, payload=b"and more")
            client.send(Kind.CANCEL)
            assert client.catalogue()["snapshots"]
            assert client.leave() == 0
        assert not (place / "x").exists()

    def test_that_is_cancelled(self, place: Path) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            client.send(Kind.REQUEST, {"op": "receive", "step": wish_to_receive("x")})
            assert client.next()[0] is Kind.ITEM
            client.send(Kind.CANCEL)
            assert client.next() == (Kind.END, {"cancelled": True})
            assert client.leave() == 0

    def test_that_ends_with_the_connection(self, place: Path) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            client.send(Kind.REQUEST, {"op": "receive", "step": wish_to_receive("x")})
            assert client.next()[0] is Kind.ITEM
            client.raw(encode(Kind.DATA, b"btrfs-stream\0\1\0\0\0" + bytes(100))[:50])
            assert client.leave() == 1
        assert os.listdir(place) == ["mine"]

    def test_a_request_in_the_middle(self, place: Path) -> None:
        with raw_client(place) as client:
            opened(client, "w").catalogue()
            client.send(Kind.REQUEST, {"op": "receive", "step": wish_to_receive("x")})
            assert client.next()[0] is Kind.ITEM
            client.send(Kind.REQUEST, {"op": "catalogue"})
            refused(client.next(), "ProtocolError", "REQUEST among data")
            assert_over(client)


def test_a_client_that_vanishes_while_it_measures_ends_the_server(place: Path) -> None:
    with raw_client(place, "r") as client:
        listed = opened(client, "r").catalogue()
        uuid = listed["snapshots"][0]["uuid"]
        asked = [{"to": uuid, "from": None}] * 5000
        client.send(Kind.REQUEST, {"op": "measure", "diffs": asked})
        assert client.process.stdout
        assert client.next()[0] is Kind.ITEM
        assert client.process.stdin
        client.process.stdout.close()
        client.process.stdin.close()
        begun = time.monotonic()
        client.process.wait(10)
        assert time.monotonic() - begun < 10


def test_the_lock_goes_with_the_client(place: Path) -> None:
    with raw_client(place) as client:
        opened(client, "w")
        locked = buttersink(f"{place.parent}/other/", place, status=3)
        assert "another run" in locked.err
        assert client.leave() == 0
    buttersink("-n", f"{place.parent}/other/", place)
