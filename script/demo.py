"""
ButterSink's main job, shown to somebody who has never seen it, on real btrfs.

Two small file systems are made in memory, `laptop` with a history of snapshots and `backup` empty.
Every step prints a headline, why one would do it, the command as a user would type it, and what it
said. Then all of it is taken down, also on Ctrl-C and on errors. The exit status is 0 only if every
command succeeded and every snapshot arrived as it was. Nothing here knows how ButterSink works.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape

from tests.support.history import History, make_history
from tests.support.loopfs import MIB, CommandError, loop_filesystem, run, snapshot, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(sys.executable).parent


class StepError(Exception):
    """A command of the demo failed, or what it made is not what it should be."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The two file systems, mounted, and what the first one holds."""

    history: History
    backup: Path

    @property
    def source(self) -> str:
        """The source as a user names it: every snapshot below this directory."""
        return f"{self.history.directory}/"

    @property
    def destination(self) -> str:
        """The destination as a user names it."""
        return f"{self.backup}/"


@contextmanager
def memory() -> Iterator[Path]:
    """Have a temporary directory whose content is in memory, and gone with its mount."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp") as name:
        directory = Path(name)
        try:
            run("mount", "-t", "tmpfs", "-o", "mode=0755", "buttersink-demo", directory)
            yield directory
        finally:
            unmount(directory)


@contextmanager
def scene() -> Iterator[Scene]:
    """Have a laptop with six snapshots, the last two after a rollback, and an empty backup disk."""
    with (
        memory() as directory,
        loop_filesystem(directory, label="laptop") as laptop,
        loop_filesystem(directory, label="backup") as backup,
    ):
        os.environ["XDG_CACHE_HOME"] = str(directory / "cache")  # the user's own is left alone
        history = make_history(
            laptop.mountpoint, seed=2012, count=6, base_bytes=48 * MIB, change_bytes=3 * MIB
        )
        yield Scene(history, backup.mountpoint)


@dataclass(frozen=True, slots=True)
class Narrator:
    """Prints the steps; in colour where stdout is a terminal, as plain text where it is not."""

    console: Console

    def step(self, headline: str, why: str) -> None:
        """Announce a step and say in a sentence or two why one would want it."""
        self.console.print(f"\n[bold yellow]== {escape(headline)}[/]")
        self.console.print(escape(why))

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        self.console.print(escape(text), style=style, soft_wrap=True)

    def command(self, *arguments: str) -> None:
        """Show a command and run it; its output goes where ours goes."""
        self.console.print(f"\n[bold cyan]$ {escape(shlex.join(arguments))}[/]\n", soft_wrap=True)
        self.console.file.flush()
        status = subprocess.run(installed(arguments), check=False).returncode
        if status:
            raise StepError(f"{shlex.join(arguments)}: exit status {status}")


def installed(arguments: tuple[str, ...]) -> list[str]:
    """Return the command line with the program of this checkout, whatever is on the PATH."""
    return [str(PROGRAMS / arguments[0]), *arguments[1:]]


def introduce(narrator: Narrator, scene: Scene) -> None:
    """Tell what was made."""
    snapshots = scene.history.snapshots
    back = next(made for made in snapshots if made.branch)
    origin = snapshots[back.earlier or 0].path.name
    narrator.step(
        "A laptop with a history, and a backup disk",
        f"{scene.history.directory} holds {len(snapshots)} read-only snapshots of one subvolume. "
        "Between them files were edited, renamed, deleted and cloned. Before the snapshot "
        f"{back.path.name} the subvolume was rolled back to {origin}, so history has a branch. "
        f"{scene.backup} is another btrfs, and empty.",
    )


def play(narrator: Narrator, scene: Scene) -> None:
    """Do everything a user does in the first days."""
    source, destination = scene.source, scene.destination
    back = next(made for made in scene.history.snapshots if made.branch)
    narrator.step("See what is there", "One location: ButterSink lists its snapshots.")
    narrator.command("buttersink", source)
    narrator.step(
        "Look before you leap",
        "Two locations and --dry-run: the plan, and nothing is touched. One snapshot has to "
        "travel whole; every other one travels as a small difference to one that will be there "
        f"by then. See which one {back.path.name} is made from: ButterSink found the branch.",
    )
    narrator.command("buttersink", "--dry-run", source, destination)
    narrator.step("Synchronise", "The same command without --dry-run carries the plan out.")
    narrator.command("buttersink", source, destination)
    narrator.step("Again", "It is all there, so there is nothing to do: safe to run every hour.")
    narrator.command("buttersink", source, destination)
    expect_nothing_to_send(scene)
    narrator.step(
        "The next day",
        "A letter is written and one more snapshot made. Only the difference has to travel.",
    )
    (scene.history.live / "letter.txt").write_text("Dear newcomer, backups can be pleasant.\n")
    snapshot(scene.history.live, scene.history.directory / "next-day")
    narrator.command("buttersink", source, destination)
    expect_nothing_to_send(scene)


def expect_nothing_to_send(scene: Scene) -> None:
    """Ask ButterSink for the plan that is left, which has to be empty."""
    left = ("buttersink", "--dry-run", "--json", scene.source, scene.destination)
    plan = json.loads(run(*installed(left)))["plan"]
    if plan["send_count"]:
        raise StepError(f"{plan['send_count']} snapshots are still to be sent")


def compare(narrator: Narrator, scene: Scene) -> None:
    """Compare every snapshot's content with what arrived; all of it has to be the same."""
    narrator.step(
        "Trust, but verify",
        "checksumdir prints a line for everything in a directory, content and metadata, and last "
        "a number made from all the lines. Equal numbers, equal snapshots.",
    )
    names = sorted(os.listdir(scene.history.directory))
    show_checksums(narrator, scene.history.directory / names[-1])
    narrator.say("Every snapshot, where it was made and where it arrived:\n")
    different = 0
    for name in names:
        here = checksums(scene.history.directory / name)
        there = checksums(scene.backup / name)
        different += here != there
        verdict, style = ("the same", "green") if here == there else ("DIFFERENT", "bold red")
        narrator.say(f"{name:8}  {len(here) - 1:4} entries  {here[-1][:16]}...  {verdict}", style)
    if different:
        raise StepError(f"{different} snapshots are not what was sent")


def show_checksums(narrator: Narrator, directory: Path) -> None:
    """Show the end of one output."""
    narrator.say(f"\n$ checksumdir {directory} | tail -n 3\n", "bold cyan")
    for line in checksums(directory)[-3:]:
        narrator.say(line)
    narrator.say("")


def checksums(directory: Path) -> list[str]:
    """Return the lines that `checksumdir` prints."""
    return run(*installed(("checksumdir", str(directory)))).splitlines()


def stop(_signal: int, _frame: object) -> NoReturn:
    """End in the ordinary way, so that everything is taken down."""
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Run the demo and return the exit status."""
    signal.signal(signal.SIGTERM, stop)
    narrator = Narrator(Console(highlight=False))
    started = time.monotonic()
    try:
        narrator.say("Making two btrfs file systems and a history ...", "dim")
        with scene() as made:
            introduce(narrator, made)
            play(narrator, made)
            compare(narrator, made)
    except KeyboardInterrupt:
        narrator.say("\nStopped. Everything made for the demo is gone again.")
        return 128 + signal.SIGINT
    except (StepError, CommandError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"script/demo: {error}", markup=False)
        return 1
    seconds = time.monotonic() - started
    narrator.say(f"\nAll as it should be, in {seconds:.0f} seconds.", "bold green")
    narrator.say("Both file systems are gone again. Your own: buttersink --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
