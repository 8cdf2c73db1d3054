"""
From a store that keeps diffs to a directory, by way of snapshots that nobody wants there.

The streams are as ButterSink sends them, the receiver is the real one. What was only on the way is
never seen as a snapshot, and is gone at the end however the run ends.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buttersink import Mode, Role, open_store, parse_location, sync
from buttersink.catalogue import uuid_text
from buttersink.planner import Action, PlanOptions, Weights
from buttersink.progress import Reporter, Transfer
from buttersink.report import Status
from tests.support.command import assert_same, buttersink, listing, paths
from tests.support.diffdirectory import DiffDirectory
from tests.support.history import make_history
from tests.support.loopfs import MIB, create_subvolume, show_subvolume, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from buttersink.catalogue import Uuid
    from buttersink.planner import Plan
    from buttersink.report import Report
    from tests.support.history import History

pytestmark = pytest.mark.root

PARTIAL = re.compile(r"\.buttersink-[0-9a-f-]{36}\.part")


class Archive:
    """
    A history whose diffs are stored, each snapshot reached by one chain.

    Attributes:
        directory: Where the diffs are.
        history: What they were made from.
        chain: Names of the snapshots on the longest way to one, that last.

    """

    def __init__(self, directory: Path, history: History) -> None:
        self.directory, self.history = directory, history
        with open_store(
            parse_location(f"{history.directory}/".encode()), Mode.READ, Role.SOURCE
        ) as store:
            archive = DiffDirectory(directory, Weights(keeps_diffs=True, hop=0.0))
            plan = sync.prepare(store, archive, sync.Options(), Reporter())
            assert sync.carry_out(plan, store, archive, Reporter()).complete
        parents = {
            step.path: step.parent.path if step.parent else None for step in plan.of(Action.SEND)
        }
        name: bytes | None = max(plan.of(Action.SEND), key=lambda step: step.depth).path
        self.chain: list[str] = []
        while name is not None:
            self.chain.insert(0, os.fsdecode(name))
            name = parents[name]

    def original(self, name: str) -> Path:
        """Return where a snapshot was made."""
        return self.history.directory / name

    def partial(self, name: str) -> str:
        """Return the name that a snapshot has while it passes."""
        return f".buttersink-{uuid_text(self.uuid(name))}.part"

    def uuid(self, name: str) -> Uuid:
        """Return a snapshot's effective UUID."""
        return show_subvolume(self.original(name)).effective_uuid

    def diff(self, name: str) -> Path:
        """Return the file of the one diff that makes a snapshot."""
        (found,) = self.directory.glob(f"{uuid_text(self.uuid(name))}_*")
        return found


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> Archive:
    history = make_history(source, seed=5, count=8, base_bytes=4 * MIB, change_bytes=MIB // 8)
    made = Archive(tmp_path / "archive", history)
    assert len(made.chain) >= 4
    return made


def fetch(
    archive: Archive | Path,
    destination: Path,
    name: str | None,
    *,
    options: PlanOptions | None = None,
    reporter: Reporter | None = None,
) -> tuple[Plan, Report]:
    """Sync one snapshot of the archive, or all, as the command does."""
    directory = archive.directory if isinstance(archive, Archive) else archive
    single = None if name is None else os.fsencode(name)
    options = options or PlanOptions()
    mode = Mode.WRITE if options.delete else Mode.APPEND
    place = parse_location(os.fsencode(destination))
    with (
        DiffDirectory(directory, single=single) as store,
        open_store(place, mode, Role.DESTINATION) as target,
    ):
        plan = sync.prepare(store, target, sync.Options(options), Reporter())
        return plan, sync.carry_out(plan, store, target, reporter or Reporter())


class Swapping(Reporter):
    """Puts a file in the place of what passes, when the transfer with this number has ended."""

    def __init__(self, number: int, place: Path) -> None:
        self._number, self._place = number, place

    def transfer_ended(self, transfer: Transfer, error: Exception | None) -> None:
        """Do it."""
        assert error is None
        if transfer.number == self._number:
            self._place.rename(self._place.with_name("moved"))
            self._place.touch()


class At(Reporter):
    """Does something at the first bytes of the transfer with this number."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self._number, self._act = number, act

    def transfer_advanced(self, transfer: Transfer, sent: int) -> None:
        """Do it."""
        del sent
        if transfer.number == self._number:
            self._act()


def passing(plan: Plan) -> list[str]:
    return [os.fsdecode(step.path) for step in plan.steps if step.passing]


def test_all_of_them_are_restored_and_nothing_passes(archive: Archive, destination: Path) -> None:
    plan, report = fetch(archive, destination, None)
    assert report.complete
    assert passing(plan) == []
    for made in archive.history.snapshots:
        assert_same(made.path, destination / made.path.name)
    assert len(os.listdir(destination)) == 8


def test_of_a_single_one_only_that_is_left(archive: Archive, destination: Path) -> None:
    *before, last = archive.chain
    plan, report = fetch(archive, destination, last)
    assert report.complete
    assert passing(plan) == before
    assert report.sent_bytes == plan.send_bytes
    assert [step.passing for step in report.steps] == [True] * len(before) + [False]
    assert os.listdir(destination) == [last]
    assert_same(archive.original(last), destination / last)
    shown = show_subvolume(destination / last)
    assert shown.received_uuid == archive.uuid(last)


def test_again_there_is_nothing_to_do(archive: Archive, destination: Path) -> None:
    fetch(archive, destination, archive.chain[-1])
    plan, report = fetch(archive, destination, archive.chain[-1])
    assert [step.action for step in plan.steps] == [Action.KEEP]
    assert report.sent_bytes == 0


def test_each_goes_when_nothing_more_starts_from_it(archive: Archive, destination: Path) -> None:
    seen: list[list[str]] = []
    last = len(archive.chain)
    looking = At(last, lambda: seen.append(sorted(os.listdir(destination))))
    fetch(archive, destination, archive.chain[-1], reporter=looking)
    assert archive.partial(archive.chain[-2]) in seen[0]
    assert not {archive.partial(name) for name in archive.chain[:-2]} & set(seen[0])


def test_while_it_passes_it_lists_as_a_partial(archive: Archive, destination: Path) -> None:
    seen = []
    looking = At(3, lambda: seen.append(listing(destination)))
    fetch(archive, destination, archive.chain[-1], reporter=looking)
    assert seen[0]["snapshots"] == []
    assert all(PARTIAL.fullmatch(partial["path"]) for partial in seen[0]["partials"])
    assert archive.partial(archive.chain[1]) in [each["path"] for each in seen[0]["partials"]]


def test_an_ancestor_that_was_there_before_is_used_and_stays(
    archive: Archive, destination: Path
) -> None:
    first, second, *between, last = archive.chain
    fetch(archive, destination, second)
    assert os.listdir(destination) == [second]
    plan, report = fetch(archive, destination, last)
    assert report.complete
    assert passing(plan) == between
    assert first not in passing(plan)
    assert sorted(os.listdir(destination)) == sorted([second, last])
    assert_same(archive.original(second), destination / second)
    assert_same(archive.original(last), destination / last)


def test_an_ancestor_elsewhere_on_the_file_system_is_used_and_stays(
    archive: Archive, destination: Path
) -> None:
    elsewhere, here = destination / "elsewhere", destination / "here"
    second, last = archive.chain[1], archive.chain[-1]
    fetch(archive, elsewhere, second)
    plan, report = fetch(archive, here, last)
    assert report.complete
    assert passing(plan) == archive.chain[2:-1]
    assert (os.listdir(elsewhere), os.listdir(here)) == ([second], [last])
    assert_same(archive.original(last), here / last)


def test_excluded_ancestors_go_again(archive: Archive, destination: Path) -> None:
    names = "|".join(archive.chain[:-1]).encode()
    exclude = (re.compile(b"^(" + names + b")$"),)
    plan, report = fetch(archive, destination, None, options=PlanOptions(exclude=exclude))
    assert report.complete
    assert set(passing(plan)) == set(archive.chain[:-1])
    left = {made.path.name for made in archive.history.snapshots} - set(archive.chain[:-1])
    assert set(os.listdir(destination)) == left
    for name in left:
        assert_same(archive.original(name), destination / name)


def test_one_whose_path_is_taken_passes(archive: Archive, destination: Path) -> None:
    """It cannot appear, which is told; what starts from it arrives all the same."""
    taken = archive.chain[1]
    live = create_subvolume(destination / "live")
    there = snapshot(live, destination / taken)
    plan, report = fetch(archive, destination, None)
    assert passing(plan) == [taken]
    failed = [step for step in report.steps if step.status is not Status.DONE]
    assert [(os.fsdecode(step.path), step.status) for step in failed] == [(taken, Status.FAILED)]
    assert os.listdir(there) == []
    for made in archive.history.snapshots:
        if made.path.name != taken:
            assert_same(made.path, destination / made.path.name)
    assert len(os.listdir(destination)) == 9


def test_for_a_single_one_other_snapshots_paths_do_not_matter(
    archive: Archive, destination: Path
) -> None:
    live = create_subvolume(destination / "live")
    taken = [snapshot(live, destination / name) for name in archive.chain[:-1]]
    _plan, report = fetch(archive, destination, archive.chain[-1])
    assert report.complete
    assert [os.listdir(each) for each in taken] == [[] for _ in taken]
    assert_same(archive.original(archive.chain[-1]), destination / archive.chain[-1])


def test_a_wanted_one_in_a_directory_is_reached_by_way_of_the_top(
    archive: Archive, destination: Path
) -> None:
    last = archive.chain[-1]
    for notes in archive.directory.glob("*.json"):
        notes.write_text(notes.read_text().replace(f'"{last}"', f'"deep/er/{last}"'))
    _plan, report = fetch(archive, destination, f"deep/er/{last}")
    assert report.complete
    assert os.listdir(destination) == ["deep"]
    assert_same(archive.original(last), destination / "deep/er" / last)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interruption_leaves_nothing_and_a_rerun_works(
    archive: Archive, destination: Path, number: int
) -> None:
    last = archive.chain[-1]
    with pytest.raises(KeyboardInterrupt):
        fetch(archive, destination, last, reporter=At(number, interrupt))
    assert os.listdir(destination) == []
    _plan, report = fetch(archive, destination, last)
    assert report.complete
    assert os.listdir(destination) == [last]
    assert_same(archive.original(last), destination / last)


KILLED = """
import os, signal, sys
from pathlib import Path
from buttersink import Mode, Role, open_store, parse_location, sync
from buttersink.progress import Reporter
from tests.support.diffdirectory import DiffDirectory

class Dying(Reporter):
    def transfer_advanced(self, transfer, sent):
        if transfer.number == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

source = DiffDirectory(Path(sys.argv[1]), single=os.fsencode(sys.argv[2]))
place = parse_location(os.fsencode(sys.argv[3]))
with open_store(place, Mode.APPEND, Role.DESTINATION) as target:
    plan = sync.prepare(source, target, sync.Options(), Reporter())
    sync.carry_out(plan, source, target, Dying())
"""


def kill(archive: Archive, destination: Path, name: str, number: int) -> None:
    """Have a run end by SIGKILL in the transfer with this number."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, archive.directory, name, destination, str(number)],
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == -signal.SIGKILL


def test_a_kill_leaves_partials_alone_and_a_rerun_clears_them(
    archive: Archive, destination: Path
) -> None:
    last = archive.chain[-1]
    kill(archive, destination, last, 3)
    left = os.listdir(destination)
    assert archive.partial(archive.chain[1]) in left
    assert all(PARTIAL.fullmatch(name) for name in left)
    assert paths(destination) == []
    uuids = {archive.uuid(name) for name in archive.chain}
    for name in left:
        assert show_subvolume(destination / name).received_uuid not in uuids
    plan, report = fetch(archive, destination, last)
    assert report.complete
    assert passing(plan) == archive.chain[:-1]
    assert os.listdir(destination) == [last]
    assert_same(archive.original(last), destination / last)


def test_a_kill_leaves_what_delete_of_the_destination_clears(
    archive: Archive, destination: Path
) -> None:
    kill(archive, destination, archive.chain[-1], 3)
    buttersink("--delete", f"{destination}/")
    assert os.listdir(destination) == []


def test_with_delete_what_a_kill_left_is_taken_up_or_goes(
    archive: Archive, destination: Path
) -> None:
    kill(archive, destination, archive.chain[-1], len(archive.chain))
    assert archive.partial(archive.chain[-2]) in os.listdir(destination)
    exclude = (re.compile(b"^" + archive.chain[-2].encode() + b"$"),)
    options = PlanOptions(delete=True, exclude=exclude)
    _plan, report = fetch(archive, destination, None, options=options)
    assert report.complete
    left = {made.path.name for made in archive.history.snapshots} - {archive.chain[-2]}
    assert set(os.listdir(destination)) == left


def test_a_damaged_diff_on_the_way_fails_with_what_needs_it_alone(
    archive: Archive, destination: Path
) -> None:
    file = archive.diff(archive.chain[1])
    file.write_bytes(file.read_bytes()[:-200])
    _plan, report = fetch(archive, destination, archive.chain[-1])
    states = [step.status for step in report.steps]
    skipped = [Status.SKIPPED] * (len(archive.chain) - 2)
    assert states == [Status.DONE, Status.FAILED, *skipped]
    assert os.listdir(destination) == []


def test_a_broken_chain_names_what_is_missing_and_the_rest_is_done(
    archive: Archive, destination: Path
) -> None:
    archive.diff(archive.chain[1]).unlink()
    plan, report = fetch(archive, destination, archive.chain[-1])
    (step,) = plan.steps
    assert uuid_text(archive.uuid(archive.chain[1])) in step.problem
    assert [result.status for result in report.steps] == [Status.FAILED]
    plan, report = fetch(archive, destination, archive.chain[0])
    assert report.complete
    assert os.listdir(destination) == [archive.chain[0]]


def test_one_that_cannot_be_removed_is_told(archive: Archive, destination: Path) -> None:
    name = archive.partial(archive.chain[-2])
    swapping = Swapping(len(archive.chain), destination / name)
    _plan, report = fetch(archive, destination, archive.chain[-1], reporter=swapping)
    assert not report.complete
    assert {step.status for step in report.steps} == {Status.DONE}
    (error,) = report.errors
    assert name in error
    assert sorted(os.listdir(destination)) == sorted([name, "moved", archive.chain[-1]])


def test_from_diffs_to_diffs_the_chain_stays(
    archive: Archive, destination: Path, tmp_path: Path
) -> None:
    last = archive.chain[-1]
    other = DiffDirectory(tmp_path / "other")
    with DiffDirectory(archive.directory, single=last.encode()) as store:
        plan = sync.prepare(store, other, sync.Options(), Reporter())
        assert sync.carry_out(plan, store, other, Reporter()).complete
        assert passing(plan) == []
        again = sync.prepare(store, other, sync.Options(), Reporter())
    assert [step.action for step in again.steps] == [Action.KEEP]
    held = {snapshot.path.decode() for snapshot in other.catalogue().snapshots}
    assert held == set(archive.chain)
    assert fetch(tmp_path / "other", destination, last)[1].complete
    assert_same(archive.original(last), destination / last)
