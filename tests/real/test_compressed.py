"""Data that are compressed on disk travel as they are, if both sides can have it so."""

from __future__ import annotations

import json
import os
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from buttersink import Mode, Role, open_store, parse_location
from buttersink.catalogue import Diff
from tests.support.command import Argument, assert_copied, assert_same, buttersink, paths, run_raw
from tests.support.compressible import make_big, make_compressible
from tests.support.fakessh import fake_ssh
from tests.support.loopfs import MIB, btrfs, create_subvolume, run, snapshot
from tests.support.oldprogs import old_progs
from tests.support.smallsegments import SEGMENT_BYTES, killed_after, small_segments

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.s3servers import Bucket

pytestmark = pytest.mark.root

BIG_MIB = 8
PLAIN = BIG_MIB * MIB  # bytes that a stream of version 1 has at least


@pytest.mark.parametrize(("method", "seed"), [("zstd", 1), ("lzo", 5), ("zlib", 7)])
@pytest.mark.parametrize("version", [1, 2])
def test_measured_sizes_are_exact(source: Path, method: str, seed: int, version: int) -> None:
    snaps = make_compressible(source, Random(seed), count=4, method=method)
    with open_store(parse_location(f"{snaps}/".encode()), Mode.READ, Role.SOURCE) as store:
        store.stream_version = version
        uuids = [each.uuid for each in store.catalogue().snapshots]
        pairs = [Diff(to, None) for to in uuids]
        pairs += [Diff(to, parent) for to, parent in permutations(uuids, 2)]
        measured = {found.diff: found.bytes for found in store.measure(pairs)}
        for pair in pairs:
            with store.send(pair) as chunks:
                assert sum(map(len, chunks)) == measured[pair], pair


@pytest.fixture
def snaps(source: Path) -> Path:
    """Return a directory with two snapshots: a big file of text, and a bit more."""
    live = create_subvolume(source / "live")
    btrfs("property", "set", live, "compression", "zstd")
    make_big(live / "text", Random(1), BIG_MIB)
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "one")
    (live / "more").write_bytes(b"more " * 40_000)
    snapshot(live, source / "snaps" / "two")
    return source / "snaps"


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    """Return an environment with btrfs-progs that do not take compressed data well."""
    return old_progs(tmp_path / "old")


def ssh_to(environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return an environment with an ssh to a host that has that one."""
    return fake_ssh(directory, settings={"PATH": f"{directory}:{environment['PATH']}"})


def synced(*arguments: Argument, environment: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
    """Sync; return the result, whose bytes are those of the plan."""
    document = buttersink("--json", *arguments, environment=environment).document
    assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
    return document["result"]


def used(path: Path) -> int:
    """Return the bytes that data take on a file system."""
    run("sync")
    line = next(s for s in btrfs("filesystem", "df", "--raw", path).splitlines() if "Data" in s)
    return int(line.rpartition("used=")[2])


def test_they_take_as_little_room_on_the_way_and_there(snaps: Path, destination: Path) -> None:
    assert synced(f"{snaps}/", destination)["sent_bytes"] < PLAIN // 2
    assert_copied(snaps, destination)
    assert used(destination) < PLAIN // 2


def test_a_history_of_them_is_the_same_there(source: Path, destination: Path) -> None:
    snaps = make_compressible(source, Random(3), count=6)
    synced(f"{snaps}/", destination)
    assert_copied(snaps, destination)


def test_a_history_of_them_is_the_same_in_segments(source: Path, destination: Path) -> None:
    """Every snapshot takes several, and one that was killed goes on."""
    snaps = make_compressible(source, Random(4), count=2)
    killed_after(2, "-q", f"{snaps}/", destination)
    done = run_raw(small_segments("--json", f"{snaps}/", destination))
    first = json.loads(done.stdout)["result"]["steps"][0]
    assert first["resumed_from"] >= 2 * SEGMENT_BYTES
    assert_copied(snaps, destination)


class TestOldProgs:
    """Such as lose compressed data in silence."""

    def test_are_sent_plain_data(self, snaps: Path, destination: Path, old: dict[str, str]) -> None:
        assert synced(f"{snaps}/", destination, environment=old)["sent_bytes"] > PLAIN
        assert_copied(snaps, destination)

    def test_are_sent_plain_data_by_ssh(
        self, snaps: Path, destination: Path, old: dict[str, str], tmp_path: Path
    ) -> None:
        there = ssh_to(old, tmp_path / "bin")
        place = f"ssh://host{destination}/"
        assert synced(f"{snaps}/", place, environment=there)["sent_bytes"] > PLAIN
        assert_copied(snaps, destination)

    def test_matter_only_where_data_arrive(
        self, snaps: Path, destination: Path, old: dict[str, str], tmp_path: Path
    ) -> None:
        there = ssh_to(old, tmp_path / "bin")
        result = synced(f"ssh://host{snaps}/", destination, environment=there)
        assert result["sent_bytes"] < PLAIN // 2
        assert_copied(snaps, destination)

    def test_get_nothing_from_a_bucket(
        self, snaps: Path, destination: Path, old: dict[str, str], s3: Bucket
    ) -> None:
        place, account = f"s3://{s3.name}/x/", s3.server.environment()
        assert synced(f"{snaps}/", place, environment=account)["sent_bytes"] < PLAIN // 2
        done = buttersink(place, destination, status=1, environment={**account, **old})
        assert "version 2, which btrfs-progs take well from 6.0.2 on" in done.err
        assert "Upgrade btrfs-progs where it is received." in done.err
        assert os.listdir(destination) == []
        synced(place, destination, environment=account)
        assert_copied(snaps, destination)


def test_a_transfer_that_was_begun_without_goes_on_without(
    snaps: Path, destination: Path, old: dict[str, str]
) -> None:
    one = snaps / "one"
    killed_after(3, "-q", one, destination, environment=old)
    step = buttersink("--json", one, destination).document["result"]["steps"][0]
    assert step["resumed_from"] >= 3 * SEGMENT_BYTES
    assert step["bytes"] + step["resumed_from"] > PLAIN
    assert paths(destination) == ["one"]
    assert_same(one, destination / "one")


def test_an_estimate_is_of_what_is_sent(snaps: Path, destination: Path) -> None:
    plan = buttersink("--json", "-n", "-e", f"{snaps}/", destination).document["plan"]
    sent = buttersink("--json", f"{snaps}/", destination).document["result"]["sent_bytes"]
    assert 0.5 < plan["send_bytes"] / sent < 2
