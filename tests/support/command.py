"""The commands as a user runs them: a process of its own, its output and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from buttersink.utilities.checksumdir import entries
from tests.support.loopfs import show_subvolume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Argument = str | bytes | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401  JSON
        """The one JSON document on standard output."""
        return json.loads(self.out)


def buttersink(
    *arguments: Argument, status: int | None = 0, environment: Mapping[str, str] | None = None
) -> Completed:
    """Run the command; it has to end with `status` unless that is None."""
    return _run("buttersink", arguments, status, environment)


def checksumdir(*arguments: Argument, status: int | None = 0) -> Completed:
    """Run the command; it has to end with `status` unless that is None."""
    return _run("buttersink.utilities.checksumdir", arguments, status, None)


def command_line(*arguments: Argument) -> list[Argument]:
    """Return what starts the command from this checkout."""
    return [sys.executable, "-m", "buttersink", *arguments]


def run_raw(
    command: Sequence[Argument],
    *,
    environment: Mapping[str, str] | None = None,
    working_in: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with more in its environment; whatever its status."""
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        env={**os.environ, **(environment or {})},
        cwd=working_in,
    )


def _run(
    module: str,
    arguments: tuple[Argument, ...],
    status: int | None,
    environment: Mapping[str, str] | None,
) -> Completed:
    done = run_raw([sys.executable, "-m", module, *arguments], environment=environment)
    completed = Completed(
        done.returncode,
        done.stdout.decode("utf-8", "surrogateescape"),
        done.stderr.decode("utf-8", "surrogateescape"),
    )
    assert status is None or completed.status == status, completed
    return completed


def paths(location: Path) -> list[str]:
    """Return the paths that a listing of a location shows, in order."""
    return [each["path"] for each in listing(location)["snapshots"]]


def listing(location: Path) -> Any:  # noqa: ANN401  JSON
    """Return the document of a listing without sizes."""
    return buttersink("--json", "-e", f"{location}/").document


def assert_nothing_arrived(location: Path) -> None:
    """Fail if there is anything but a checkpoint with its journal, and at most that."""
    left = os.listdir(location)
    assert not left or (len(left) == 2 and any(name.endswith(".journal") for name in left)), left


def assert_same(left: Path, right: Path) -> None:
    """Fail unless two directories hold the same data and metadata."""
    one, other = (list(entries(os.fsencode(each))) for each in (left, right))
    assert one == other  # where there is an error in place of a line, never


def assert_copied(source: Path, destination: Path) -> None:
    """Fail unless two locations hold the same snapshots, each with the same identity and data."""
    names = paths(source)
    assert paths(destination) == names
    for name in names:
        assert_same(source / name, destination / name)
        here, there = show_subvolume(source / name), show_subvolume(destination / name)
        assert here.effective_uuid == there.effective_uuid
