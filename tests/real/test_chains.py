"""Real streams into a store where diffs stay diffs: planned, kept, thinned out, and restored."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from buttersink import Mode, Role, open_store, parse_location, sync
from buttersink.planner import Action, PlanOptions
from buttersink.progress import Reporter
from buttersink.verdict import Depth
from buttersink.verifying import verify
from tests.support.command import assert_same
from tests.support.diffdirectory import DiffDirectory
from tests.support.history import History, make_history
from tests.support.loopfs import MIB, delete_subvolume

if TYPE_CHECKING:
    from pathlib import Path

    from buttersink.planner import Plan
    from buttersink.report import Report

pytestmark = pytest.mark.root


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=5, count=12, base_bytes=4 * MIB, change_bytes=MIB // 8)


@pytest.fixture
def archive(tmp_path: Path) -> DiffDirectory:
    return DiffDirectory(tmp_path / "archive")


def carried_out(
    history: History, archive: DiffDirectory, *, delete: bool = False, max_chain: int | None = None
) -> tuple[Plan, Report]:
    options = sync.Options(PlanOptions(delete=delete, max_chain=max_chain))
    place = parse_location(f"{history.directory}/".encode())
    with open_store(place, Mode.READ, Role.SOURCE) as store:
        plan = sync.prepare(store, archive, options, Reporter())
        return plan, sync.carry_out(plan, store, archive, Reporter())


def restore(archive: DiffDirectory, target: Path) -> None:
    """Receive every diff in an order in which each finds its parent, by btrfs-progs alone."""
    left = list(archive.catalogue().diffs)
    there: set[bytes | None] = {None}
    while left:
        diff = next(diff for diff in left if diff.parent in there)
        left.remove(diff)
        there.add(diff.to)
        with archive.file(diff).open("rb") as stream:
            subprocess.run(["btrfs", "receive", "--quiet", target], stdin=stream, check=True)


def test_what_is_kept_restores_by_btrfs_receive_to_what_was_sent(
    history: History, archive: DiffDirectory, destination: Path
) -> None:
    plan, report = carried_out(history, archive)
    assert report.complete
    assert report.sent_bytes == plan.send_bytes
    assert plan.cost_bound <= plan.cost <= 1.01 * plan.cost_bound
    assert plan.lower_bound <= plan.send_bytes
    restore(archive, destination)
    for made in history.snapshots:
        assert_same(made.path, destination / made.path.name)


def test_a_second_run_sends_nothing(history: History, archive: DiffDirectory) -> None:
    carried_out(history, archive)
    plan, _report = carried_out(history, archive, delete=True)
    assert {step.action for step in plan.steps} == {Action.KEEP}


def test_a_broken_chain_is_mended_by_what_is_missing_alone(
    history: History, archive: DiffDirectory
) -> None:
    plan, _report = carried_out(history, archive)
    step = max(plan.of(Action.SEND), key=lambda step: step.depth)
    assert step.parent is not None
    (broken,) = (d for d in archive.catalogue().diffs if d.to == step.parent.uuid)
    archive.file(broken).unlink()
    again, report = carried_out(history, archive)
    assert report.complete
    assert [send.path for send in again.of(Action.SEND)] == [step.parent.path]


def test_a_limit_holds_and_every_snapshot_is_within_it(
    history: History, archive: DiffDirectory
) -> None:
    plan, report = carried_out(history, archive, max_chain=3)
    assert report.complete
    assert len(plan.of(Action.SEND)) == 12
    assert max(step.depth for step in plan.of(Action.SEND)) <= 3
    assert not plan.guesses


def test_with_delete_what_is_gone_goes_and_no_chain_breaks(
    history: History, archive: DiffDirectory, destination: Path
) -> None:
    carried_out(history, archive)
    gone = history.snapshots[1:11:2]
    for made in gone:
        delete_subvolume(made.path)
    _plan, report = carried_out(history, archive, delete=True)
    assert report.complete
    restore(archive, destination)
    for made in history.snapshots:
        if made not in gone:
            assert_same(made.path, destination / made.path.name)
    again, _report = carried_out(history, archive, delete=True)
    assert {step.action for step in again.steps} == {Action.KEEP}


def test_what_verification_says_is_lost_comes_back_by_the_run_that_it_names(
    history: History, archive: DiffDirectory
) -> None:
    carried_out(history, archive)
    for depth in Depth:
        verdict = verify(archive, depth, PlanOptions(), Reporter())
        assert (verdict.broken, verdict.lost, verdict.notes) == ((), (), ())
    full = next(diff for diff in archive.catalogue().diffs if diff.parent is None)
    data = bytearray(archive.file(full).read_bytes())
    data[len(data) // 2] ^= 1
    archive.file(full).write_bytes(data)
    for depth in (Depth.CHECKSUMS, Depth.FULL):
        verdict = verify(archive, depth, PlanOptions(), Reporter())
        assert [finding.diff for finding in verdict.broken] == [full]
        assert full.to in {loss.snapshot for loss in verdict.lost}
    archive.file(full).unlink()
    assert not verify(archive, Depth.CHAINS, PlanOptions(), Reporter()).sound
    carried_out(history, archive)
    verdict = verify(archive, Depth.FULL, PlanOptions(), Reporter())
    assert (verdict.broken, verdict.lost) == ((), ())
