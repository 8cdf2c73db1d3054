"""What a verification finds in a store of diffs that has been damaged, and what it does not."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from buttersink import cli
from buttersink.catalogue import Catalogue, Diff, Exactness, Size, Snapshot, Uuid, uuid_text
from buttersink.errors import UsageError
from buttersink.planner import Action, PlanOptions, Step
from buttersink.planner.mending import Repair
from buttersink.progress import Reporter, Verification
from buttersink.stores.base import Mode, Traits
from buttersink.verdict import Depth, Finding, Loss, Verdict
from buttersink.verifying import verify
from tests.support import streams
from tests.support.diffdirectory import DiffDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from buttersink.stream import Checkpoint

SUN, MON, TUE, WED = (Uuid(letter * 16) for letter in (b"s", b"m", b"t", b"w"))
PATHS = {SUN: b"home.sun", MON: b"home.mon", TUE: b"home.tue", WED: b"home.wed"}
FULL_SUN, MON_SUN, TUE_MON, WED_TUE = CHAIN = (
    Diff(SUN, None),
    Diff(MON, SUN),
    Diff(TUE, MON),
    Diff(WED, TUE),
)
FULL_TUE = Diff(TUE, None)
DAMAGED_BYTE = 5000
MKFILE = streams.encode_command(streams.mkfile(b"f"))
FIRST_BYTES = len(streams.encode([streams.subvol(b"x", SUN, 7)]))
CHANGED = "its SHA-256 is not what it was"
DISCARD = "--delete with this location alone discards that"
EVERY_DEPTH = pytest.mark.parametrize("depth", Depth)
READING = pytest.mark.parametrize("depth", [Depth.CHECKSUMS, Depth.FULL])


class Recorder(Reporter):
    """Remembers what it is told, and that this is in one thread."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.progress: list[Verification] = []
        self._thread = threading.get_ident()

    def failed(self, error: Exception) -> None:
        assert threading.get_ident() == self._thread
        self.errors.append(str(error))

    def verifying(self, progress: Verification) -> None:
        assert threading.get_ident() == self._thread
        self.progress.append(progress)


class Silent(DiffDirectory):
    """A store of which one diff makes the program fail."""

    @contextmanager
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> Iterator[Iterator[memoryview]]:
        if diff == MON_SUN:
            raise ZeroDivisionError
        with super().send(diff, checkpoint) as chunks:
            yield chunks


class Endless(DiffDirectory):
    """A store of which every diff goes on and on."""

    @contextmanager
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> Iterator[Iterator[memoryview]]:
        assert checkpoint is None
        yield (memoryview(part) for part in chain([stream(diff)[:FIRST_BYTES]], repeat(MKFILE)))


class Interrupted(Reporter):
    """Is where Ctrl-C comes, once bytes flow."""

    def verifying(self, progress: Verification) -> None:
        if progress.bytes:
            raise KeyboardInterrupt


class Looked(NamedTuple):
    """What came out of a verification."""

    verdict: Verdict
    recorder: Recorder


def stream(diff: Diff, clone: Uuid | None = None) -> bytes:
    first = (
        streams.subvol(b"x", diff.to, 7)
        if diff.parent is None
        else streams.snapshot(b"x", diff.to, 7, diff.parent, 6)
    )
    clones = [streams.clone(b"f", clone)] if clone else []
    writes = [streams.write(b"f", 0, bytes(48 * 1024)) for _ in range(3)]
    return streams.encode([first, streams.mkfile(b"f"), *writes, *clones, streams.end()])


def put(store: DiffDirectory, diff: Diff, data: bytes | None = None) -> None:
    """Store a diff as a run does, whatever the bytes are."""
    to, parent = (
        Snapshot(uuid, uuid, None, None, 7, 0, PATHS[uuid]) if uuid else None
        for uuid in (diff.to, diff.parent)
    )
    step = Step(Action.SEND, PATHS[diff.to], snapshot=to, parent=parent, diff=diff)
    with store.receive(step) as sink:
        sink.write(memoryview(stream(diff) if data is None else data))


@pytest.fixture
def store(tmp_path: Path) -> DiffDirectory:
    """Return a store that holds a chain of four diffs."""
    store = DiffDirectory(tmp_path / "archive")
    for diff in CHAIN:
        put(store, diff)
    return store


def flip(store: DiffDirectory, diff: Diff) -> None:
    data = bytearray(store.file(diff).read_bytes())
    data[DAMAGED_BYTE] ^= 1
    store.file(diff).write_bytes(data)


def look(store: DiffDirectory, depth: Depth, *exclude: bytes) -> Looked:
    recorder = Recorder()
    options = PlanOptions(exclude=tuple(re.compile(pattern) for pattern in exclude))
    return Looked(verify(store, depth, options, recorder), recorder)


def forget(store: DiffDirectory, diff: Diff) -> None:
    """Make a diff one of which nothing was recorded."""
    notes = json.loads(store.notes(diff).read_text())
    store.notes(diff).write_text(json.dumps({**notes, "diffs": {}}))


def lost_behind(repair: Repair, *snapshots: Uuid) -> tuple[Loss, ...]:
    return tuple(Loss(snapshot, repair) for snapshot in sorted(snapshots))


class TestSound:
    @EVERY_DEPTH
    def test_nothing_is_found(self, store: DiffDirectory, depth: Depth) -> None:
        verdict, recorder = look(store, depth)
        assert verdict.sound
        assert (verdict.diffs, verdict.snapshots) == (4, 4)
        assert (verdict.notes, verdict.partials, recorder.errors) == ((), (), [])

    def test_only_in_full_every_byte_is_read(self, store: DiffDirectory) -> None:
        total = sum(store.file(diff).stat().st_size for diff in CHAIN)
        assert [look(store, depth).verdict.bytes for depth in Depth] == [0, 0, total]

    def test_progress_ends_with_all_of_it(self, store: DiffDirectory) -> None:
        total = sum(store.file(diff).stat().st_size for diff in CHAIN)
        last = [look(store, depth).recorder.progress[-1:] for depth in Depth]
        assert last == [[], [Verification(4, 4, 0, 0)], [Verification(4, 4, total, total)]]

    @EVERY_DEPTH
    def test_an_empty_store_is_sound(self, tmp_path: Path, depth: Depth) -> None:
        verdict, _recorder = look(DiffDirectory(tmp_path / "empty"), depth)
        assert verdict.sound
        assert (verdict.diffs, verdict.snapshots) == (0, 0)

    @EVERY_DEPTH
    def test_partials_are_told_and_no_error(self, store: DiffDirectory, depth: Depth) -> None:
        store.file(FULL_TUE).with_suffix(".part").write_bytes(b"btrfs-")
        verdict, _recorder = look(store, depth)
        assert verdict.sound
        assert [(partial.uuid, partial.size) for partial in verdict.partials] == [(TUE, 6)]

    def test_what_was_not_recorded_is_a_note(self, store: DiffDirectory) -> None:
        forget(store, TUE_MON)
        verdict, _recorder = look(store, Depth.CHECKSUMS)
        assert verdict.sound
        assert verdict.notes == (Finding(TUE_MON, "nothing was recorded"),)
        assert look(store, Depth.FULL).verdict.notes == ()

    def test_what_a_restore_needs_beside_the_parent_is_a_note(self, store: DiffDirectory) -> None:
        put(store, WED_TUE, stream(WED_TUE, SUN))
        put(store, TUE_MON, stream(TUE_MON, MON))
        verdict, _recorder = look(store, Depth.FULL)
        assert verdict.sound
        text = f"it takes data from other snapshots, too: {uuid_text(SUN)}"
        assert verdict.notes == (Finding(WED_TUE, text),)


class TestBroken:
    @EVERY_DEPTH
    def test_a_missing_link_loses_what_is_behind_it(
        self, store: DiffDirectory, depth: Depth
    ) -> None:
        store.file(MON_SUN).unlink()
        verdict, recorder = look(store, depth)
        assert (verdict.broken, recorder.errors) == ((), [])
        assert verdict.lost == lost_behind(Repair(MON), TUE, WED)
        assert not verdict.sound

    @READING
    def test_a_file_cut_short(self, store: DiffDirectory, depth: Depth) -> None:
        length = store.file(MON_SUN).stat().st_size - 100
        with store.file(MON_SUN).open("r+b") as file:
            file.truncate(length)
        verdict, recorder = look(store, depth)
        assert [finding.diff for finding in verdict.broken] == [MON_SUN]
        assert recorder.errors == [f"broken diff: home.mon from home.sun: {verdict.broken[0].text}"]
        assert verdict.lost == lost_behind(Repair(MON, (SUN,)), MON, TUE, WED)

    def test_a_file_cut_short_is_found_without_any_record(self, store: DiffDirectory) -> None:
        data = store.file(MON_SUN).read_bytes()[:-100]
        store.file(MON_SUN).write_bytes(data)
        forget(store, MON_SUN)
        (finding,) = look(store, Depth.FULL).verdict.broken
        assert finding.text.startswith(f"cut send stream: it stops at byte {len(data):,} without")

    @READING
    def test_one_flipped_bit(self, store: DiffDirectory, depth: Depth) -> None:
        flip(store, FULL_SUN)
        verdict, _recorder = look(store, depth)
        assert [finding.diff for finding in verdict.broken] == [FULL_SUN]
        assert verdict.lost == lost_behind(Repair(SUN, (None,)), SUN, MON, TUE, WED)

    def test_a_flipped_bit_is_found_without_any_record(self, store: DiffDirectory) -> None:
        flip(store, FULL_SUN)
        forget(store, FULL_SUN)
        (finding,) = look(store, Depth.FULL).verdict.broken
        assert re.search(r"wrong checksum in command 15, at byte \d+$", finding.text)

    def test_only_the_record_knows_of_a_stream_that_was_changed_with_care(
        self, store: DiffDirectory
    ) -> None:
        other = streams.encode(
            [streams.subvol(b"y", SUN, 7), streams.mkfile(b"evil"), streams.end()]
        )
        store.file(FULL_SUN).write_bytes(other)
        (finding,) = look(store, Depth.FULL).verdict.broken
        assert finding.text.endswith("its SHA-256 is another one")

    def test_the_listing_alone_knows_nothing_of_that(self, store: DiffDirectory) -> None:
        flip(store, FULL_SUN)
        assert look(store, Depth.CHAINS).verdict.sound

    @pytest.mark.parametrize(
        ("foreign", "text"),
        [
            (Diff(WED, MON), f"it is a stream of another snapshot, {uuid_text(WED)}"),
            (
                Diff(TUE, SUN),
                f"another stream of this snapshot, which starts from {uuid_text(SUN)}",
            ),
            (FULL_TUE, "another stream of this snapshot, which is a full one"),
        ],
    )
    def test_another_stream_under_the_name_of_a_diff(
        self, store: DiffDirectory, foreign: Diff, text: str
    ) -> None:
        put(store, TUE_MON, stream(foreign))
        assert look(store, Depth.CHECKSUMS).verdict.sound
        (finding,) = look(store, Depth.FULL).verdict.broken
        assert finding.diff == TUE_MON
        assert finding.text.endswith(text)

    def test_a_listing_that_lies_about_a_size(self, store: DiffDirectory) -> None:
        class Lying(DiffDirectory):
            def catalogue(self) -> Catalogue:
                found = super().catalogue()
                sizes = {**found.diffs, TUE_MON: Size(9, Exactness.STORED)}
                return Catalogue(found.snapshots, diffs=sizes)

        lying = Lying(store.file(FULL_SUN).parent)
        (finding,) = look(lying, Depth.FULL).verdict.broken
        assert finding.diff == TUE_MON
        assert finding.text.endswith("bytes, and 9 are listed")

    @READING
    def test_what_another_chain_leads_to_is_not_lost(
        self, store: DiffDirectory, depth: Depth
    ) -> None:
        put(store, FULL_TUE)
        flip(store, TUE_MON)
        verdict, _recorder = look(store, depth)
        assert [finding.diff for finding in verdict.broken] == [TUE_MON]
        assert verdict.lost == ()
        assert not verdict.sound

    def test_one_that_cannot_be_read_stops_no_other(
        self, store: DiffDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = store.catalogue()
        monkeypatch.setattr(store, "catalogue", lambda: found)
        store.file(MON_SUN).unlink()
        flip(store, WED_TUE)
        for depth in (Depth.CHECKSUMS, Depth.FULL):
            verdict, recorder = look(store, depth)
            assert [finding.diff for finding in verdict.broken] == [MON_SUN, WED_TUE]
            assert len(recorder.errors) == 2
            assert recorder.progress[-1].diffs == 4

    def test_a_fault_of_the_program_is_none_of_a_diff(self, tmp_path: Path) -> None:
        store = Silent(tmp_path / "archive")
        for diff in CHAIN:
            put(store, diff)
        with pytest.raises(ZeroDivisionError):
            look(store, Depth.FULL)

    def test_many_diffs_each_with_its_own_fault(self, tmp_path: Path) -> None:
        """More than there are threads, so that each takes several."""
        store = DiffDirectory(tmp_path / "archive")
        for diff in CHAIN:
            for clone in (SUN, MON, TUE, WED):
                put(store, Diff(diff.to, clone if clone != diff.to else None))
        every = sorted(store.catalogue().diffs, key=str)
        for diff in every:
            flip(store, diff)
        for depth in (Depth.CHECKSUMS, Depth.FULL):
            verdict, recorder = look(store, depth)
            assert sorted((finding.diff for finding in verdict.broken), key=str) == every
            assert len(recorder.errors) == len(every)


class TestExclude:
    def test_what_is_left_alone_is_looked_at_where_another_needs_it(
        self, store: DiffDirectory
    ) -> None:
        flip(store, MON_SUN)
        flip(store, WED_TUE)
        verdict, _recorder = look(store, Depth.FULL, rb"\.mon$", rb"\.wed$")
        assert (verdict.diffs, verdict.snapshots) == (3, 2)
        assert [finding.diff for finding in verdict.broken] == [MON_SUN]
        assert verdict.lost == lost_behind(Repair(MON, (SUN,)), TUE)

    def test_its_own_diffs_are_not_looked_at(self, store: DiffDirectory) -> None:
        flip(store, WED_TUE)
        assert look(store, Depth.FULL, rb"\.wed$").verdict.sound


def test_an_interruption_ends_the_threads(tmp_path: Path) -> None:
    """Each after what it is at, which nothing waits for."""
    store = Endless(tmp_path / "archive")
    put(store, FULL_SUN)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        verify(store, Depth.FULL, PlanOptions(), Interrupted())
    for thread in set(threading.enumerate()) - before:
        assert thread.daemon
        thread.join(10)
        assert not thread.is_alive()


@EVERY_DEPTH
def test_a_store_of_snapshots_is_refused(store: DiffDirectory, depth: Depth) -> None:
    store.traits = Traits(measures=True)
    with pytest.raises(UsageError, match=r"nothing to verify.*btrfs scrub"):
        look(store, depth)


class Ran(NamedTuple):
    """How the command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401  JSON
        return json.loads(self.out)


Run = Callable[..., Ran]


class TestCommand:
    @pytest.fixture
    def run(
        self,
        store: DiffDirectory,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> Iterator[Run]:
        """Run the command on the store, which has no scheme to be named by."""

        def opened(_location: object, mode: Mode, *_others: object, **_: object) -> DiffDirectory:
            assert mode is Mode.READ
            return store

        def run(*words: str) -> Ran:
            status = cli.main([*words, "/archive/"])
            return Ran(status, *capsys.readouterr())

        monkeypatch.setattr(cli, "open_store", opened)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        yield run
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def test_what_is_sound(self, run: Run) -> None:
        done = run("--verify", "chains")
        text = "4 diffs, 4 snapshots in /archive/: all sound, by the listing alone.\n"
        assert done == Ran(0, text, "")
        text = "4 diffs, 4 snapshots in /archive/: all sound, by what was recorded.\n"
        assert run("--verify=checksums") == Ran(0, text, "")
        done = run("--verify", "full")
        assert done.status == 0
        assert re.fullmatch(
            r"4 diffs.*: all sound, 576\.\d KiB read in .* s \(.*/s\)\.\n", done.out
        )

    def test_what_is_broken(self, run: Run, store: DiffDirectory) -> None:
        flip(store, TUE_MON)
        done = run("--verify", "checksums")
        again = (
            "A diff of home.tue from home.mon brings it back, or a full send of home.tue{}: remove "
            "what is broken of it, and run buttersink from a source that has it."
        )
        assert done.status == 1
        assert done.err.splitlines() == [
            f"buttersink: error: broken diff: home.tue from home.mon: {CHANGED}",
            "buttersink: error: snapshot lost: home.tue: no chain of sound diffs leads to it. "
            + again.format(""),
            "buttersink: error: snapshot lost: home.wed: no chain of sound diffs leads to it. "
            + again.format(" or of home.wed"),
        ]
        assert done.out == (
            "4 diffs, 4 snapshots in /archive/: 1 diff broken, 2 snapshots lost, "
            "by what was recorded.\n"
        )

    def test_a_missing_link_is_named_by_its_uuid(self, run: Run, store: DiffDirectory) -> None:
        store.file(TUE_MON).unlink()
        done = run("--verify", "chains")
        assert done.status == 1
        assert done.err == (
            "buttersink: error: snapshot lost: home.wed: no chain of sound diffs leads to it. "
            f"A diff of {uuid_text(TUE)} from any snapshot that is whole here brings it back, or a "
            f"full send of {uuid_text(TUE)} or of home.wed: run buttersink from a source that has "
            "it.\n"
        )

    def test_notes_of_a_kind_are_one_line(self, run: Run, store: DiffDirectory) -> None:
        forget(store, TUE_MON)
        store.file(FULL_TUE).with_suffix(".part").write_bytes(b"btrfs-")
        lines = run("--verify", "checksums").err.splitlines()
        assert lines == [
            "buttersink: note: home.tue from home.mon: nothing was recorded",
            f"buttersink: note: 1 partial transfer left by interrupted runs: {DISCARD}",
        ]
        forget(store, WED_TUE)
        lines = run("--verify", "checksums").err.splitlines()
        assert lines[0] == "buttersink: note: 2 diffs: nothing was recorded"

    def test_twice_quiet_only_errors(self, run: Run, store: DiffDirectory) -> None:
        forget(store, TUE_MON)
        assert run("-qq", "--verify", "checksums") == Ran(0, "", "")
        flip(store, WED_TUE)
        done = run("-qq", "--verify", "checksums")
        assert (done.status, done.out) == (1, "")
        assert [line.split(": ")[1] for line in done.err.splitlines()] == ["error", "error"]

    def test_json(self, run: Run, store: DiffDirectory) -> None:
        flip(store, TUE_MON)
        forget(store, WED_TUE)
        done = run("--json", "--verify", "checksums")
        document = done.document
        assert done.status == 1
        assert document.pop("seconds") >= 0
        assert document.pop("buttersink")
        tue = {"path": "home.tue", "uuid": uuid_text(TUE)}
        wed = {"path": "home.wed", "uuid": uuid_text(WED)}
        again = {**tue, "from": [uuid_text(MON)]}
        assert document == {
            "location": "/archive/",
            "depth": "checksums",
            "sound": False,
            "diff_count": 4,
            "snapshot_count": 4,
            "read_bytes": 0,
            "broken": [{**tue, "from": uuid_text(MON), "text": CHANGED}],
            "lost": [{**tue, "repair": again}, {**wed, "repair": again}],
            "notes": [{**wed, "from": uuid_text(TUE), "text": "nothing was recorded"}],
            "partials": [],
        }

    def test_json_of_a_missing_link(self, run: Run, store: DiffDirectory) -> None:
        store.file(TUE_MON).unlink()
        (loss,) = run("--json", "--verify", "chains").document["lost"]
        assert loss["repair"] == {"path": None, "uuid": uuid_text(TUE), "from": []}

    def test_a_store_of_snapshots_is_refused(self, run: Run, store: DiffDirectory) -> None:
        store.traits = Traits(measures=True)
        done = run("--verify", "full")
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith("buttersink: error: nothing to verify: ")
