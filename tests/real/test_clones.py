"""Data that the destination has in another snapshot than the parent is not sent again."""

from __future__ import annotations

import os
import subprocess
import time
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from buttersink import Mode, Role, open_store, parse_location
from buttersink.catalogue import Diff, Uuid
from buttersink.kernel import ioctl
from tests.support import sharing
from tests.support.command import assert_same, buttersink, command_line, listing, paths
from tests.support.history import make_history
from tests.support.loopfs import MIB, run, show_subvolume, snapshot
from tests.support.streams import CLONE, CLONE_UUID, decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

LITTLE = 300_000  # bytes that are more than all that is not shared
MAKERS = [sharing.bring_back, sharing.copy_by_reflink, sharing.deduplicate]


def sync_in_turn(snaps: Path, destination: Path) -> Any:  # noqa: ANN401  JSON
    """Sync all but the newest, then that; return how it was sent, with its bytes."""
    newest = paths(snaps)[-1]
    buttersink("--exclude", f"^{newest}$", f"{snaps}/", destination)
    document = buttersink("--json", f"{snaps}/", destination).document
    (step,) = [step for step in document["plan"]["steps"] if step["action"] == "send"]
    (result,) = document["result"]["steps"]
    assert result["status"] == "done"
    assert result["bytes"] == step["size"]
    assert document["plan"]["lower_bound_bytes"] == document["plan"]["send_bytes"]
    return step | {"bytes": result["bytes"]}


def assert_copied(snaps: Path, destination: Path) -> None:
    """Fail unless the destination holds every snapshot, as that snapshot, and nothing else."""
    assert sorted(os.listdir(destination)) == sorted(os.listdir(snaps)) == paths(snaps)
    for name in paths(snaps):
        assert_same(snaps / name, destination / name)
        here, there = show_subvolume(snaps / name), show_subvolume(destination / name)
        assert here.effective_uuid == there.effective_uuid


@pytest.mark.parametrize("make", MAKERS)
def test_shared_data_are_not_sent(
    source: Path, destination: Path, make: Callable[[Path], Path]
) -> None:
    snaps = make(source)
    sent = sync_in_turn(snaps, destination)
    assert sent["bytes"] < LITTLE
    assert len(sent["clone_sources"]) == 1
    assert_copied(snaps, destination)


@pytest.mark.parametrize("make", MAKERS)
def test_a_destination_that_holds_the_originals_gets_them_through_stand_ins(
    source: Path, destination: Path, make: Callable[[Path], Path]
) -> None:
    """`btrfs receive` (6.2) finds clone sources by received UUID; originals have none."""
    snaps = make(source)
    names = paths(snaps)
    buttersink(f"{snaps}/", destination)
    run("btrfs", "subvolume", "delete", snaps / names[-1])
    document = buttersink("--json", f"{destination}/", snaps).document
    (step,) = [step for step in document["plan"]["steps"] if step["action"] == "send"]
    assert document["result"]["sent_bytes"] == step["size"] < LITTLE
    assert_copied(destination, snaps)


def test_the_first_sync_uses_what_came_before_in_the_same_run(
    source: Path, destination: Path
) -> None:
    snaps = sharing.copy_by_reflink(source)
    document = buttersink("--json", f"{snaps}/", destination).document
    first, second = document["plan"]["steps"]
    assert second["clone_sources"] == [first["uuid"]]
    assert second["size"] < LITTLE < first["size"]
    assert_copied(snaps, destination)


def test_the_plan_says_from_where_and_what_it_would_be_without(
    source: Path, destination: Path
) -> None:
    said = buttersink("-n", "-v", f"{sharing.copy_by_reflink(source)}/", destination).out
    assert "full, with clones" in said
    assert "with clones of a; without, 12.1 MiB" in said


def test_an_estimate_uses_none(source: Path, destination: Path) -> None:
    snaps = sharing.copy_by_reflink(source)
    document = buttersink("--json", "-e", f"{snaps}/", destination).document
    assert [step["clone_sources"] for step in document["plan"]["steps"]] == [[], []]


def test_one_of_several_with_a_received_uuid_is_taken_and_no_other(
    source: Path, destination: Path
) -> None:
    """The oldest, which `btrfs receive` would take, was tampered with by ioctl."""
    snaps = sharing.bring_back(source)
    buttersink("--exclude", "^3$", f"{snaps}/", destination / "old")
    (destination / "new").mkdir()
    for name in ("1", "2"):
        snapshot(destination / "old" / name, destination / "new" / name)
    fd = os.open(destination / "old" / "1", os.O_RDONLY)
    try:
        ioctl.set_read_only(fd, read_only=False)
        (destination / "old" / "1" / "data").write_bytes(os.urandom(sharing.DATA))
        ioctl.set_read_only(fd, read_only=True)
    finally:
        os.close(fd)
    document = buttersink("--json", f"{snaps}/", destination / "new").document
    assert document["result"]["sent_bytes"] < LITTLE
    assert_copied(snaps, destination / "new")


def test_what_is_to_be_cloned_from_a_snapshot_that_failed_is_sent(
    source: Path, destination: Path
) -> None:
    snaps = sharing.copy_by_reflink(source)
    (destination / "a").write_bytes(b"in the way")
    document = buttersink("--json", f"{snaps}/", destination, status=1).document
    assert [step["status"] for step in document["result"]["steps"]] == ["failed", "done"]
    assert document["result"]["steps"][1]["bytes"] > sharing.DATA
    assert_same(snaps / "b", destination / "b")


def cloned_from(stream: bytes) -> set[bytes]:
    """Return the UUIDs that the CLONE commands of a stream name."""
    _version, commands = decode(stream)
    return {each.value(CLONE_UUID) for each in commands if each.number == CLONE}


def assert_exact(snaps: Path, diffs: Callable[[list[Uuid]], list[Diff]]) -> None:
    with open_store(parse_location(f"{snaps}/".encode()), Mode.READ, Role.SOURCE) as store:
        asked = diffs([each.uuid for each in store.catalogue().snapshots])
        for found in store.measure(asked):
            with store.send(found.diff) as chunks:
                stream = b"".join(bytes(chunk) for chunk in chunks)
            assert len(stream) == found.bytes, found
            expected = cloned_from(stream).intersection(found.diff.clones)
            assert found.clones == tuple(sorted(expected))


def test_measured_sizes_are_exact_with_any_clone_sources(source: Path) -> None:
    history = make_history(source, seed=31, count=8, base_bytes=4 * MIB, change_bytes=MIB // 4)
    random = Random(31)

    def diffs(uuids: list[Uuid]) -> list[Diff]:
        chosen = []
        for number in range(90):
            to, *rest = random.sample(uuids, len(uuids))
            parent = None if number % 3 == 0 else rest[0]
            count = random.randrange(len(rest))
            chosen.append(Diff(to, parent, tuple(sorted(rest[1 : 1 + count]))))
        return chosen

    assert_exact(history.directory, diffs)


@pytest.mark.parametrize("make", MAKERS)
def test_measured_sizes_of_shared_data_are_exact(
    source: Path, make: Callable[[Path], Path]
) -> None:
    def diffs(uuids: list[Uuid]) -> list[Diff]:
        pairs = chain(((to, None) for to in uuids), ((a, b) for a in uuids for b in uuids))
        return [
            Diff(to, parent, tuple(sorted({*uuids} - {to, parent})))
            for to, parent in pairs
            if to != parent
        ]

    assert_exact(make(source), diffs)


def test_a_kill_leaves_partials_and_the_next_run_nothing_of_them(
    source: Path, destination: Path
) -> None:
    snaps = sharing.bring_back(source)
    (source / "live" / "more").write_bytes(os.urandom(60 * MIB))
    snapshot(source / "live", snaps / "4")
    buttersink(f"{snaps}/", destination)
    for name in ("3", "4"):
        run("btrfs", "subvolume", "delete", snaps / name)
    command = command_line(f"{destination}/", snaps, "--exclude", "^3$")
    before = paths(snaps)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not any(name.endswith(".base1") for name in os.listdir(snaps)):
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.kill()
    found = listing(snaps)
    assert [each["path"] for each in found["snapshots"]] == before
    left = {each["path"] for each in found["partials"]}
    assert {name.rpartition(".")[2] for name in left} >= {"base", "base1"}
    assert left | {*before} == {*os.listdir(snaps)}
    buttersink(f"{destination}/", snaps)
    assert_copied(destination, snaps)
