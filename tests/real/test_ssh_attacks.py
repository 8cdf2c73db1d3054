"""
A hostile client with a login of its own, and with what README.md lets it do as root by sudo.

It speaks the protocol itself, over a real ssh and a real sudo, and says what ButterSink never would
say. All of it has to be refused and logged; nothing may change outside of its directory, nothing of
what lies there may come out, and no process may stay. test_ssh_server.py has more, without ssh.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from buttersink.catalogue import uuid_from_text, uuid_text
from buttersink.kernel import libc
from buttersink.remote.protocol import HEADER, MAGIC, Kind, encode
from tests.real.test_hostile_streams import ESCAPES, MKNOD, RDEV
from tests.support import streams
from tests.support.loopfs import (
    MIB,
    LoopFilesystem,
    bound,
    create_subvolume,
    loop_filesystem,
    run,
    show_subvolume,
    snapshot,
    tmpfs,
)
from tests.support.rawclient import RawClient, raw_client_of
from tests.support.sshd import LIMITED
from tests.support.sshlocation import (
    DEBIANS_SUDOERS,
    INSTALLED,
    FarLocations,
)
from tests.support.streams import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.sshd import StartedSshd
    from tests.support.syslog import Syslog

pytestmark = pytest.mark.root

STRANGER = "00112233-4455-6677-8899-aabbccddeeff"
SECRET = b"secret" * 1000
MOST_MEMORY = 300 * MIB  # of a server, whatever it is sent
SUDO = "sudo -n buttersink --server --mode {} {}"


@dataclass(frozen=True, slots=True)
class Scene:
    """
    A file system on the far host, where the directory `mine` is the client's.

    Attributes:
        made: The file system.
        far: The host.
        log: Of that host.

    """

    made: LoopFilesystem
    far: FarLocations
    log: Syslog

    @property
    def mine(self) -> Path:
        return self.made.mountpoint / "mine"

    @property
    def secret(self) -> str:
        """The UUID of the snapshot outside."""
        return uuid_text(show_subvolume(self.made.mountpoint / "other" / "secret").uuid)

    @contextmanager
    def client(self, mode: str = "a", command: str = SUDO) -> Iterator[RawClient]:
        """Log in as the limited user, start the server by sudo, and be its client."""
        ssh = self.far.sshd.client.programs / "ssh"
        line = command.format(mode, self.mine)
        with raw_client_of(ssh, f"{LIMITED}@testhost", line) as client:
            yield client

    @contextmanager
    def opened(self, mode: str = "a") -> Iterator[RawClient]:
        """Be the client of a server that has opened the directory and listed it."""
        with self.client(mode) as client:
            role = "listing" if mode == "r" else "destination"
            assert client.greet(mode=mode, role=role)[0] is Kind.END
            client.catalogue()
            yield client


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, sshd: StartedSshd) -> Iterator[Scene]:
    far = FarLocations(sshd)
    directory = tmp_path_factory.mktemp("attacked")
    with (
        loop_filesystem(directory, label="there") as made,
        sshd.host.syslog() as log,
        far.readme_sudoers(made.mountpoint / "mine"),
    ):
        found, live = Scene(made, far, log), create_subvolume(made.mountpoint / "live")
        (live / "file").write_bytes(SECRET)
        (made.mountpoint / "outside").write_bytes(SECRET)
        for name, what in (("mine", "mine"), ("other", "secret")):
            (made.mountpoint / name).mkdir()
            snapshot(live, made.mountpoint / name / what)
        (found.mine / "open").mkdir()
        (found.mine / "link").symlink_to(made.mountpoint / "other")
        (found.mine / "single").symlink_to(made.mountpoint / "other" / "secret")
        yield found


@pytest.fixture(autouse=True)
def _unharmed(scene: Scene) -> Iterator[None]:
    """Fail if anything has changed that is not the client's, or if anything still runs."""
    before = state(scene.made.mountpoint)
    yield
    scene.far.assert_gone()
    assert state(scene.made.mountpoint) == before


def state(top: Path) -> dict[str, tuple[int, ...]]:
    """Return everything below a directory."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            times = () if stat.S_ISDIR(status.st_mode) else (status.st_mtime_ns, status.st_size)
            found[path] = (status.st_mode, status.st_ino, status.st_dev, status.st_uid, *times)
    return found


@pytest.fixture
def logged(scene: Scene) -> Iterator[list[str]]:
    """What has to be in the log of what this test does; the test says."""
    before, texts = len(scene.log.messages), list[str]()
    yield texts
    assert texts
    for text in texts:
        scene.log.wait_for(text, after=before)


def delivery(path: str, **more: object) -> dict[str, object]:
    snapshot = {
        "uuid": STRANGER, "own": STRANGER, "parent": None, "received": None, "generation": 7,
        "created": 7, "path": "x", "id": 0, "size": None, "exclusive": None,
    }  # fmt: skip
    return {"snapshot": snapshot, "path": path, "parent": None, "clones": [], **more}


def refused(answer: tuple[Kind, Any], *words: str) -> None:
    kind, document = answer
    assert kind is Kind.ERROR, answer
    text = " ".join(str(document[key]) for key in ("class", "what", "where", "why"))
    assert all(word in text for word in words), text


def assert_over(client: RawClient) -> None:
    """Fail unless the server has hung up, and without a traceback."""
    assert client.next() == (Kind.END, None)
    client.leave()
    assert client.process.stderr
    assert b"Traceback" not in client.process.stderr.read()


def not_started(client: RawClient) -> int:
    """Return the status with which a command ended that was no server."""
    assert client.next() == (Kind.END, None)
    assert client.process.stderr
    assert b"Traceback" not in client.process.stderr.read()
    return client.leave()


class TestMode:
    def test_that_no_line_allows_is_not_started(self, scene: Scene) -> None:
        with scene.client("w") as client:
            assert not_started(client) == 1

    @pytest.mark.parametrize(("allowed", "wished"), [("r", "a"), ("r", "w"), ("a", "w")])
    def test_more_than_the_line_allows(
        self, scene: Scene, logged: list[str], allowed: str, wished: str
    ) -> None:
        with scene.client(allowed) as client:
            answer = client.greet(mode=wished, role="destination")
            refused(answer, "UsageError", f"mode {wished} is asked for, and {allowed} is allowed")
            assert_over(client)
        logged.append("refused: not allowed")

    def test_a_client_that_ignores_it(self, scene: Scene, logged: list[str]) -> None:
        with scene.client() as client:
            client.greet(mode="a", role="destination")
            (mine,) = client.catalogue()["snapshots"]
            refused(client.ask("delete", snapshot=mine), "opened in mode a")
            refused(client.ask("discard", partial=mine), "opened in mode a")
            step = delivery("mine", replaces=mine)
            refused(client.ask("receive", step=step), "opened in mode a")
            replacing = {"snapshot": mine, "path": "mine", "replaces": mine}
            refused(client.ask("copy", **replacing), "it is not here")
            assert client.leave() == 0
        with scene.opened("r") as client:
            for request in ("resumable", "receive", "release"):
                refused(client.ask(request, step=delivery("x")), "opened in mode r")
            refused(client.ask("flush"), "opened in mode r")
            assert client.leave() == 0
        logged += ["refused: not allowed", "ends: the client has left"]


class TestPaths:
    @pytest.mark.parametrize("path", ["../x", "/etc/x", "open/../../x", "..", "open//x"])
    def test_that_lead_out(self, scene: Scene, logged: list[str], path: str) -> None:
        with scene.opened() as client:
            refused(client.ask("receive", step=delivery(path)), "ProtocolError")
            assert_over(client)
        logged.append("that is no path from the location")

    def test_through_links_and_mounts(
        self, scene: Scene, logged: list[str], tmp_path: Path
    ) -> None:
        top = scene.made.mountpoint
        (scene.mine / "memory").mkdir()
        with (
            tmpfs(scene.mine / "memory"),
            bound(top / "other", scene.mine / "bound"),
            loop_filesystem(tmp_path, label="second") as second,
            bound(second.mountpoint, scene.mine / "second"),
        ):
            places = ("memory", "bound", "second")
            before = [os.listdir(scene.mine / name) for name in places]
            with scene.opened() as client:
                for name in ("link", "single", *places):
                    for request in ("receive", "resumable", "release"):
                        answer = client.ask(request, step=delivery(f"{name}/x"))
                        if request != "release":
                            refused(answer, "ConflictError", "is in the way")
                assert client.leave() == 0
            assert [os.listdir(scene.mine / name) for name in places] == before
        (scene.mine / "memory").rmdir()
        logged.append("a link, mount, file or read-only snapshot is in the way")

    @pytest.mark.parametrize(
        ("single", "said"),
        [
            ("../other/secret", "ProtocolError"),
            ("/etc", "ProtocolError"),
            ("link/secret", "ProtocolError"),
            ("..", "ProtocolError"),
            ("single", "LocationError"),
            ("link", "LocationError"),
            ("open", "it is no read-only subvolume"),
        ],
    )
    def test_a_single_snapshot_elsewhere(
        self, scene: Scene, logged: list[str], single: str, said: str
    ) -> None:
        with scene.client("r") as client:
            answer = client.greet(role="source", single=single, all_below=False)
            refused(answer, said)
            assert_over(client)
        logged.append("ends: ")

    def test_a_directory_that_no_line_allows(self, scene: Scene) -> None:
        for path in ("/link", "/open", "/../other", "/", "' --mode 'w", "/$(id)", "\n/etc"):
            command = f"sudo -n buttersink --server --mode a '{scene.mine}{path}'"
            with scene.client(command=command) as client:
                assert not_started(client) == 1

    def test_swapped_while_it_arrives(self, scene: Scene, logged: list[str]) -> None:
        place, away = scene.mine / "open" / "sub", scene.mine / "open" / "away"
        place.mkdir()
        with scene.opened() as client:
            client.send(Kind.REQUEST, {"op": "receive", "step": delivery("open/sub/x")})
            assert client.next()[0] is Kind.ITEM
            place.rename(away)
            place.symlink_to(scene.made.mountpoint / "other")
            stream = stream_of(*new_file(b"evil"))
            client.send(Kind.DATA, payload=stream)
            client.send(Kind.END)
            refused(client.next(), "cannot open the directory")
            assert client.leave() == 0
        assert sorted(os.listdir(scene.made.mountpoint / "other")) == ["secret"]
        remove_all(away)
        place.unlink()
        logged.append("failed: ")

    def test_swapped_all_the_time(self, scene: Scene, logged: list[str]) -> None:
        place, lure = scene.mine / "open" / "sub", scene.mine / "open" / "lure"
        place.mkdir()
        lure.symlink_to(scene.made.mountpoint / "other")
        stream, answers = stream_of(*new_file(b"evil")), list[Kind]()
        with scene.opened() as client, swapping(scene.mine / "open", b"sub", b"lure"):
            for number in range(30):
                step = delivery(f"open/sub/{number}")
                client.send(Kind.REQUEST, {"op": "receive", "step": step})
                answer = client.next()
                if answer[0] is Kind.ITEM:
                    client.send(Kind.DATA, payload=stream)
                    client.send(Kind.END)
                    answer = client.next()
                answers.append(answer[0])
            assert client.leave() == 0
        assert sorted(os.listdir(scene.made.mountpoint / "other")) == ["secret"]
        for path in (place, lure):
            path.unlink() if path.is_symlink() else remove_all(path)
        assert Kind.ERROR in answers
        logged.append("failed: ")


@contextmanager
def swapping(directory: Path, one: bytes, other: bytes) -> Iterator[None]:
    """Let two names in a directory change places all the time."""
    enough, fd = Event(), os.open(directory, os.O_RDONLY)

    def swap() -> None:
        while not enough.wait(0.0005):
            libc.exchange(fd, one, other)

    thread = Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
        os.close(fd)


def remove_all(directory: Path) -> None:
    """Remove a directory with the subvolumes in it."""
    for path in directory.iterdir():
        run("btrfs", "subvolume", "delete", path)
    directory.rmdir()


def new_file(path: bytes) -> list[Command]:
    return [streams.mkfile(path), streams.write(path, 0, b"mine")]


def stream_of(*commands: Command) -> bytes:
    begin = streams.subvol(b"made", uuid_from_text(STRANGER), 7)
    return streams.encode([begin, *commands, streams.end()])


def upload(client: RawClient, stream: bytes, **more: object) -> tuple[Kind, Any]:
    """Send a stream to be received as `x`; return how the server answers that."""
    client.send(Kind.REQUEST, {"op": "receive", "step": delivery("x", **more)})
    begun = client.next()
    if begun[0] is not Kind.ITEM:
        return begun
    client.send(Kind.DATA, payload=stream)
    client.send(Kind.END)
    return client.next()


class TestSnapshotsOutside:
    def test_are_not_there(self, scene: Scene, logged: list[str]) -> None:
        secret = scene.secret
        with scene.client() as client:
            client.greet(mode="a", role="destination")
            listed = client.catalogue()
            assert [each["path"] for each in listed["snapshots"]] == ["mine"]
            assert secret not in str(listed)
            mine = listed["snapshots"][0]["uuid"]
            unknown: list[tuple[str, dict[str, object]]] = [
                ("send", {"diff": {"to": secret, "from": None}}),
                ("send", {"diff": {"to": mine, "from": secret}}),
                ("send", {"diff": {"to": mine, "from": None, "clones": [secret]}}),
                ("measure", {"diffs": [{"to": secret, "from": None}]}),
                ("estimate", {"diffs": [{"to": mine, "from": secret}]}),
                ("receive", {"step": delivery("x", parent=secret)}),
                ("receive", {"step": delivery("x", clones=[secret])}),
                ("copy", {"snapshot": {"uuid": secret, "path": "other/secret"}, "path": "x"}),
                ("copy", {"snapshot": {"uuid": secret, "path": "link/secret"}, "path": "x"}),
            ]
            for request, fields in unknown:
                refused(client.ask(request, **fields), "UsageError", "it is not here")
            assert client.leave() == 0
        logged.append("refused: no such snapshot")

    def test_are_not_there_for_an_environment_that_lies(
        self, scene: Scene, logged: list[str]
    ) -> None:
        lie = "export SSH_CONNECTION='1.2.3.4 1 1.2.3.4 22' XDG_CACHE_HOME=/run/limited; "
        with scene.client(command=lie + SUDO) as client:
            client.greet(mode="a", role="destination")
            assert scene.secret not in str(client.catalogue())
            assert client.leave() == 0
        logged.append(f"server for {LIMITED}: serves mode a on {scene.mine}, confined")

    @pytest.mark.parametrize("wanted", ["", "buttersink --server --mode w /", "id"])
    def test_are_not_there_for_a_key_of_root_with_a_forced_command(
        self, scene: Scene, logged: list[str], wanted: str
    ) -> None:
        """A client that wants no command at all leaves no trace of it in the environment."""
        forced = f'restrict,command="buttersink --server --mode a {scene.mine}"'
        ssh, words = scene.far.sshd.client.programs / "ssh", (wanted,) if wanted else ()
        with (
            scene.far.sshd.authorized("root", forced),
            raw_client_of(ssh, "-T", "testhost", *words) as client,
        ):
            client.greet(mode="a", role="destination")
            assert scene.secret not in str(client.catalogue())
            copying = {"snapshot": {"uuid": scene.secret, "path": "other/secret"}, "path": "x"}
            refused(client.ask("copy", **copying), "it is not here")
            assert client.leave() == 0
        logged.append(f"serves mode a on {scene.mine}, confined")


class TestStreams:
    @pytest.mark.parametrize("commands", ESCAPES)
    def test_that_lead_out(
        self, scene: Scene, logged: list[str], commands: Sequence[Command]
    ) -> None:
        with scene.opened() as client:
            answer = upload(client, stream_of(*commands))
            assert answer[0] is Kind.ERROR
            assert client.leave() == 0
        logged.append("failed: ")

    def test_that_clone_from_a_foreign_snapshot(self, scene: Scene, logged: list[str]) -> None:
        secret = uuid_from_text(scene.secret)
        steal = streams.clone(b"a", secret, source=b"file")
        with scene.opened() as client:
            answer = upload(client, stream_of(streams.mkfile(b"a"), steal))
            refused(answer, "StreamError", "clones from a snapshot that is not among its sources")
            begin = streams.snapshot(b"made", uuid_from_text(STRANGER), 7, secret, 7)
            answer = upload(client, streams.encode([begin, streams.end()]))
            refused(answer, "StreamError", "it does not start from what was agreed on")
            assert client.leave() == 0
        logged.append("failed: the send stream is refused")

    def test_that_write_to_a_device(self, scene: Scene, logged: list[str], tmp_path: Path) -> None:
        image = tmp_path / "disk"
        image.write_bytes(bytes(MIB))
        device = run("losetup", "--find", "--show", image).strip()
        try:
            kind = stat.S_IFBLK | 0o600
            values = ((streams.INO, 8), (RDEV, os.stat(device).st_rdev), (streams.MODE, kind))
            attributes = [(number, value.to_bytes(8, "little")) for number, value in values]
            node = Command(MKNOD, ((streams.PATH, b"disk"), *attributes))
            with scene.opened() as client:
                answer = upload(client, stream_of(node, streams.write(b"disk", 0, b"mine")))
                refused(answer, "btrfs receive failed")
                assert client.leave() == 0
            assert image.read_bytes() == bytes(MIB)
        finally:
            run("losetup", "--detach", device)
        logged.append("failed: btrfs receive failed")

    @pytest.mark.parametrize("junk", [b"no stream " * 5000, stream_of()[:-20], b""])
    def test_that_are_none(self, scene: Scene, logged: list[str], junk: bytes) -> None:
        with scene.opened() as client:
            refused(upload(client, junk), "StreamError")
            assert client.leave() == 0
        logged.append("failed: ")


class TestNonsense:
    @pytest.mark.parametrize(
        "raw",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            MAGIC + b"\xff" * 100,
            MAGIC + HEADER.pack(Kind.HELLO, 0xFFFFFFFF, 0),
            MAGIC + HEADER.pack(Kind.HELLO, 1 << 20, 0) + bytes(1 << 20),
            MAGIC + encode(Kind.HELLO, b'{"versions": [1, 1]}')[:-1],
            MAGIC + encode(Kind.REQUEST, b'{"op": "catalogue"}'),
        ],
        ids=range(6),
    )
    def test_instead_of_a_greeting(self, scene: Scene, logged: list[str], raw: bytes) -> None:
        with scene.client() as client:
            client.raw(raw)
            client.leave()
            assert client.process.stderr
            assert b"Traceback" not in client.process.stderr.read()
        logged.append("ends: ")

    @pytest.mark.parametrize(
        "raw",
        [
            HEADER.pack(Kind.REQUEST, 0xFFFFFFFF, 0),
            HEADER.pack(Kind.DATA, (1 << 20) + 1, 0),
            HEADER.pack(99, 0, 0),
            HEADER.pack(Kind.REQUEST, 2, 0) + b"{}",
            encode(Kind.DATA, b"x"),
            encode(Kind.REQUEST, b'{"op": "__init__"}'),
            encode(Kind.REQUEST, b'{"op": "measure", "diffs": [' + b"[" * 100_000 + b"]}"),
        ],
        ids=range(7),
    )
    def test_after_it(self, scene: Scene, logged: list[str], raw: bytes) -> None:
        with scene.opened() as client:
            client.raw(raw)
            refused(client.next(), "ProtocolError")
            assert_over(client)
        logged.append("ends: ")

    def test_frames_without_end(self, scene: Scene, logged: list[str]) -> None:
        """They cost the server no memory, and it goes with the client."""
        with scene.opened() as client:
            for frame in (encode(Kind.ALIVE), encode(Kind.CANCEL, b"{}")):
                client.raw(frame * 100_000)
            big = encode(Kind.REQUEST, b'{"op": "estimate", "x": "' + b"x" * (1 << 19) + b'"}')
            for _ in range(30):
                client.raw(big)
                assert client.next() == (Kind.END, {})
            lists = [{"to": STRANGER, "from": None}] * 10_000
            refused(client.ask("measure", diffs=lists), "it is not here")
            assert peak_memory(scene.far) < MOST_MEMORY
            assert client.leave() == 0
        logged.append("ends: the client has left")

    def test_data_without_end(self, scene: Scene, logged: list[str]) -> None:
        with scene.opened() as client:
            client.send(Kind.REQUEST, {"op": "receive", "step": delivery("x")})
            assert client.next()[0] is Kind.ITEM
            client.send(Kind.DATA, payload=stream_of(*new_file(b"a")))
            zeros = encode(Kind.DATA, bytes(1 << 20))
            for _ in range(50):
                client.raw(zeros)
            refused(client.next(), "StreamError")
            assert peak_memory(scene.far) < MOST_MEMORY
            client.process.kill()
        logged.append("ends: ")


def peak_memory(far: FarLocations) -> int:
    """Return the most bytes of memory that the server has used so far."""
    servers = sorted(
        pid
        for pid, words in far.sshd.sessions().items()
        if b"--server" in words and b"python" in words[0]
    )
    status = Path(f"/proc/{servers[0]}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class TestWildcards:
    """Lines for sudoers such as README.md warns of."""

    def test_open_no_more_arguments(self, scene: Scene, logged: list[str]) -> None:
        line = f"{LIMITED} ALL=(root) NOPASSWD: {INSTALLED} --server --mode a {scene.mine}*"
        after = ("/etc", "--mode w", "--remote-command id", f"--logfile {scene.mine}/log", "''")
        with scene.far.sshd.host.sudoers(DEBIANS_SUDOERS, line):
            for words in after:
                with scene.client(command=f"{SUDO} {words}") as client:
                    assert not_started(client) == 2
        logged.append("refused: not served")

    def test_in_front_open_none_either(self, scene: Scene, logged: list[str]) -> None:
        line = f"{LIMITED} ALL=(root) NOPASSWD: {INSTALLED} --server *"
        with scene.far.sshd.host.sudoers(DEBIANS_SUDOERS, line):
            for words in (
                f"--mode a --mode w {scene.mine}",
                f"--mode=w {scene.mine}",
                f"{scene.mine} /run/limited",
                f"--logfile /etc/x --mode a {scene.mine}",
                "--mode a relative",
                "--mode a",
                "--help",
            ):
                command = f"sudo -n buttersink --server {words}"
                with scene.client(command=command) as client:
                    assert not_started(client) == 2
        assert not (scene.far.sshd.host.root / "etc/x").exists()
        logged.append("refused: not served")
