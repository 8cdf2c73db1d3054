"""
Directories on another host, as far as that is more than ssh: the far side is a process here.

`ssh` is a script that runs the remote command; the real one is in test_ssh.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import (
    Argument,
    Completed,
    assert_copied,
    assert_same,
    buttersink,
    command_line,
    listing,
    paths,
    run_raw,
)
from tests.support.fakessh import fake_ssh
from tests.support.history import History, make_history
from tests.support.loopfs import (
    MIB,
    create_subvolume,
    delete_subvolume,
    is_mounted,
    snapshot,
)
from tests.support.smallsegments import SEGMENT_BYTES, small_segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeFilesystem
    from tests.support.s3servers import Bucket

pytestmark = pytest.mark.root


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=51, count=6, base_bytes=6 * MIB, change_bytes=MIB // 2)


class Host:
    """This machine, by ssh."""

    def __init__(self, directory: Path) -> None:
        """Make the script."""
        self.directory = directory
        self.environment = fake_ssh(directory)

    def run(self, *arguments: Argument, status: int | None = 0) -> Completed:
        return buttersink(*arguments, status=status, environment=self.environment)

    def document(self, *arguments: Argument) -> Any:  # noqa: ANN401  JSON
        return self.run("--json", *arguments).document

    def with_server(self, kill_after: int) -> None:
        """Let the far side have small segments, and die after so many checkpoints."""
        words = " ".join(map(os.fsdecode, small_segments(kill_after=kill_after)))
        fake_ssh(self.directory, program=words)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    yield Host(tmp_path / "bin")
    assert servers(tmp_path) == []
    assert not is_mounted(Path("/run/buttersink"))


def servers(below: Path) -> list[bytes]:
    """Return the command lines of the servers of directories below this one that still run."""
    found = []
    until = time.monotonic() + 5
    while time.monotonic() < until:
        found = [line for line in _command_lines() if b"--server" in line]
        found = [line for line in found if os.fsencode(below) in line]
        if not found:
            break
        time.sleep(0.05)
    return found


def _command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield entry.read_bytes()
        except OSError:
            continue


def at(directory: Path, host: str = "host") -> str:
    return f"ssh://{host}{directory}/"


class TestEveryPairing:
    def test_push(self, history: History, destination: Path, host: Host) -> None:
        local = buttersink("--json", "-n", f"{history.directory}/", destination).document
        document = host.document(f"{history.directory}/", at(destination / "new"))
        assert document["plan"] == local["plan"]
        assert document["result"]["sent_bytes"] == local["plan"]["send_bytes"]
        assert document["destination"] == at(destination / "new")
        assert_copied(history.directory, destination / "new")
        again = host.run(f"{history.directory}/", at(destination / "new"))
        assert again.out.startswith("Nothing to do: ssh://host")

    def test_pull(self, history: History, destination: Path, host: Host) -> None:
        local = buttersink("--json", "-n", f"{history.directory}/", destination).document
        document = host.document(at(history.directory), destination)
        assert document["plan"] == local["plan"]
        assert document["result"]["sent_bytes"] == local["plan"]["send_bytes"]
        assert_copied(history.directory, destination)
        assert host.run(at(history.directory), destination).out.startswith("Nothing to do")

    def test_relay(self, history: History, destination: Path, host: Host) -> None:
        local = buttersink("--json", "-n", f"{history.directory}/", destination).document
        document = host.document(at(history.directory, "one"), at(destination, "me@two:22"))
        assert document["plan"] == local["plan"]
        assert_copied(history.directory, destination)

    def test_to_a_bucket_and_back(
        self, history: History, destination: Path, host: Host, s3: Bucket
    ) -> None:
        environment = {**host.environment, **s3.server.environment()}
        bucket = f"s3://{s3.name}/x/"
        buttersink(at(history.directory), bucket, environment=environment)
        buttersink("--verify", "full", bucket, environment=environment)
        buttersink(bucket, at(destination), environment=environment)
        assert_copied(history.directory, destination)

    def test_one_snapshot(self, history: History, destination: Path, host: Host) -> None:
        one = history.snapshots[4].path
        host.run(f"ssh://host{one}", at(destination / "a"))
        host.run(f"ssh://host{one}", destination / "b")
        for where in ("a", "b"):
            assert os.listdir(destination / where) == [one.name]
            assert_same(one, destination / where / one.name)
        refused = host.run(f"ssh://host{history.directory}", destination, status=1)
        assert f"not a snapshot: ssh://host{history.directory}" in refused.err

    def test_listing(self, history: History, host: Host) -> None:
        there = host.document(at(history.directory))
        here = buttersink("--json", f"{history.directory}/").document
        assert there.pop("location") == at(history.directory)
        here.pop("location")
        assert there == here
        one = history.snapshots[2].path
        assert [each["path"] for each in host.document(f"ssh://host{one}")["snapshots"]] == [
            one.name
        ]

    def test_what_a_snapshot_is_called_does_not_matter(
        self, source: Path, destination: Path, host: Host
    ) -> None:
        live = create_subvolume(source / "live")
        names = [b"-rf", b"new\nline", b"quote'\"`$(id)\\", b"not utf-8 \xff", b"a b", b"\x1b[31m"]
        snaps = source / "sn'aps $(id)\n"
        snaps.mkdir()
        for name in names:
            snapshot(live, snaps / os.fsdecode(name))
        host.run(at(snaps), at(destination / "wh'ere \udcff"))
        assert sorted(os.listdir(os.fsencode(destination / "wh'ere \udcff"))) == sorted(names)
        assert host.run(at(snaps), at(destination / "wh'ere \udcff")).out.startswith("Nothing to")

    def test_names_are_shown_and_planned_as_here(
        self, history: History, destination: Path, host: Host
    ) -> None:
        ours = host.run("-n", "-v", f"{history.directory}/", at(destination)).out
        local = buttersink("-n", "-v", f"{history.directory}/", f"{destination}/").out
        assert ours.replace("ssh://host", "") == local


class TestDestination:
    def test_a_look_changes_nothing(self, history: History, destination: Path, host: Host) -> None:
        host.run("-n", "-d", f"{history.directory}/", at(destination / "new"))
        assert os.listdir(destination) == []

    def test_delete_and_replace(self, history: History, destination: Path, host: Host) -> None:
        host.run(f"{history.directory}/", at(destination))
        last = history.snapshots[-1].path
        delete_subvolume(last)
        delete_subvolume(history.snapshots[0].path)
        (history.live / "other").write_bytes(b"other")
        snapshot(history.live, last)
        host.run("-n", "-d", f"{history.directory}/", at(destination))
        assert len(paths(destination)) == 6
        local = buttersink("--json", "-n", "-d", f"{history.directory}/", destination).document
        document = host.document("-d", f"{history.directory}/", at(destination))
        assert document["plan"] == local["plan"]
        assert "delete" in {step["action"] for step in document["plan"]["steps"]}
        assert_copied(history.directory, destination)

    def test_copies_in_place(self, history: History, destination: Path, host: Host) -> None:
        host.run(f"{history.directory}/", at(destination / "a"))
        document = host.document(f"{history.directory}/", at(destination / "b"))
        assert {step["action"] for step in document["plan"]["steps"]} == {"copy"}
        assert_copied(history.directory, destination / "b")

    def test_is_locked(self, history: History, destination: Path, host: Host) -> None:
        held = os.open(destination, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            refused = host.run(f"{history.directory}/", at(destination), status=3)
        finally:
            os.close(held)
        assert f"locked: {at(destination)[:-1]}" in refused.err

    def test_is_full(self, history: History, make_filesystem: MakeFilesystem, host: Host) -> None:
        (history.live / "huge").write_bytes(os.urandom(150 * MIB))
        snapshot(history.live, history.directory / "9999")
        small = make_filesystem("small", size_bytes=120 * MIB).mountpoint
        failed = host.run(f"{history.directory}/", at(small), status=1)
        assert "the destination is full: 9999: it takes up to" in failed.err
        assert listing(small)["partials"] == []

    def test_is_taken(self, history: History, destination: Path, host: Host) -> None:
        (destination / "0003").mkdir()
        failed = host.run(f"{history.directory}/", at(destination), status=1)
        assert "cannot make: 0003: something else has this name at the destination" in failed.err
        assert len(paths(destination)) >= 3


class TestInterrupted:
    @pytest.fixture
    def history(self, source: Path) -> History:
        return make_history(source, seed=52, count=3, base_bytes=15 * MIB, change_bytes=4 * MIB)

    @pytest.mark.parametrize("checkpoints", [1, 5])
    def test_the_server_dies(
        self, history: History, destination: Path, host: Host, checkpoints: int
    ) -> None:
        host.with_server(checkpoints)
        failed = host.run("-e", f"{history.directory}/", at(destination), status=1)
        assert failed.err.count("the connection is lost") == 1
        assert "Run the same command again" in failed.err
        (left,) = (each["size"] for each in listing(destination)["partials"] if each["size"])
        assert left >= checkpoints * SEGMENT_BYTES
        host.with_server(0)
        document = host.document("-e", f"{history.directory}/", at(destination))
        first = document["result"]["steps"][0]
        assert (first["status"], first["resumed_from"]) == ("resumed", left)
        assert_copied(history.directory, destination)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_the_client_dies(
        self, history: History, destination: Path, host: Host, number: signal.Signals
    ) -> None:
        host.with_server(0)
        command = command_line("-e", f"{history.directory}/", at(destination))
        with subprocess.Popen(
            command,
            env={**os.environ, **host.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            while not list(destination.glob(".buttersink-*.journal")):
                time.sleep(0.001)
            process.send_signal(number)
            _out, said = process.communicate(timeout=30)
        assert b"Traceback" not in said
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.returncode == expected
        assert servers(destination) == []
        assert len(listing(destination)["partials"]) == 1
        document = host.document("-e", f"{history.directory}/", at(destination))
        assert document["result"]["steps"][0]["status"] == "resumed"
        assert_copied(history.directory, destination)

    def test_pulling_goes_on_from_a_checkpoint(
        self, history: History, destination: Path, host: Host
    ) -> None:
        source = at(history.directory)
        killed = run_raw(
            small_segments("-e", source, destination, kill_after=4), environment=host.environment
        )
        assert killed.returncode == -signal.SIGKILL
        assert servers(history.directory) == []
        done = run_raw(
            small_segments("--json", "-e", source, destination), environment=host.environment
        )
        document = json.loads(done.stdout)
        assert document["result"]["steps"][0]["resumed_from"] >= 4 * SEGMENT_BYTES
        assert_copied(history.directory, destination)

    def test_what_is_left_is_listed_and_goes_with_delete(
        self, history: History, destination: Path, host: Host
    ) -> None:
        host.with_server(2)
        host.run("-e", f"{history.directory}/", at(destination), status=1)
        host.with_server(0)
        found = host.document("-e", at(destination))["partials"]
        assert [each["size"] for each in found if each["size"]]
        host.run("-n", "-d", at(destination))
        assert len(listing(destination)["partials"]) == len(found)
        host.run("-d", at(destination))
        assert os.listdir(destination) == []

    def test_another_stream_starts_over(
        self, history: History, destination: Path, host: Host
    ) -> None:
        host.with_server(2)
        host.run("-e", f"{history.directory}/", at(destination), status=1)
        (journal,) = destination.glob(".buttersink-*.journal")
        held = json.loads(journal.read_text())
        held["stretches"][0][1] = "00" * 32
        journal.write_text(json.dumps(held))
        host.with_server(0)
        done = host.run("-e", f"{history.directory}/", at(destination))
        assert "0000 is sent from its beginning: the source now sends another" in done.err
        assert_copied(history.directory, destination)

    def test_a_source_that_is_lost(self, history: History, destination: Path, host: Host) -> None:
        fake_ssh(host.directory, before="(sleep 0.8; kill -9 $$) >&- 2>&- &")
        (history.live / "huge").write_bytes(os.urandom(400 * MIB))
        snapshot(history.live, history.directory / "9999")
        failed = host.run("-e", at(history.directory), destination, status=None)
        fake_ssh(host.directory)
        if failed.status:
            assert failed.err.count("the connection is lost") == 1
        for each in paths(destination):
            assert_same(history.directory / each, destination / each)
        host.run("-e", at(history.directory), destination)
        assert_copied(history.directory, destination)


class TestConfined:
    """Through sudo: what lies outside of the directory does not exist."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Iterator[Host]:
        found = Host(tmp_path / "bin")
        found.environment = fake_ssh(found.directory, user="guest")
        yield found
        assert servers(tmp_path) == []

    def test_what_is_outside_is_no_parent_and_not_copied(
        self, history: History, destination: Path, host: Host
    ) -> None:
        buttersink(f"{history.directory}/", destination / "secret")
        document = host.document(f"{history.directory}/", at(destination / "mine"))
        assert {step["action"] for step in document["plan"]["steps"]} == {"send"}
        assert document["plan"]["send_count"] == 6
        assert_copied(history.directory, destination / "mine")

    def test_a_single_snapshot_has_its_neighbours_and_no_others(
        self, history: History, destination: Path, host: Host
    ) -> None:
        (history.directory.parent / "more").mkdir()
        outside = history.directory.parent / "more" / "outside"
        snapshot(history.live, outside)
        buttersink(f"{history.directory}/0003", destination)
        document = host.document(f"ssh://host{history.directory}/0004", destination)
        assert document["plan"]["steps"][-1]["from_path"]
        assert sorted(os.listdir(destination)) == ["0003", "0004"]

    def test_a_link_leads_nowhere(self, history: History, destination: Path, host: Host) -> None:
        elsewhere = history.directory.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "link").symlink_to(history.snapshots[0].path)
        failed = host.run(f"ssh://host{elsewhere}/link", destination, status=1)
        assert "cannot open the location" in failed.err
        assert os.listdir(destination) == []

    def test_without_sudo_it_is_as_here(
        self, history: History, destination: Path, host: Host
    ) -> None:
        fake_ssh(host.directory, user="root")
        buttersink(f"{history.directory}/", destination / "other")
        document = host.document(
            "--remote-command",
            f"{sys.executable} -m buttersink",
            f"{history.directory}/",
            at(destination / "mine"),
        )
        assert {step["action"] for step in document["plan"]["steps"]} == {"copy"}


def test_a_forced_command_confines_and_limits(
    history: History, destination: Path, tmp_path: Path
) -> None:
    """What the client asks for is then in the environment, and not what runs."""
    directory = tmp_path / "bin"
    environment = fake_ssh(
        directory,
        settings={"SSH_ORIGINAL_COMMAND": "x"},
        before=f'set -- -- host "buttersink --server --mode a {destination}/mine"',
    )
    buttersink(f"{history.directory}/", destination / "secret")
    buttersink(f"{history.directory}/", at(destination / "mine"), environment=environment)
    assert_copied(history.directory, destination / "mine")
    refused = buttersink("-d", f"{history.directory}/", at(destination / "mine"), status=2,
                         environment=environment)  # fmt: skip
    assert "mode w is needed, and the key, there, is for mode a" in refused.err
    refused = buttersink(at(destination / "secret"), status=2, environment=environment)
    assert f"the key, there, is for {destination}/mine alone" in refused.err
    listed = buttersink("--json", at(destination / "mine"), environment=environment).document
    assert len(listed["snapshots"]) == 6


def test_sizes_are_remembered_there(source: Path, host: Host, tmp_path: Path) -> None:
    fake_ssh(host.directory, settings={"XDG_CACHE_HOME": os.fspath(tmp_path / "cache")})
    snapshot(create_subvolume(source / "live"), source / "one")
    host.run("-n", at(source), source / "new")
    assert not (tmp_path / "cache").exists()
    host.run(at(source))
    assert list((tmp_path / "cache").glob("buttersink/*"))


def test_debugging_tells_what_is_there(history: History, host: Host) -> None:
    fake_ssh(host.directory, before="echo some warning of ssh >&2")
    said = host.run("-vv", "-e", at(history.directory)).err
    assert "is served by buttersink" in said
    assert "btrfs-progs v" in said
    assert "ssh says for ssh://host" in said
    assert "some warning of ssh" in said
    assert "some warning of ssh" not in host.run("-e", at(history.directory)).err
