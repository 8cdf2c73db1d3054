"""The main job on real btrfs: what arrives is what left, for the fewest bytes, once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from bench import timed
from buttersink import Mode, Role, open_store, parse_location, sync
from buttersink.catalogue import Diff
from buttersink.location import Location
from buttersink.planner.arborescence import minimum_arborescence
from buttersink.progress import Reporter
from buttersink.stores.btrfs import BtrfsStore
from tests.support.command import assert_same, buttersink, command_line, listing, paths
from tests.support.history import History, make_history
from tests.support.loopfs import MIB, btrfs, create_subvolume, show_subvolume, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from buttersink.catalogue import Catalogue

pytestmark = pytest.mark.root


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=12, count=12, base_bytes=12 * MIB, change_bytes=MIB)


def true_minimum(directory: Path) -> int:
    """Return the least bytes over all pairs of the snapshots there, every one measured."""
    with open_store(parse_location(f"{directory}/".encode()), Mode.READ, Role.SOURCE) as store:
        store.stream_version = store.traits.sends
        uuids = [snapshot.uuid for snapshot in store.catalogue().snapshots]
        nodes = {None: 0} | {uuid: node for node, uuid in enumerate(uuids, start=1)}
        pairs = [Diff(uuid, None) for uuid in uuids]
        pairs += [Diff(to, parent) for to, parent in permutations(uuids, 2)]
        sizes = {found.diff: found.bytes for found in store.measure(pairs)}
    lengths = [sizes[pair] for pair in pairs]
    tails, heads = [nodes[pair.parent] for pair in pairs], [nodes[pair.to] for pair in pairs]
    return sum(lengths[arc] for arc in minimum_arborescence(len(nodes), tails, heads, lengths)[1:])


def test_a_small_history_is_sent_for_the_true_minimum_of_bytes(
    source: Path, destination: Path
) -> None:
    history = make_history(source, seed=4, count=12, base_bytes=4 * MIB, change_bytes=MIB // 16)
    plan = buttersink("-n", "--json", f"{history.directory}/", destination).document["plan"]
    assert plan["send_bytes"] == true_minimum(history.directory)


def test_everything_arrives_for_about_the_true_minimum_of_bytes(
    history: History, destination: Path
) -> None:
    document = buttersink("--json", f"{history.directory}/", destination).document
    assert document["plan"]["send_count"] == 12
    assert document["plan"]["send_bytes"] <= 1.001 * true_minimum(history.directory)
    assert document["plan"]["lower_bound_bytes"] == document["plan"]["send_bytes"]
    assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
    planned = {step["path"]: step["size"] for step in document["plan"]["steps"]}
    assert {step["path"]: step["bytes"] for step in document["result"]["steps"]} == planned
    assert {step["status"] for step in document["result"]["steps"]} == {"done"}
    generations = {s["path"]: s["generation"] for s in listing(history.directory)["snapshots"]}
    for made in history.snapshots:
        assert_same(made.path, destination / made.path.name)
        here, there = show_subvolume(made.path), show_subvolume(destination / made.path.name)
        assert there.read_only
        assert there.received_uuid == here.uuid
        assert there.send_transid == generations[made.path.name]


def test_one_new_snapshot_is_planned_with_few_measurements(
    history: History, destination: Path
) -> None:
    newest = history.snapshots[-1]
    buttersink("-q", "--exclude", newest.path.name, f"{history.directory}/", destination)
    said = buttersink("-n", "-v", f"{history.directory}/", destination).err
    (count,) = re.findall(r"measured (\d+) of \d+ candidate", said)
    assert int(count) <= 12


def test_a_second_run_sends_nothing(history: History, destination: Path) -> None:
    buttersink(f"{history.directory}/", destination)
    before = subprocess.check_output(["btrfs", "subvolume", "list", "-uRg", destination])
    again = buttersink("--json", f"{history.directory}/", destination).document
    assert again["plan"]["send_count"] == 0
    assert again["result"]["sent_bytes"] == 0
    assert {step["action"] for step in again["plan"]["steps"]} == {"keep"}
    assert before == subprocess.check_output(["btrfs", "subvolume", "list", "-uRg", destination])
    assert "Nothing to do" in buttersink(f"{history.directory}/", destination).out


def test_a_new_snapshot_goes_as_a_difference_to_one_held(
    history: History, destination: Path
) -> None:
    *older, newest = history.snapshots
    buttersink("--exclude", newest.path.name, f"{history.directory}/", destination)
    assert newest.path.name not in paths(destination)
    document = buttersink("--json", f"{history.directory}/", destination).document
    (send,) = [step for step in document["plan"]["steps"] if step["action"] == "send"]
    assert send["from_path"] in {made.path.name for made in older}
    assert send["size"] < 6 * MIB
    assert_same(newest.path, destination / newest.path.name)


def test_what_arrived_can_be_sent_on_and_read_by_btrfs_progs(
    history: History, destination: Path, tmp_path: Path
) -> None:
    buttersink(f"{history.directory}/", destination)
    for made in history.snapshots[:2]:
        stream = tmp_path / "stream"
        btrfs("send", "--quiet", "-f", stream, destination / made.path.name)
        dumped = btrfs("receive", "--dump", "-f", stream)
        assert f"uuid={show_subvolume(made.path).uuid.hex()[:8]}" in dumped


def test_a_dry_run_shows_the_plan_and_changes_nothing(history: History, destination: Path) -> None:
    before = subprocess.check_output(["btrfs", "subvolume", "list", "-g", destination])
    document = buttersink("-n", "--json", f"{history.directory}/", destination / "new").document
    assert document["dry_run"] is True
    assert document["result"] is None
    assert document["plan"]["send_count"] == 12
    assert list(destination.iterdir()) == []
    assert before == subprocess.check_output(["btrfs", "subvolume", "list", "-g", destination])


def test_one_snapshot_is_sent_alone_and_keeps_its_name(history: History, destination: Path) -> None:
    made = history.snapshots[3]
    buttersink(made.path, destination / "one" / "place")
    assert paths(destination) == [f"one/place/{made.path.name}"]
    assert_same(made.path, destination / "one" / "place" / made.path.name)


def test_the_library_does_what_the_command_does(history: History, destination: Path) -> None:
    here = parse_location(f"{history.directory}/".encode())
    there = parse_location(str(destination).encode())
    with (
        open_store(here, Mode.READ, Role.SOURCE) as one,
        open_store(there, Mode.APPEND, Role.DESTINATION) as other,
    ):
        plan = sync.prepare(one, other, sync.Options(), Reporter())
        report = sync.carry_out(plan, one, other, Reporter())
    assert report.complete
    assert report.sent_bytes == plan.send_bytes
    assert paths(destination) == paths(history.directory)


def test_memory_does_not_grow_with_what_is_sent(
    source: Path, destination: Path, tmp_path: Path
) -> None:
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    (live / "big").write_bytes(os.urandom(300 * MIB))
    snapshot(live, source / "snaps" / "big")
    measure = [sys.executable, "-I", "-S", timed.__file__, str(tmp_path / "usage")]
    subprocess.run([*measure, *command_line(f"{source}/snaps/", destination)], check=True)
    assert json.loads((tmp_path / "usage").read_text())["peak_bytes"] < 120 * MIB


def test_estimates_make_a_plan_that_works(history: History, destination: Path) -> None:
    document = buttersink("--json", "-e", f"{history.directory}/", destination).document
    assert {step["size_is"] for step in document["plan"]["steps"]} == {"estimated"}
    assert {step["status"] for step in document["result"]["steps"]} == {"done"}
    for made in history.snapshots[-2:]:
        assert_same(made.path, destination / made.path.name)


def test_measured_sizes_are_exact_between_any_two(history: History) -> None:
    with open_store(
        parse_location(f"{history.directory}/".encode()), Mode.READ, Role.SOURCE
    ) as store:
        uuids = [snapshot.uuid for snapshot in store.catalogue().snapshots]
        pairs = [Diff(uuids[2], None), Diff(uuids[9], uuids[3]), Diff(uuids[1], uuids[11])]
        for found in store.measure(pairs):
            with store.send(found.diff) as chunks:
                assert sum(len(chunk) for chunk in chunks) == found.bytes


class Thinned(BtrfsStore):
    """A source of which something is deleted as soon as it has been listed."""

    def catalogue(self) -> Catalogue:
        """List, then delete the fifth snapshot."""
        found = super().catalogue()
        path = os.path.join(self.location.encode(), found.snapshots[4].path)
        if os.path.exists(path):
            btrfs("subvolume", "delete", os.fsdecode(path))
        return found


def test_what_cannot_be_measured_keeps_nothing_else_from_arriving(
    history: History, destination: Path
) -> None:
    places = (parse_location(os.fsencode(f"{p}/")) for p in (history.directory, destination))
    here, there = places
    assert isinstance(here, Location)
    with (
        Thinned(here, Mode.READ, Role.SOURCE) as store,
        open_store(there, Mode.APPEND, Role.DESTINATION) as target,
    ):
        plan = sync.prepare(store, target, sync.Options(), Reporter())
        (lost,) = (step for step in plan.steps if step.problem)
        assert lost.path == history.snapshots[4].path.name.encode()
        assert "cannot open the snapshot" in lost.problem
        report = sync.carry_out(plan, store, target, Reporter())
    assert not report.complete
    assert len(paths(destination)) == 11
    for made in (*history.snapshots[:4], *history.snapshots[5:]):
        assert_same(made.path, destination / made.path.name)
