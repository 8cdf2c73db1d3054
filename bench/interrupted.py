"""
What an interrupted transfer sends again, in every pairing of places.

One snapshot of incompressible data goes from a place of each kind to a place of each kind: a
directory here, one on another host over ssh, a prefix of a bucket. The program is killed (SIGKILL)
after a number of bytes that a seed chooses, and run again. It shows from where that went on, how
much was sent twice, and whether what arrived equals the source, whatever way it came; from a bucket
that is seen after a restore. The other host is a real sshd here, the bucket a real server.

    TMPDIR=/dev/shm script/bench interrupted --size 1024
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from bench.local import filesystem, machine, scratch
from bench.rounds import one_snapshot
from bench.tables import print_rows
from tests.support.command import assert_same
from tests.support.loopfs import MIB
from tests.support.s3servers import START
from tests.support.sshd import started_sshd

if TYPE_CHECKING:
    from tests.support.s3servers import Bucket
    from tests.support.sshd import StartedSshd

HOST = "root@testhost"
KINDS = ("here", "ssh", "bucket")
REPOSITORY = Path(__file__).parent.parent
HEADINGS = ("from", "to", "killed after", "went on from", "sent twice")

KILLED_AFTER = """
import os, signal, sys
from buttersink import cli, console
most = int(sys.argv.pop(1))
advanced = console.Console.transfer_advanced
def advance(self, transfer, sent):
    advanced(self, transfer, sent)
    if sent >= most:
        os.kill(os.getpid(), signal.SIGKILL)
console.Console.transfer_advanced = advance
sys.exit(cli.main())
"""


@dataclass(frozen=True, slots=True)
class Places:
    """
    What there is.

    Attributes:
        source: Directory with the snapshot.
        target: Directory on another file system, new for each transfer.
        bucket: With the snapshot below `source/`.
        environment: In which the program finds all of it.

    """

    source: Path
    target: Path
    bucket: Bucket
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments, with nothing remembered."""
        with scratch() as cache:
            return subprocess.run(
                [sys.executable, *command],
                env={**self.environment, "XDG_CACHE_HOME": str(cache)},
                capture_output=True,
                check=False,
                text=True,
            )

    def sync(self, source: str, target: str) -> Any:  # noqa: ANN401  JSON
        """Synchronise; return the result of the first step."""
        done = self.run("-m", "buttersink", "--json", source, target)
        if done.returncode:
            sys.exit(done.stderr)
        return json.loads(done.stdout)["result"]["steps"][0]

    def location(self, kind: str, directory: Path, prefix: str) -> str:
        """Return a place of a kind."""
        ways = {
            "here": f"{directory}/",
            "ssh": f"ssh://{HOST}{directory}/",
            "bucket": f"s3://{self.bucket.name}/{prefix}/",
        }
        return ways[kind]

    def interrupt(self, source: str, target: str, most: int) -> None:
        """Kill a transfer after so many bytes."""
        done = self.run("-c", KILLED_AFTER, str(most), source, target)
        if done.returncode != -signal.SIGKILL:
            sys.exit(f"{done.returncode}: {done.stderr}")


def transfer(places: Places, kinds: tuple[str, str], random: Random) -> tuple[str, ...]:
    """Interrupt a transfer and go on; return what the table shows of it."""
    prefix = "-".join(kinds)
    source = places.location(kinds[0], places.source, "source")
    target = places.location(kinds[1], places.target, prefix)
    size = sum(file.stat().st_size for file in (places.source / "first").iterdir())
    killed = random.randrange(size * 6 // 10, size)
    places.interrupt(source, target, killed)
    step = places.sync(source, target)
    if kinds[1] == "bucket":
        places.sync(target, f"{places.target}/")
    assert_same(places.source / "first", places.target / "first")
    again = max(0, killed - (step["resumed_from"] or 0))
    numbers = (killed, step["resumed_from"] or 0, again)
    return (*kinds, *(f"{number / MIB:,.0f} MiB" for number in numbers))


def prepare(stack: ExitStack, directory: Path, chosen: argparse.Namespace) -> Places:
    """Have all places but the target, with the snapshot in the bucket."""
    sshd: StartedSshd = stack.enter_context(started_sshd(directory))
    server = stack.enter_context(START[chosen.server](directory))
    source = stack.enter_context(one_snapshot(directory, chosen.size))
    environment = {
        **os.environ,
        **server.environment(),
        **sshd.client.environment,
        "PYTHONPATH": f"{REPOSITORY / 'src'}",
    }
    places = Places(source, source, server.bucket("interrupted"), environment)
    places.sync(f"{source}/", places.location("bucket", source, "source"))
    return places


def main() -> int:
    """Go through all pairings and print a table."""
    parser = argparse.ArgumentParser(
        prog="script/bench interrupted",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=1024, metavar="MiB", help="of the snapshot")
    parser.add_argument("--server", default="rclone", choices=[*START], help="of the bucket")
    parser.add_argument("--seed", default="1", help="chooses after how many bytes")
    chosen = parser.parse_args()
    random, rows = Random(chosen.seed), []
    with scratch() as directory, ExitStack() as stack:
        places = prepare(stack, directory, chosen)
        for pairing in ((one, other) for one in KINDS for other in KINDS):
            with filesystem(directory, "destination") as target:
                there = Places(places.source, target, places.bucket, places.environment)
                rows.append(transfer(there, pairing, random))
            print("  ".join(rows[-1]), file=sys.stderr)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print_rows(HEADINGS, rows)
    print("all equal the source")
    return 0


if __name__ == "__main__":
    sys.exit(main())
