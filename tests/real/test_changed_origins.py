"""What somebody changes at the destination during a run is not what a snapshot is made from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from buttersink import Mode, Role, open_store, parse_location, sync
from buttersink.kernel import ioctl
from buttersink.planner import PlanOptions
from buttersink.progress import Reporter, Transfer
from buttersink.report import Report, Status
from buttersink.stores.btrfs import segmented
from tests.support.command import buttersink, paths
from tests.support.history import History, make_history
from tests.support.loopfs import (
    MIB,
    create_subvolume,
    delete_subvolume,
    send_and_receive,
    snapshot,
    sync_filesystem,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

KIB = 1024


@pytest.fixture
def history(source: Path, destination: Path) -> History:
    """A history of which the destination holds the first two."""
    made = make_history(source, seed=11, count=4, base_bytes=2 * MIB, change_bytes=2 * MIB)
    buttersink("--exclude", "^000[23]$", f"{made.directory}/", destination)
    return made


class Meddler(Reporter):
    """Does something when a transfer has got so far."""

    def __init__(self, meddle: Callable[[], None], after: int) -> None:
        self._meddle, self._after = meddle, after

    def transfer_started(self, transfer: Transfer) -> None:
        self.transfer_advanced(transfer, 0)

    def transfer_advanced(self, transfer: Transfer, sent: int) -> None:  # noqa: ARG002
        if 0 <= self._after <= sent:
            self._after = -1
            self._meddle()


def transfer(source: Path, destination: Path, reporter: Reporter) -> Report:
    here, there = (parse_location(f"{path}/".encode()) for path in (source, destination))
    options = sync.Options(PlanOptions())
    with (
        open_store(here, Mode.READ, Role.SOURCE) as store,
        open_store(there, Mode.WRITE, Role.DESTINATION) as target,
    ):
        plan = sync.prepare(store, target, options, Reporter())
        return sync.carry_out(plan, store, target, reporter)


def change(path: Path, *, hide: bool) -> None:
    """Write into a snapshot so that its UUIDs stay; perhaps make it read-only again."""
    fd = os.open(path, os.O_RDONLY)
    try:
        ioctl.set_read_only(fd, read_only=False)
        (path / "more").write_bytes(b"more")
        if hide:
            ioctl.set_read_only(fd, read_only=True)
    finally:
        os.close(fd)


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("after", [0, 300 * KIB])
def test_a_parent_that_was_changed(
    history: History, destination: Path, after: int, *, hide: bool
) -> None:
    """Before the receiver has found it, or after: that is not told apart."""
    parent = destination / "0001"
    meddler = Meddler(lambda: change(parent, hide=hide), after)
    report = transfer(history.directory, destination, meddler)
    assert [step.status for step in report.steps] == [Status.FAILED, Status.SKIPPED]
    assert "0001, which it is made from, has just been changed" in str(report.steps[0].error)
    assert sorted(os.listdir(destination)) == ["0000", "0001"]
    delete_subvolume(parent)
    buttersink(f"{history.directory}/", destination)
    assert paths(destination) == paths(history.directory)


def test_no_checkpoint_is_made_from_it(
    history: History, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmented, "SEGMENT_BYTES", 512 * KIB)
    meddler = Meddler(lambda: change(destination / "0001", hide=True), 0)
    report = transfer(history.directory, destination, meddler)
    assert [step.status for step in report.steps] == [Status.FAILED, Status.SKIPPED]
    assert sorted(os.listdir(destination)) == ["0000", "0001"]


def test_a_parent_that_goes_when_it_is_no_more_needed(
    history: History, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first checkpoint all the rest is made from that."""
    monkeypatch.setattr(segmented, "SEGMENT_BYTES", 512 * KIB)
    meddler = Meddler(lambda: delete_subvolume(destination / "0001"), MIB)
    report = transfer(history.directory, destination, meddler)
    assert report.complete
    assert sorted(os.listdir(destination)) == ["0000", "0002", "0003"]


def test_a_snapshot_elsewhere_that_was_changed_is_not_copied(
    source: Path, destination: Path
) -> None:
    live = create_subvolume(source / "live")
    (live / "file").write_bytes(b"content")
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "a")
    (destination / "elsewhere").mkdir()
    buttersink(f"{source}/snaps/", destination / "elsewhere")
    (destination / "here").mkdir()
    elsewhere = destination / "elsewhere" / "a"
    meddler = Meddler(lambda: change(elsewhere, hide=True), 0)
    report = transfer(source / "snaps", destination / "here", meddler)
    assert "elsewhere/a, which it is made from, has just been changed" in str(report.steps[0].error)
    assert os.listdir(destination / "here") == []


def test_a_parent_that_btrfs_receive_has_not_brought_to_the_disk_yet(
    source: Path, destination: Path
) -> None:
    """The transaction that changed it last grows while its data are written, which is no change."""
    made = make_history(source, seed=12, count=2, base_bytes=64 * MIB, change_bytes=MIB)
    send_and_receive(made.directory / "0000", destination)
    report = transfer(made.directory, destination, Meddler(lambda: sync_filesystem(destination), 0))
    assert report.complete, report
    assert paths(destination) == ["0000", "0001"]
