"""What the command writes, to the letter: on a pipe, on terminals, as JSON, and to a log file."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import rich.progress  # noqa: F401  takes the real clock before a test turns it

from buttersink.catalogue import (
    Catalogue,
    Diff,
    Exactness,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_from_text,
    uuid_text,
)
from buttersink.console import Console
from buttersink.errors import LocationError, ReceiveError
from buttersink.planner.mending import Repair
from buttersink.planner.plan import Action, Plan, Reason, Step
from buttersink.progress import Transfer, Verification
from buttersink.report import Report, Status, StepResult
from buttersink.verdict import Depth, Finding, Loss, Verdict

if TYPE_CHECKING:
    from typing import TextIO

MIB = 1 << 20
SECOND = 10**9
NEW_YEAR = 1704067200 * SECOND  # 2024-01-01T00:00:00Z
HOSTILE = b"a [red]b[/] \xff\n\x1b[2J \xc3\xa9"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    """The clock bars go by, turned by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class BrokenStream(io.StringIO):
    def write(self, text: str, /) -> int:
        raise OSError(28, f"No space left for {len(text)}")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "25")
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def console(
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    *,
    quiet: int = 0,
    verbose: int = 0,
    as_json: bool = False,
    logfile: TextIO | None = None,
) -> Console:
    return Console(
        stdout=stdout or io.StringIO(),
        stderr=stderr or io.StringIO(),
        quiet=quiet,
        verbose=verbose,
        as_json=as_json,
        logfile=logfile,
    )


def uuid(number: int) -> Uuid:
    return Uuid(bytes([number]) * 16)


def snapshot(
    number: int, path: bytes, size: Size | None = None, exclusive: int | None = None
) -> Snapshot:
    return Snapshot(
        uuid=uuid(number),
        own_uuid=uuid(number + 0x10),
        parent_uuid=uuid(0xAA),
        received_uuid=uuid(number) if number % 2 else None,
        generation=number * 100,
        created=NEW_YEAR + number * 86400 * SECOND,
        path=path,
        subvolume_id=256 + number,
        size=size,
        exclusive=exclusive,
    )


def measured(count: int) -> Size:
    return Size(count, Exactness.MEASURED)


def estimated(count: int) -> Size:
    return Size(count, Exactness.ESTIMATED)


FIRST = snapshot(1, b"daily/1", measured(100 * MIB))
LATER = snapshot(2, b"daily/2", estimated(1536))
THIRD = snapshot(3, b"daily/3")
PARTIAL = Partial(b".buttersink-03.part", uuid(3), NEW_YEAR, 300, 2 * MIB)


def send(snapshot: Snapshot, parent: Snapshot | None, size: Size, path: bytes = b"") -> Step:
    reason = Reason() if parent is None else Reason(size=measured(100 * MIB))
    depth = 2 if parent else 1
    path = path or snapshot.path
    return Step(Action.SEND, path, snapshot, parent, size, depth, reason=reason)


def keep(number: int) -> Step:
    held = snapshot(number, b"kept/%d" % number)
    return Step(Action.KEEP, held.path, held)


SENDS = (
    send(FIRST, None, measured(100 * MIB)),
    send(LATER, FIRST, measured(512)),
)
EVERYTHING = Plan(
    steps=(
        *SENDS,
        Step(Action.COPY, b"daily/3", snapshot(3, b"elsewhere/3")),
        keep(4),
        keep(5),
        Step(Action.DELETE, b"old", snapshot(6, b"old")),
        Step(Action.DISCARD, PARTIAL.path, partial=PARTIAL),
    ),
    lower_bound=100 * MIB,
)


def result(number: int, status: Status, path: bytes | None = None) -> StepResult:
    error = None if status in (Status.DONE, Status.RESUMED) else "why"
    offset = 4096 if status is Status.RESUMED else None
    path = b"daily/%d" % number if path is None else path
    return StepResult(path, uuid(number), status, 512, offset, 1.23456, error)


def listed(catalogue: Catalogue, stdout: TextIO, *, verbose: int = 0) -> str:
    console(stdout, verbose=verbose).listing("/mnt/a", catalogue)
    stdout.seek(0)
    return stdout.read()


def planned(plan: Plan, *, verbose: int = 0, dry_run: bool = False) -> str:
    stdout = io.StringIO()
    console(stdout, verbose=verbose).plan("/mnt/a/", "ssh://h/b", plan, dry_run)
    return stdout.getvalue()


def golden(text: str) -> str:
    return dedent(text).removeprefix("\n")


def plain(text: str) -> str:
    """Return what a terminal shows of `text`, if nothing is erased."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


# The listing


def test_listing() -> None:
    catalogue = Catalogue(snapshots=(FIRST, LATER, THIRD))
    assert listed(catalogue, io.StringIO()) == golden("""
        Path          Size  Generation  Created           UUID
        daily/1  100.0 MiB         100  2024-01-02 01:00  01010101-0101-0101-0101-010101010101
        daily/2   ~1.5 KiB         200  2024-01-03 01:00  02020202-0202-0202-0202-020202020202
        daily/3          -         300  2024-01-04 01:00  03030303-0303-0303-0303-030303030303
        3 snapshots in /mnt/a, ~100.0 MiB in the 2 whose size is known.
        """)


def test_listing_with_quotas_and_partials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NEW_YEAR + 93784 * SECOND)
    one = snapshot(1, b"1", measured(1023), 0)
    catalogue = Catalogue(snapshots=(one,), partials=(PARTIAL, Partial(b"p", uuid(9), NEW_YEAR)))
    assert listed(catalogue, io.StringIO()) == golden("""
        Path    Size  Exclusive  Generation  Created           UUID
        1     1023 B        0 B         100  2024-01-02 01:00  01010101-0101-0101-0101-010101010101

        Partial transfers:
        Path                    Size      Age
        .buttersink-03.part  2.0 MiB  1 d 2 h
        p                          -  1 d 2 h
        1 snapshot in /mnt/a, 1023 B, 2 partial transfers.
        """)


def test_verbose_listing_has_every_uuid() -> None:
    text = listed(
        Catalogue(snapshots=(FIRST, LATER), partials=(PARTIAL,)), io.StringIO(), verbose=1
    )
    first, second = text.splitlines()[1:3]
    assert first.split()[-4:] == [
        "01010101-0101-0101-0101-010101010101",
        "11111111-1111-1111-1111-111111111111",
        "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
        "01010101-0101-0101-0101-010101010101",
    ]
    assert second.endswith("-aaaaaaaaaaaa  -")
    assert text.splitlines()[-2].endswith("  03030303-0303-0303-0303-030303030303")


def test_listing_of_stored_diffs() -> None:
    stored = {
        Diff(uuid(1), None): Size(90 * MIB, Exactness.STORED),
        Diff(uuid(2), uuid(1)): Size(2048, Exactness.STORED),
        Diff(uuid(2), uuid(0xCC)): Size(1024, Exactness.STORED),
    }
    catalogue = Catalogue(snapshots=(FIRST, THIRD), diffs=MappingProxyType(stored))
    lines = listed(catalogue, io.StringIO()).splitlines()
    assert lines[0].startswith("Path          Size    Stored  From  Generation")
    assert lines[1].startswith("daily/1  100.0 MiB  90.0 MiB  full         100")
    assert lines[2].startswith("daily/3          -         -  -            300")
    assert lines[3] == "2 snapshots in /mnt/a, 90.0 MiB stored."


def test_several_diffs_of_one_snapshot_are_all_listed() -> None:
    stored = {
        Diff(uuid(2), uuid(1)): Size(2048, Exactness.STORED),
        Diff(uuid(2), uuid(0xCC)): Size(1024, Exactness.STORED),
    }
    catalogue = Catalogue(snapshots=(FIRST, LATER), diffs=MappingProxyType(stored))
    line = listed(catalogue, io.StringIO()).splitlines()[2]
    assert "2.0 KiB, 1.0 KiB  daily/1, cccccccc-cccc-cccc-cccc-cccccccccccc" in line


def test_empty_listing() -> None:
    assert listed(Catalogue(), io.StringIO()) == "0 snapshots in /mnt/a.\n"


def test_unknown_time_of_creation_is_a_dash() -> None:
    one = Snapshot(uuid(1), uuid(1), None, None, 0, 0, b"x")
    assert listed(Catalogue(snapshots=(one,)), io.StringIO()).splitlines()[1].split()[:4] == [
        "x", "-", "0", "-",
    ]  # fmt: skip


def test_namesakes_are_pointed_out_on_stderr() -> None:
    stderr = io.StringIO()
    twin = snapshot(1, b"twin\n")
    console(stderr=stderr).listing("/mnt/a", Catalogue(snapshots=(FIRST, twin, THIRD)))
    assert stderr.getvalue() == (
        "buttersink: note: daily/1, twin\\n share the effective UUID"
        " 01010101-0101-0101-0101-010101010101 and count as one snapshot\n"
    )


# Names, encodings, terminals


def test_hostile_names_on_a_pipe() -> None:
    text = listed(Catalogue(snapshots=(snapshot(1, HOSTILE), snapshot(2, b"b"))), io.StringIO())
    assert text.splitlines()[1].startswith("a [red]b[/] \\xff\\n\\x1b[2J é     -         100")
    assert text.splitlines()[2].startswith("b                               -         200")
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}


def test_wide_characters_stay_aligned() -> None:
    names = (snapshot(1, "写真".encode()), snapshot(2, b"abcd"))
    lines = listed(Catalogue(snapshots=names), io.StringIO()).splitlines()
    assert lines[1].startswith("写真     -")
    assert lines[2].startswith("abcd     -")


def test_ascii_stdout_gets_escapes_and_stays_aligned() -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii")
    listed(Catalogue(snapshots=(snapshot(1, "é€".encode()), snapshot(2, b"b"))), stdout)
    lines = raw.getvalue().split(b"\n")
    assert lines[1].startswith(rb"\xe9\u20ac     -         100")
    assert lines[2].startswith(rb"b              -         200")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_nothing_written_depends_on_an_encoding(encoding: str) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(3)]
    out = console(streams[0], streams[1], logfile=streams[2])
    hostile = snapshot(1, HOSTILE)
    location = "/mnt/\udcff€\n"
    out.listing(location, Catalogue(snapshots=(hostile,)))
    out.plan(location, location, Plan((send(hostile, hostile, measured(5)),)), False)  # noqa: FBT003
    out.removed(HOSTILE)
    out.note("\udcff €\n")
    out.error(LocationError("cannot open", where=HOSTILE, why="gone €\udcff\nand\rmore"))
    for stream in streams:
        assert isinstance(stream.buffer, io.BytesIO)
        lines = stream.buffer.getvalue().decode(encoding).split("\n")
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_a_pipe_gets_no_control_sequences(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert "\x1b" not in listed(Catalogue(snapshots=(FIRST,)), io.StringIO())


def test_a_pipe_gets_whole_lines_however_long() -> None:
    names = (snapshot(1, b"n" * 255), snapshot(2, b"a b"))
    lines = listed(Catalogue(snapshots=names), io.StringIO()).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("n" * 255 + "  ")


LONG = b"a name that has several words and-one-that-is-longer-than-most-are"


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = (snapshot(1, LONG, measured(5)), snapshot(2, b"b"))
    return plain(listed(Catalogue(snapshots=names), Terminal())).splitlines()


@pytest.mark.parametrize("columns", [300, 89, 20])
def test_a_terminal_too_narrow_for_that_gets_whole_lines(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    lines = on_terminal(monkeypatch, columns)
    assert len(lines) == 4
    assert lines[1].startswith(LONG.decode() + "   5 B")


def test_no_color_on_a_terminal(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stdout, stderr = Terminal(), Terminal()
    out = console(stdout, stderr)
    out.listing("/mnt/a", Catalogue(snapshots=(FIRST,)))
    run_one(out, clock)
    colours = re.findall(r"\x1b\[(?:3|4|9)\d[;\d]*m", stdout.getvalue() + stderr.getvalue())
    assert colours == []


# The plan


def test_plan() -> None:
    assert planned(EVERYTHING) == golden("""
        /mnt/a/ -> ssh://h/b
        Action        Size  Path                 From
        send     100.0 MiB  daily/1              full
        send         512 B  daily/2              daily/1
        copy             -  daily/3              elsewhere/3
        delete           -  old
        discard    2.0 MiB  .buttersink-03.part
        2 to send, 100.0 MiB (lower bound 100.0 MiB; all full 100.0 MiB), 1 to copy, 2 kept, 1 to delete, 1 to discard.
        """)  # noqa: E501


def test_verbose_plan_has_reasons_and_what_is_kept() -> None:
    assert planned(Plan((*SENDS, keep(4))), verbose=1) == golden("""
        /mnt/a/ -> ssh://h/b
        Action       Size  Path     From     Reason
        send    100.0 MiB  daily/1  full     the only way
        send        512 B  daily/2  daily/1  next best in full, 100.0 MiB
        keep            -  kept/4
        2 to send, 100.0 MiB (all full 100.0 MiB), 1 kept.
        """)


def test_verbose_plan_says_what_a_restore_reads() -> None:
    other = Reason(parent=snapshot(6, b"new\nline"), size=measured(3 * MIB), chain=6)
    step = Step(Action.SEND, b"x", FIRST, THIRD, measured(5), 4, restore=171 * MIB, reason=other)
    assert planned(Plan((step,)), verbose=1).splitlines()[2].split("  ")[-1] == (
        r"next best from new\nline, 3.0 MiB with a chain of 6; restore reads 4 diffs, 171.0 MiB"
    )


def test_plan_of_chains_says_how_near_it_is_to_the_least_cost() -> None:
    plan = Plan(SENDS, lower_bound=100 * MIB, cost=10_040, cost_bound=10_000)
    assert planned(plan).splitlines()[-1] == (
        "2 to send, 100.0 MiB (lower bound 100.0 MiB; cost within 0.4 % of the least; "
        "all full 100.0 MiB)."
    )


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 1)])
def test_what_choosing_saves_is_told_where_it_is_wanted(verbose: int, lines: int) -> None:
    stderr = io.StringIO()
    out = console(stderr=stderr, verbose=verbose)
    out.chosen(35 * MIB, 47 * MIB)
    out.chosen(35 * MIB, 35 * MIB)
    text = (
        "buttersink: choosing by size saves 12.0 MiB: "
        "each snapshot from the one before it would take 47.0 MiB\n"
    )
    assert stderr.getvalue() == text * lines


def test_plan_shows_where_a_snapshot_lands() -> None:
    moved = send(FIRST, None, estimated(3 * MIB), b"1")
    assert planned(Plan((moved, send(THIRD, None, measured(7))))) == golden("""
        /mnt/a/ -> ssh://h/b
        Action      Size  Path     From  Source
        send    ~3.0 MiB  1        full  daily/1
        send         7 B  daily/3  full
        2 to send, ~3.0 MiB.
        """)


def test_plan_names_clone_sources() -> None:
    reason = Reason(unshared=measured(5 * MIB))
    step = replace(send(FIRST, None, measured(3)), clones=(LATER, THIRD), reason=reason)
    said = planned(Plan((step,)), verbose=1)
    assert "full, with clones" in said
    assert "with clones of daily/2, daily/3; without, 5.0 MiB; the only way" in said
    stdout = io.StringIO()
    out = console(stdout, as_json=True)
    out.plan("a", "b", Plan((step,)), False)  # noqa: FBT003
    out.report(Report((), 0, 0.0, ()))
    (shown,) = json.loads(stdout.getvalue())["plan"]["steps"]
    assert shown["clone_sources"] == [uuid_text(LATER.uuid), uuid_text(THIRD.uuid)]


def test_plan_shows_the_deletion_of_what_is_replaced() -> None:
    step = Step(Action.SEND, b"x", FIRST, None, measured(5), 1, replaces=snapshot(7, b"x"))
    lines = planned(Plan((step,)), verbose=1).splitlines()
    assert [line.split()[:3] for line in lines[2:4]] == [["send", "5", "B"], ["delete", "-", "x"]]
    assert lines[3].endswith("  replaced by the snapshot that takes its path")
    assert lines[4] == "1 to send, 5 B, 1 to delete."


def test_dry_run_says_so() -> None:
    assert planned(Plan(SENDS), dry_run=True).endswith("\nDry run: nothing was changed.\n")
    assert "Dry run" not in planned(Plan(SENDS))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "Nothing to do: there are no snapshots in /mnt/a/.\n"),
        (1, "Nothing to do: ssh://h/b holds the 1 snapshot of /mnt/a/.\n"),
        (12, "Nothing to do: ssh://h/b holds all 12 snapshots of /mnt/a/.\n"),
    ],
)
def test_nothing_to_do(count: int, text: str) -> None:
    plan = Plan(tuple(keep(number) for number in range(count)))
    assert planned(plan) == planned(plan, dry_run=True) == text


def test_nothing_to_clean_up() -> None:
    stdout = io.StringIO()
    console(stdout).plan("/mnt/a", "/mnt/a", Plan(()), False)  # noqa: FBT003
    assert stdout.getvalue() == "Nothing to do: there are no partial transfers in /mnt/a.\n"


def test_plan_shows_what_cannot_be_made() -> None:
    blocked = Step(Action.SEND, b"x", FIRST, problem="the path is taken")
    assert planned(Plan((send(THIRD, None, measured(7)), blocked))) == golden("""
        /mnt/a/ -> ssh://h/b
        Action  Size  Path     From  Source   Problem
        send     7 B  daily/3  full
        send       -  x              daily/1  the path is taken
        1 to send, 7 B, 1 that cannot be made.
        """)


PASSING = Plan(
    (
        replace(send(FIRST, None, measured(5)), passing=True),
        send(LATER, FIRST, measured(7), b"x"),
    )
)


def test_plan_shows_what_is_only_on_the_way() -> None:
    assert planned(PASSING) == golden("""
        /mnt/a/ -> ssh://h/b
        Action  Size  Path     From     Source   Then
        send     5 B  daily/1  full              removed afterwards
        send     7 B  x        daily/1  daily/2
        1 to send with 1 on the way, removed afterwards, 12 B (all full 1.5 KiB).
        """)


def test_json_tells_what_is_only_on_the_way() -> None:
    stdout = io.StringIO()
    out = console(stdout, as_json=True)
    out.plan("a", "b", PASSING, False)  # noqa: FBT003
    out.report(Report((replace(result(1, Status.DONE), passing=True),), 5, 1.0, ()))
    written = document(stdout)
    assert [step["passing"] for step in written["plan"]["steps"]] == [True, False]
    assert [step["passing"] for step in written["result"]["steps"]] == [True]
    assert written["plan"]["send_bytes"] == 12


def test_report_does_not_count_what_was_only_on_the_way() -> None:
    passed = tuple(replace(result(n, Status.DONE), passing=True) for n in (1, 2))
    report = Report((*passed, result(3, Status.DONE)), 512, 200.0, ())
    assert reported(report, PASSING) == (
        "Sent 1 snapshot and 2 on the way, 512 B in 3 min 20 s (2 B/s).\n"
    )


def test_nothing_to_do_verbose_lists_what_is_kept() -> None:
    lines = planned(Plan((keep(4),)), verbose=1).splitlines()
    assert lines[2].split() == ["keep", "-", "kept/4"]
    assert lines[3].startswith("Nothing to do")


def test_nothing_to_do_imports_neither_rich_nor_json_nor_metadata() -> None:
    code = """
import io, sys
from buttersink.console import Console
from buttersink.planner.plan import Plan
from buttersink.report import Report
out = Console(stdout=sys.stdout, stderr=sys.stderr, quiet=0, verbose=0, as_json=False)
out.measuring(0, 1)
out.measuring(1, 1)
out.plan("a", "b", Plan(()), False)
out.starting(0, 0)
out.finished()
out.report(Report((), 0, 0.0, ()))
heavy = {"rich", "json", "argparse", "importlib.metadata", "logging", "datetime", "asyncio"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Nothing to do: there are no snapshots in a.\n[]\n"


# The report


def reported(report: Report | None, plan: Plan = EVERYTHING) -> str:
    stdout = io.StringIO()
    out = console(stdout)
    out.plan("a", "b", plan, False)  # noqa: FBT003
    before = len(stdout.getvalue())
    out.report(report)
    return stdout.getvalue()[before:]


def test_report() -> None:
    steps = tuple(result(n, Status.DONE) for n in (1, 2))
    report = Report(steps, int(123.4 * MIB), 4.2, ())
    assert reported(report, Plan(SENDS)) == "Sent 2 snapshots, 123.4 MiB in 4.2 s (29.4 MiB/s).\n"


def test_report_of_everything() -> None:
    steps = (
        result(1, Status.RESUMED),
        result(3, Status.DONE),
        result(7, Status.FAILED),
        result(8, Status.SKIPPED),
        result(9, Status.SKIPPED, b"x\n"),
    )
    report = Report(steps, 512, 200.0, (b"old", PARTIAL.path), ("cannot delete: x",))
    assert reported(report) == golden("""
        Sent 1 snapshot (1 resumed), 512 B in 3 min 20 s (2 B/s).
        Copied 1 snapshot in place.
        Removed 2.
        Failed: 1 snapshot.
        Skipped: 2 snapshots.
        Not removed: 1.
        """)


def test_no_report_where_nothing_was_done() -> None:
    assert reported(None) == reported(Report((), 0, 0.0, ())) == ""


def test_report_of_no_time_has_no_rate() -> None:
    report = Report((result(1, Status.DONE),), 512, 0.0, ())
    assert reported(report) == "Sent 1 snapshot, 512 B in 0.0 s.\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (MIB - 1, "1.0 MiB"), (MIB, "1.0 MiB"),
        (1023 * MIB, "1023.0 MiB"), (5 << 40, "5.0 TiB"), (1 << 50, "1.0 PiB"),
        (1 << 60, "1.0 EiB"), (1 << 63, "8.0 EiB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert planned(Plan((send(FIRST, None, measured(count)),))).endswith(f"\n1 to send, {text}.\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7325.0, "2 h 2 min")],
)
def test_durations(seconds: float, text: str) -> None:
    report = Report((result(1, Status.DONE),), 0, seconds, ())
    assert f" in {text}" in reported(report)


# Messages


def test_an_error_is_one_line_and_told_once() -> None:
    stderr = io.StringIO()
    out = console(stderr=stderr)
    error = LocationError("cannot list", where=b"/a\nb", why="one\ntwo", hint="Try again")
    out.error(error)
    out.error(error)
    out.error(KeyboardInterrupt())
    assert stderr.getvalue() == (
        "buttersink: error: cannot list: /a\\nb: one; two. Try again\n"
        "buttersink: error: KeyboardInterrupt\n"
    )


def test_a_failed_transfer_writes_its_error_once() -> None:
    stderr = io.StringIO()
    out = console(stderr=stderr, quiet=2)
    transfer = Transfer(uuid(1), b"x", None, 1, 1)
    error = ReceiveError("cannot receive", where=b"x", why="no")
    out.transfer_started(transfer)
    out.transfer_ended(transfer, error)
    out.error(error)
    out.failed(error)
    assert stderr.getvalue() == "buttersink: error: cannot receive: x: no\n"


@pytest.mark.parametrize(
    ("quiet", "stdout_lines", "stderr_lines"), [(0, 6, 3), (1, 6, 3), (2, 0, 1)]
)
def test_quiet(quiet: int, stdout_lines: int, stderr_lines: int) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    out = console(stdout, stderr, quiet=quiet)
    out.plan("a", "b", Plan(SENDS), False)  # noqa: FBT003
    out.note("something")
    out.removed(b"old")
    out.error(LocationError("bad"))
    out.report(Report((result(1, Status.DONE),), 5, 1.0, ()))
    assert stdout.getvalue().count("\n") == stdout_lines
    assert stderr.getvalue().count("\n") == stderr_lines


def test_a_listing_is_silent_too_at_qq() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    catalogue = Catalogue(snapshots=(FIRST, FIRST), partials=(PARTIAL,))
    console(stdout, stderr, quiet=2).listing("/mnt/a", catalogue)
    assert stdout.getvalue() + stderr.getvalue() == ""


def test_a_dead_stderr_ends_no_run() -> None:
    out = console(stderr=BrokenStream())
    out.note("unheard")
    out.error(LocationError("unheard"))


def test_a_dead_stdout_is_an_error() -> None:
    with pytest.raises(OSError, match="No space"):
        console(BrokenStream()).listing("/mnt/a", Catalogue())


# The log file


def test_logfile(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NEW_YEAR)
    log = io.StringIO()
    out = console(logfile=log, quiet=2)
    out.plan("/mnt/a/", "b\n", Plan(SENDS, 5), False)  # noqa: FBT003
    out.measuring(1, 2)
    out.starting(2, 1000)
    for number, error in ((1, None), (2, ReceiveError("cannot receive", where=b"2"))):
        transfer = Transfer(uuid(number), b"daily/%d" % number, (512, None)[number - 1], number, 2)
        out.transfer_started(transfer)
        clock.now += 2.5
        out.transfer_advanced(transfer, 512)
        out.transfer_ended(transfer, error)
    out.removed(b"old\xff")
    out.note("something")
    out.finished()
    out.report(Report((result(1, Status.DONE), result(2, Status.FAILED)), 512, 5.0, (b"old\xff",)))
    lines = log.getvalue().splitlines()
    assert all(line.startswith("2024-01-01T00:00:00Z ") for line in lines)
    assert [line[21:] for line in lines] == [
        "plan: /mnt/a/ -> b\\n: 2 to send, 100.0 MiB (lower bound 5 B; all full 100.0 MiB).",
        "starting 2 transfers: 1000 bytes expected",
        "started daily/1: 512 bytes expected",
        "done daily/1: 512 bytes, 2.5 s",
        "started daily/2",
        "failed daily/2: 512 bytes, 2.5 s",
        "error: cannot receive: 2",
        "removed old\\xff",
        "note: something",
        "Sent 1 snapshot, 512 B in 5.0 s (102 B/s).",
        "Removed 1.",
        "Failed: 1 snapshot.",
    ]


def test_a_full_log_file_ends_the_log_and_not_the_run() -> None:
    stderr = io.StringIO()
    out = console(stderr=stderr, logfile=BrokenStream())
    out.note("one")
    out.note("two")
    assert [line.split(": ")[2] for line in stderr.getvalue().splitlines()] == [
        "the log file ends here", "one", "two",
    ]  # fmt: skip


# Progress


def run_one(out: Console, clock: Clock, count: int = 2, size: int | None = 4 * MIB) -> None:
    """Run the second of `count` transfers, for four seconds."""
    transfer = Transfer(uuid(1), HOSTILE, size, 2, count)
    out.starting(count, 8 * MIB)
    out.transfer_started(transfer)
    for step in range(1, 5):
        clock.now += 1
        out.transfer_advanced(transfer, step * MIB)


def test_progress_on_a_terminal(clock: Clock) -> None:
    stderr = Terminal()
    out = console(stderr=stderr)
    run_one(out, clock)
    text = plain(stderr.getvalue())
    assert "Sending 2 snapshots" in text
    assert "3.0 MiB/4.0 MiB" in text
    assert "3.0 MiB/8.0 MiB" in text
    assert "\n...ed]b[/] \\xff\\n\\x1b[2J é " in text
    assert max(len(line) for line in re.split(r"[\r\n]", text)) <= 80
    out.finished()
    assert stderr.getvalue().rstrip("\r").endswith("\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1A\x1b[2K")


def test_progress_of_one_transfer_of_unknown_size(clock: Clock) -> None:
    stderr = Terminal()
    run_one(console(stderr=stderr), clock, count=1, size=None)
    assert "Sending" not in plain(stderr.getvalue())
    assert "3.0 MiB" in plain(stderr.getvalue())
    assert " 3.0 MiB/" not in plain(stderr.getvalue())


def test_progress_of_measuring(clock: Clock) -> None:
    stderr = Terminal()
    out = console(stderr=stderr)
    for done in range(4):
        out.measuring(done, 3)
        clock.now += 1
    assert "Measuring" in stderr.getvalue()
    assert "2/3" in plain(stderr.getvalue())
    assert stderr.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("all_bytes", "text"), [(0, "1/4"), (4 * MIB, "1.0 MiB/4.0 MiB")], ids=["diffs", "bytes"]
)
def test_progress_of_verifying(clock: Clock, all_bytes: int, text: str) -> None:
    stderr, pipe = Terminal(), io.StringIO()
    for out in (console(stderr=stderr), console(stderr=pipe), console(stderr=pipe, quiet=1)):
        for done in (0, 1, 1):
            out.verifying(Verification(done, 4, done * all_bytes // 4, all_bytes))
            clock.now += 1
        out.finished()
    assert "Verifying 1/4" in plain(stderr.getvalue())
    assert text in plain(stderr.getvalue())
    assert stderr.getvalue().endswith("\x1b[2K")
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(
    ("remembered", "text"), [(0, ""), (12, ", 12 remembered")], ids=["none", "some"]
)
def test_how_much_was_measured_is_told_apart_from_what_was_remembered(
    remembered: int, text: str
) -> None:
    stderr, logfile = io.StringIO(), io.StringIO()
    console(stderr=stderr, verbose=1, logfile=logfile).measured(5, 17, remembered)
    assert stderr.getvalue() == f"buttersink: measured 5 of 17 candidate diffs{text}\n"
    assert logfile.getvalue().endswith(f" measured 5 of 17 candidate diffs{text}\n")


@pytest.mark.parametrize(("quiet", "verbose"), [(0, 1), (2, 2)])
def test_what_is_for_debugging_is_only_logged(quiet: int, verbose: int) -> None:
    stderr, logfile = io.StringIO(), io.StringIO()
    console(stderr=stderr, quiet=quiet, verbose=verbose, logfile=logfile).debug("odd\n")
    assert stderr.getvalue() == ""
    assert logfile.getvalue().endswith(" debug: odd\\n\n")


def test_what_is_for_debugging_is_written_where_that_is_wanted() -> None:
    stderr = io.StringIO()
    console(stderr=stderr, verbose=2).debug("odd\n")
    assert stderr.getvalue() == "buttersink: debug: odd\\n\n"


def test_nothing_flashes_within_a_second(clock: Clock) -> None:
    stderr = Terminal()
    out = console(stderr=stderr)
    for done in range(9):
        out.measuring(done, 10)
        clock.now += 0.1
    out.plan("a", "b", Plan(()), False)  # noqa: FBT003
    transfer = Transfer(uuid(1), b"x", 10, 1, 1)
    out.starting(1, 10)
    out.transfer_started(transfer)
    for sent in range(9):
        out.transfer_advanced(transfer, sent)
        clock.now += 0.1
    out.transfer_ended(transfer, None)
    out.finished()
    assert stderr.getvalue() == ""


def test_messages_stay_above_the_bars(clock: Clock) -> None:
    stderr = Terminal()
    out = console(stderr=stderr)
    run_one(out, clock)
    out.note("[bold]halfway[/] " + "long " * 40)
    assert "buttersink: note: [bold]halfway[/] " + "long " * 40 in stderr.getvalue()
    assert "Sending" in plain(stderr.getvalue()).split("halfway")[1]
    out.finished()
    out.note("after")
    assert stderr.getvalue().endswith("buttersink: note: after\n")


def test_bars_are_gone_before_a_result_is_written(clock: Clock) -> None:
    both = Terminal()
    out = console(both, both)
    run_one(out, clock)
    out.report(Report((result(1, Status.DONE),), 5, 1.0, ()))
    assert both.getvalue().endswith("\x1b[2KSent 1 snapshot, 5 B in 1.0 s (5 B/s).\n")


def test_no_progress_on_a_pipe(clock: Clock) -> None:
    stderr = io.StringIO()
    run_one(console(Terminal(), stderr), clock)
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("quiet", [1, 2])
def test_no_progress_when_quiet(clock: Clock, quiet: int) -> None:
    stderr = Terminal()
    run_one(console(stderr=stderr, quiet=quiet), clock)
    assert stderr.getvalue() == ""


def test_json_on_the_terminal_is_left_alone(clock: Clock) -> None:
    stderr = Terminal()
    run_one(console(Terminal(), stderr, as_json=True), clock)
    assert stderr.getvalue() == ""
    run_one(console(io.StringIO(), stderr, as_json=True), clock)
    assert stderr.getvalue() != ""


def test_no_progress_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stderr = Terminal()
    out = console(stderr=stderr)
    run_one(out, clock)
    out.note("seen")
    out.finished()
    assert stderr.getvalue() == "buttersink: note: seen\n"


def test_a_terminal_that_goes_away_ends_no_transfer(clock: Clock) -> None:
    class Gone(Terminal):
        def write(self, text: str, /) -> int:
            raise OSError(5, f"Input/output error after {len(text)}")

    out = console(stderr=Gone())
    run_one(out, clock)
    out.note("unheard")
    out.finished()


# JSON


def document(stdout: io.StringIO) -> dict[str, Any]:
    text = stdout.getvalue()
    assert text.isascii()
    assert text.endswith("}\n")
    parsed = json.loads(text)
    assert isinstance(parsed, dict)
    return parsed


def test_json_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NEW_YEAR + 90 * SECOND)
    stdout, stderr = io.StringIO(), io.StringIO()
    catalogue = Catalogue(
        snapshots=(snapshot(1, HOSTILE, measured(5), 3), THIRD),
        diffs=MappingProxyType({
            Diff(uuid(1), None): Size(7, Exactness.STORED),
            Diff(uuid(1), uuid(3)): Size(4, Exactness.STORED),
        }),
        partials=(PARTIAL,),
    )  # fmt: skip
    console(stdout, stderr, as_json=True, quiet=2).listing("s3://b/\udcff", catalogue)
    written = document(stdout)
    assert re.fullmatch(r"\d+\.\d+.*", str(written.pop("buttersink")))
    assert written == {
        "location": "s3://b/\udcff",
        "snapshots": [
            {
                "path": "a [red]b[/] \udcff\n\x1b[2J é",
                "uuid": "01010101-0101-0101-0101-010101010101",
                "received_uuid": "01010101-0101-0101-0101-010101010101",
                "parent_uuid": "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
                "generation": 100,
                "created": "2024-01-02T00:00:00Z",
                "size": 5,
                "exclusive": 3,
                "diffs": [
                    {"from": None, "size": 7},
                    {"from": "03030303-0303-0303-0303-030303030303", "size": 4},
                ],
            },
            {
                "path": "daily/3",
                "uuid": "03030303-0303-0303-0303-030303030303",
                "received_uuid": "03030303-0303-0303-0303-030303030303",
                "parent_uuid": "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
                "generation": 300,
                "created": "2024-01-04T00:00:00Z",
                "size": None,
                "exclusive": None,
                "diffs": [],
            },
        ],
        "partials": [{"path": ".buttersink-03.part", "size": 2 * MIB, "age": 90}],
        "total_size": 11,
    }
    assert stderr.getvalue() == ""


def test_json_paths_and_uuids_come_back_as_they_were() -> None:
    stdout = io.StringIO()
    every_byte = bytes(range(1, 256))
    console(stdout, as_json=True).listing("x", Catalogue(snapshots=(snapshot(5, every_byte),)))
    (listed_one,) = json.loads(stdout.getvalue())["snapshots"]
    assert listed_one["path"].encode("utf-8", "surrogateescape") == every_byte
    assert uuid_from_text(listed_one["uuid"]) == uuid(5)


def entry(action: str, path: str, number: int, **keys: object) -> dict[str, object]:
    """Return a step of a JSON plan, null but for what is given."""
    nothing = dict.fromkeys(("from", "from_path", "size", "size_is"))
    start = {"action": action, "path": path, "uuid": uuid_text(uuid(number))}
    none = {"clone_sources": [], "depth": 0, "restore_bytes": None, "problem": None}
    return {**start, **nothing, **none, "passing": False, **keys}


def test_json_sync() -> None:
    stdout = io.StringIO()
    out = console(stdout, as_json=True)
    more = (
        send(FIRST, THIRD, estimated(9), b"moved"),
        Step(Action.SEND, b"x", FIRST, problem="taken"),
    )
    out.plan("a", "b", Plan((*EVERYTHING.steps, *more), 3, 5, 4), False)  # noqa: FBT003
    out.removed(b"old\xff")
    assert stdout.getvalue() == ""
    results = (result(1, Status.RESUMED), result(2, Status.SKIPPED))
    out.report(Report(results, 512, 1.00049, (b"old\xff",), ("cannot delete: y",)))
    written = document(stdout)
    del written["buttersink"]
    first, second, third = (uuid_text(uuid(number)) for number in (1, 2, 3))
    moved = {"from": third, "from_path": "daily/3", "size": 9, "size_is": "estimated", "depth": 2}
    assert written == {
        "source": "a",
        "destination": "b",
        "dry_run": False,
        "plan": {
            "steps": [
                entry("send", "daily/1", 1, size=100 * MIB, size_is="measured", depth=1),
                {
                    **entry("send", "daily/2", 2, size=512, size_is="measured", depth=2),
                    "from": first,
                    "from_path": "daily/1",
                },
                entry("copy", "daily/3", 3, from_path="elsewhere/3"),
                entry("keep", "kept/4", 4),
                entry("keep", "kept/5", 5),
                entry("delete", "old", 6),
                entry("discard", ".buttersink-03.part", 3, size=2 * MIB, size_is="stored"),
                entry("send", "moved", 1, **moved),
                entry("send", "x", 1, problem="taken"),
            ],
            "send_count": 3,
            "send_bytes": 100 * MIB + 521,
            "lower_bound_bytes": 3,
            "cost_bytes": 5,
            "cost_bound_bytes": 4,
            "requests": 0,
        },
        "result": {
            "sent_bytes": 512,
            "seconds": 1.0,
            "steps": [
                {
                    "path": "daily/1",
                    "uuid": first,
                    "status": "resumed",
                    "bytes": 512,
                    "resumed_from": 4096,
                    "seconds": 1.235,
                    "error": None,
                    "passing": False,
                },
                {
                    "path": "daily/2",
                    "uuid": second,
                    "status": "skipped",
                    "bytes": 512,
                    "resumed_from": None,
                    "seconds": 1.235,
                    "error": "why",
                    "passing": False,
                },
            ],
            "removed": ["old\udcff"],
            "errors": ["cannot delete: y"],
        },
    }


def test_json_of_a_dry_run_is_one_document_without_a_result() -> None:
    stdout = io.StringIO()
    out = console(stdout, as_json=True, quiet=2)
    out.plan("a", "b", Plan(()), True)  # noqa: FBT003
    out.report(None)
    written = document(stdout)
    assert written["dry_run"] is True
    assert written["result"] is None


def test_json_replaced_snapshots_are_deletions() -> None:
    stdout = io.StringIO()
    out = console(stdout, as_json=True)
    step = Step(Action.COPY, b"x", FIRST, replaces=snapshot(7, b"x"))
    out.plan("a", "b", Plan((step,)), True)  # noqa: FBT003
    out.report(None)
    steps = json.loads(stdout.getvalue())["plan"]["steps"]
    assert [(s["action"], s["path"], s["uuid"][:2]) for s in steps] == [
        ("copy", "x", "01"), ("delete", "x", "07"),
    ]  # fmt: skip


def shape(value: object) -> object:
    """Return the keys of a document and of what is in it."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value[:1]] if isinstance(value, list) else None


def test_the_documented_examples_have_the_keys_that_are_written() -> None:
    text = (Path(__file__).parents[2] / "docs" / "JSON.md").read_text("utf-8")
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    listing, sync, verified = io.StringIO(), io.StringIO(), io.StringIO()
    stored = MappingProxyType({Diff(uuid(1), None): Size(7, Exactness.STORED)})
    console(listing, as_json=True).listing("x", Catalogue((FIRST,), (), {}, stored, (PARTIAL,)))
    out = console(sync, as_json=True)
    out.plan("a", "b", Plan(SENDS), False)  # noqa: FBT003
    out.report(Report((result(1, Status.DONE),), 1, 1.0, ()))
    findings = (Finding(Diff(uuid(2), uuid(1)), "damaged"),)
    losses = (Loss(uuid(3), Repair(uuid(2), (uuid(1),))),)
    paths = {uuid(2): b"two", uuid(3): b"three"}
    verdict = Verdict(Depth.FULL, 3, 3, 1, 1.0, findings, losses, (), (), paths)
    console(verified, as_json=True).verdict("x", verdict)
    mine = [example for example in examples if "directory" not in example]  # btrfslist has its own
    assert [shape(example) for example in mine] == [
        shape(json.loads(stream.getvalue())) for stream in (listing, sync, verified)
    ]
