"""
Directories on another host, over a real sshd, for root and for a user whom sudo lets do one thing.

What needs no ssh for it is in test_ssh_plain.py; cuts and kills are in tests/faults/test_ssh.py.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import assert_copied, assert_same, buttersink, paths
from tests.support.history import History, make_history
from tests.support.loopfs import MIB, delete_subvolume, loop_filesystem
from tests.support.sshd import LIMITED
from tests.support.sshlocation import FarLocations, at, readme_key_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartedServer
    from tests.support.s3servers import Bucket
    from tests.support.sshd import StartedSshd

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, sshd: StartedSshd) -> Iterator[History]:
    """Twelve snapshots that no test changes."""
    assert sshd
    with loop_filesystem(tmp_path_factory.mktemp("history"), label="source") as made:
        yield make_history(
            made.mountpoint, seed=51, count=12, base_bytes=6 * MIB, change_bytes=MIB // 2
        )


@pytest.fixture
def far(sshd: StartedSshd) -> Iterator[FarLocations]:
    found = FarLocations(sshd)
    yield found
    found.assert_gone()


@pytest.fixture
def bucket(s3_servers: StartedServer) -> Iterator[Bucket]:
    found = s3_servers("moto").bucket(f"test-{uuid.uuid4().hex}")
    yield found
    found.remove()


def local_plan(history: History, destination: Path, *options: str) -> Any:  # noqa: ANN401  JSON
    """Return what a run between the two directories here would do."""
    planned = buttersink("--json", "-n", *options, f"{history.directory}/", destination)
    return planned.document["plan"]


class TestHistory:
    """Twelve snapshots in every pairing, by the same plan as between local directories."""

    def test_pushed(self, history: History, destination: Path, far: FarLocations) -> None:
        local = local_plan(history, destination)
        document = far.run("--json", f"{history.directory}/", at(destination / "new")).document
        assert document["plan"] == local
        assert document["result"]["sent_bytes"] == local["send_bytes"]
        assert_copied(history.directory, destination / "new")

    def test_pulled(self, history: History, destination: Path, far: FarLocations) -> None:
        local = local_plan(history, destination)
        document = far.run("--json", at(history.directory), destination).document
        assert document["plan"] == local
        assert document["result"]["sent_bytes"] == local["send_bytes"]
        assert_copied(history.directory, destination)

    def test_relayed(self, history: History, destination: Path, far: FarLocations) -> None:
        """From root's login to that of a user with sudo, through here."""
        local = local_plan(history, destination)
        with far.readme_sudoers(destination):
            source, there = at(history.directory), at(destination, LIMITED)
            document = far.run("--json", source, there).document
        assert document["plan"] == local
        assert_copied(history.directory, destination)

    def test_to_a_bucket_and_back(
        self, history: History, destination: Path, far: FarLocations, bucket: Bucket
    ) -> None:
        environment = {**far.environment, **bucket.server.environment()}
        there = f"s3://{bucket.name}/x/"
        local = buttersink(
            "--json", "-n", f"{history.directory}/", there, environment=environment
        ).document
        up = buttersink("--json", at(history.directory), there, environment=environment).document
        assert up["plan"] == local["plan"]
        planned = buttersink("--json", "-n", there, destination, environment=environment).document
        down = buttersink("--json", there, at(destination), environment=environment).document
        assert down["plan"] == planned["plan"]
        assert_copied(history.directory, destination)


class TestConnections:
    """One for each location, however much there is to do."""

    def test_a_run_with_transfers_and_one_with_nothing_to_do(
        self, history: History, destination: Path, far: FarLocations
    ) -> None:
        for expected in ("Sent 12 snapshots", "Nothing to do: "):
            before = far.logins()
            done = far.run(f"{history.directory}/", at(destination))
            assert expected in done.out
            assert far.logins() == before + 1

    def test_a_relay_and_a_listing(
        self, history: History, destination: Path, far: FarLocations
    ) -> None:
        before = far.logins()
        far.run("-n", at(history.directory), at(destination))
        assert far.logins() == before + 2
        far.run(at(history.directory))
        assert far.logins() == before + 3


class TestLimitedUser:
    """What README.md's own lines allow, and nothing else."""

    def test_lists_looks_and_appends(
        self, history: History, destination: Path, far: FarLocations
    ) -> None:
        mine = destination / "mine"
        mine.mkdir()
        buttersink(f"{history.directory}/0000", destination / "secret")
        with far.readme_sudoers(mine), far.sshd.host.syslog() as log:
            there = at(mine, LIMITED)
            looked = far.run("--json", "-n", f"{history.directory}/", there).document
            assert {step["action"] for step in looked["plan"]["steps"]} == {"send"}
            assert os.listdir(mine) == []
            far.run(f"{history.directory}/", there)
            listed = far.run("--json", there).document
            assert len(listed["snapshots"]) == 12
            log.wait_for(f"server for {LIMITED}: serves mode a on {mine}, confined")
            log.wait_for("received: 0011")
            log.wait_for("ends: the client has left")
        assert_same(history.snapshots[-1].path, mine / "0011")

    def test_deletes_nothing_without_the_line_for_it(
        self, history: History, destination: Path, far: FarLocations
    ) -> None:
        buttersink(f"{history.directory}/", destination)
        delete_subvolume(destination / "0000")
        os.rename(destination / "0011", destination / "more")
        with far.readme_sudoers(destination):
            there = at(destination, LIMITED)
            refused = far.run("-d", f"{history.directory}/", there, status=1)
            assert "sudo wants a password there" in refused.err
        assert "more" in paths(destination)

    def test_a_key_for_one_purpose(
        self, history: History, destination: Path, far: FarLocations
    ) -> None:
        mine = destination / "mine"
        mine.mkdir()
        buttersink(f"{history.directory}/0000", destination / "secret")
        options = readme_key_options(mine)
        with far.readme_sudoers(mine), far.sshd.authorized(LIMITED, options):
            far.run(f"{history.directory}/", at(mine, LIMITED))
            assert len(far.run("--json", at(mine, LIMITED)).document["snapshots"]) == 12
            deleting = far.run("-d", f"{history.directory}/", at(mine, LIMITED), status=2)
            assert "mode w is needed, and the key, there, is for mode a" in deleting.err
            elsewhere = far.run(at(destination / "secret", LIMITED), status=2)
            assert f"the key, there, is for {mine} alone" in elsewhere.err
            said = far.sshd.ssh(f"{LIMITED}@testhost", "id -u")
            assert said.startswith("buttersink-protocol\n")
        assert_same(history.snapshots[-1].path, mine / "0011")
