"""
ButterSink with a bucket, beside the AWS command line and boto3 with btrfs-progs.

    a  upload one snapshot of incompressible data: `btrfs send | aws s3 cp`, boto3's upload_fileobj
    b  restore it: `aws s3 cp | btrfs receive`, boto3 with one request or with ranges
    c  upload with parts of 8, 16, 32 and 64 MiB
    d  list 5,000 diffs with their records

Each round runs every contender once, and each round begins with another one; ratios are of the same
round. All have the same size of parts and number of requests at once. Processor time is that of all
processes of a contender but not the server's, which runs on the same machine. ButterSink's side is
the whole process, with planning. Every upload goes to a new bucket, every restore to a new file
system, and all end with `btrfs filesystem sync` of that.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import buttersink
from bench.local import PROGRAMS, Measured, filesystem, scratch, timed
from bench.rounds import added, contest, one_snapshot, show
from bench.tables import Contest, print_rows
from buttersink.catalogue import Diff, Uuid
from buttersink.stores.s3.keys import diff_key, record_key
from buttersink.stores.s3.listing import read_listing
from buttersink.stores.s3.record import Part, Record, checksum_of
from tests.support.loopfs import MIB
from tests.support.s3servers import START, Bucket, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS = "abcd"
PART_MIB = 16
THREADS = 4
LISTED = 5000
PREFIX = "backup"
OURS = "ButterSink"
REPOSITORY = Path(__file__).parent.parent
CONFIGURATION = f"""[default]
s3 =
  multipart_threshold = {PART_MIB}MB
  multipart_chunksize = {PART_MIB}MB
  max_concurrent_requests = {THREADS}
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """
    What all runs share.

    Attributes:
        server: Where the buckets are.
        source: A directory with one snapshot in it.
        directory: For what runs need, and nothing of it after.
        runs: Measured rounds.

    """

    server: Server
    source: Path
    directory: Path
    runs: int

    def run(self, *command: str) -> Measured:
        """Run programs that find the server."""
        config = self.directory / "aws-config"
        config.write_text(CONFIGURATION)
        sources = (Path(buttersink.__file__).parent.parent, REPOSITORY)
        found = {
            **self.server.environment(),
            "AWS_CONFIG_FILE": str(config),
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
        }
        with scratch() as cache:
            return timed(*command, cache=cache, environment=found)

    def ours(self, *arguments: str) -> Measured:
        """Run ButterSink, of the checkout that this is in."""
        return self.run(sys.executable, "-m", "buttersink", *arguments)

    @contextmanager
    def bucket(self) -> Iterator[Bucket]:
        """Have a new bucket; servers keep it in memory, so it goes with all that is in it."""
        made = self.server.bucket(f"bench-{perf_counter_ns()}")
        try:
            yield made
        finally:
            made.remove()


def boto3(what: str, bucket: Bucket, key: str) -> list[str]:
    """Return the command that does it with boto3."""
    arguments = [bucket.name, key, str(PART_MIB * MIB), str(THREADS)]
    return [sys.executable, "-m", "bench.boto3peer", what, *arguments]


def aws(*arguments: str) -> list[str]:
    """Return the command of the AWS command line."""
    return [str(PROGRAMS / "aws"), "s3", *arguments]


def uploads(setting: Setting) -> Contest:
    """Compare uploads of the snapshot."""
    send = ["btrfs", "send", "--quiet", str(setting.source / "first"), "|"]

    def by_aws() -> Measured:
        with setting.bucket() as bucket:
            return setting.run(*send, *aws("cp", "-", f"s3://{bucket.name}/{PREFIX}/first"))

    def by_boto3() -> Measured:
        with setting.bucket() as bucket:
            return setting.run(*send, *boto3("upload", bucket, f"{PREFIX}/first"))

    contenders = {
        OURS: lambda: upload(setting, PART_MIB),
        "send | aws s3 cp": by_aws,
        "send | upload_fileobj": by_boto3,
    }
    return contest("upload", setting.runs, contenders)


def upload(setting: Setting, part_mib: int) -> Measured:
    """Upload the snapshot with ButterSink."""
    with setting.bucket() as bucket:
        target = f"s3://{bucket.name}/{PREFIX}/"
        return setting.ours("--part-size", str(part_mib), f"{setting.source}/", target)


def part_sizes(setting: Setting) -> Contest:
    """Compare uploads by ButterSink with parts of several sizes."""
    sizes = sorted((8, 16, 32, 64), key=lambda size: size != PART_MIB)
    contenders = {f"{size} MiB": lambda size=size: upload(setting, size) for size in sizes}
    return contest("upload in parts", setting.runs, contenders)


def restores(setting: Setting) -> Contest:
    """Compare ways to make a snapshot of an object."""
    with setting.bucket() as bucket:
        location = f"s3://{bucket.name}/{PREFIX}/"
        setting.ours(f"{setting.source}/", location)
        keys = bucket.keys()
        key = next(each for each in keys if not each.endswith(".json"))

        def ours() -> Measured:
            with destination(setting) as target:
                return synced(setting, target, setting.ours(location, f"{target}/"))

        def other(*download: str) -> Callable[[], Measured]:
            def run() -> Measured:
                with destination(setting) as target:
                    receive = ("|", "btrfs", "receive", "--quiet", str(target))
                    return synced(setting, target, setting.run(*download, *receive))

            return run

        contenders = {
            OURS: ours,
            "aws s3 cp | receive": other(*aws("cp", f"s3://{bucket.name}/{key}", "-")),
            "get_object | receive": other(*boto3("read", bucket, key)),
            "download_fileobj | receive": other(*boto3("fetch", bucket, key)),
        }
        return contest("restore", setting.runs, contenders)


@contextmanager
def destination(setting: Setting) -> Iterator[Path]:
    """Have a new file system."""
    with filesystem(setting.directory, "destination") as target:
        yield target


def synced(setting: Setting, target: Path, restored: Measured) -> Measured:
    """Return what a run took, and then making what it has restored durable."""
    if not (target / "first").is_dir():
        sys.exit("restored nothing")
    sync = setting.run("btrfs", "filesystem", "sync", str(target))
    return added(restored, sync)


def listings(setting: Setting) -> tuple[Contest, Counter[str]]:
    """Compare listings of many diffs, and count the requests that ButterSink's takes."""
    with setting.bucket() as bucket:
        put_diffs(bucket)
        location = f"s3://{bucket.name}/{PREFIX}/"
        contenders = {
            OURS: lambda: setting.ours(location),
            "aws s3 ls --recursive": lambda: setting.run(*aws("ls", "--recursive", location)),
            "list_objects_v2": lambda: setting.run(*boto3("list", bucket, f"{PREFIX}/")),
        }
        return contest(f"{LISTED:,} listed", setting.runs, contenders), requests(bucket)


def put_diffs(bucket: Bucket) -> None:
    """Put small diffs with their records, each from the one before it."""
    body = b"a diff"

    def put(client: Any, number: int) -> None:  # noqa: ANN401  made as botocore runs
        path = b"home/%05d" % number
        parent = Uuid((number - 1).to_bytes(16, "big")) if number > 1 else None
        key = diff_key(PREFIX, path, Diff(Uuid(number.to_bytes(16, "big")), parent))
        tag = client.put_object(Bucket=bucket.name, Key=key, Body=body)["ETag"].strip('"')
        part = Part(len(body), checksum_of(body), tag)
        record = Record(path, len(body), bytes(32), part.crc32c, (part,)).to_json()
        name = record_key(key, 100 + number, 10**18 + number, record)
        client.put_object(Bucket=bucket.name, Key=name, Body=record)

    with closing(bucket.server.client()) as client, ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(put, client, number + 1) for number in range(LISTED)]:
            done.result()


def requests(bucket: Bucket) -> Counter[str]:
    """Return how many requests of each kind a listing takes."""
    counted = Counter[str]()

    def count(model: Any, **_: object) -> None:  # noqa: ANN401  botocore's
        counted[model.name] += 1

    with closing(bucket.server.client()) as client:
        client.meta.events.register("before-call.s3", count)
        if len(read_listing(client, bucket.name, PREFIX).diffs) != LISTED:
            sys.exit("not all are listed")
    return counted


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/bench s3",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, such as a,d")
    parser.add_argument("--server", default="rclone", choices=[*START], help="runs on its own")
    parser.add_argument("--size", type=int, default=1024, metavar="MiB", help="of the snapshot")
    parser.add_argument("--runs", type=int, default=3, help="measured rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args()
    chosen.only = set(chosen.only.split(","))
    if not chosen.only <= set(PARTS) or chosen.runs < 1 or chosen.size < 1:
        parser.error(f"--only takes some of {','.join(PARTS)}; --runs and --size at least 1")
    return chosen


def main() -> int:
    """Measure what is asked for, print tables, and write the raw numbers."""
    chosen = options()
    contests, counted = list[Contest](), Counter[str]()
    load = os.getloadavg()[0]
    with (
        scratch() as directory,
        START[chosen.server](directory) as server,
        one_snapshot(directory, chosen.size) as source,
    ):
        setting = Setting(server, source, directory, chosen.runs)
        for part, compare in (("a", uploads), ("b", restores), ("c", part_sizes)):
            if part in chosen.only:
                contests.append(compare(setting))
        if "d" in chosen.only:
            listed, counted = listings(setting)
            contests.append(listed)
    where = {
        "server": chosen.server,
        "snapshot": f"{chosen.size} MiB",
        "load before and after": f"{load:.1f} {os.getloadavg()[0]:.1f}",
    }
    show(where, contests, {"requests": counted}, chosen.json)
    if counted:
        print_rows(("requests", ""), [(kind, str(count)) for kind, count in counted.items()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
