"""
Where faults happen: two btrfs file systems and a bucket, put back to what they were for each run.

Everything lies in memory, below one directory. The file systems are images on a btrfs of their own,
which copies them by reference: a fresh destination for every run, and what a disk would hold if the
power failed now. Two beginnings are kept: an empty destination, and one that holds some of the
snapshots, one that has to go, and one that lies where another is to arrive.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import botocore.session

from buttersink.catalogue import Diff, Uuid
from buttersink.kernel.subvolumes import Subvolume, list_subvolumes
from buttersink.location import parse_location
from buttersink.stores import Mode, Role, open_store
from buttersink.utilities.checksumdir import entries
from tests.faults import farside, moments
from tests.faults.faultydisk import FaultyDisk
from tests.faults.moments import NEVER, Moment, Run
from tests.support import s3servers
from tests.support.history import make_history
from tests.support.loopfs import (
    MIB,
    btrfs,
    create_subvolume,
    delete_subvolume,
    mounted,
    run,
    snapshot,
    tmpfs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.s3servers import Bucket

IMAGE_BYTES = 160 * MIB
HOST_BYTES = 6 * 1024 * MIB  # sparse: what is written counts
BEGINNINGS = ("empty", "begun")


@dataclass(frozen=True, slots=True)
class Pairing:
    """Where snapshots come from and where they go, as kinds of locations."""

    source: str
    destination: str

    @property
    def source_is(self) -> str:
        """What the source is, however it is reached."""
        return REACHES[self.source]

    @property
    def destination_is(self) -> str:
        """What the destination is, however it is reached."""
        return REACHES[self.destination]

    @property
    def is_remote(self) -> bool:
        """Whether one of them is on another host."""
        return "ssh" in (self.source, self.destination)

    def __str__(self) -> str:
        return f"{self.source} to {self.destination}"


REACHES = {"btrfs": "btrfs", "bucket": "bucket", "ssh": "btrfs"}
"""Kinds of locations, and what is there."""

PAIRINGS = (
    Pairing("btrfs", "btrfs"),
    Pairing("btrfs", "bucket"),
    Pairing("bucket", "btrfs"),
    Pairing("btrfs", "ssh"),
    Pairing("ssh", "btrfs"),
    Pairing("ssh", "ssh"),
    Pairing("ssh", "bucket"),
    Pairing("bucket", "ssh"),
    Pairing("bucket", "bucket"),
)
"""Another kind of location is another name here, in `REACHES` and in `Arena.locations`."""


@dataclass(frozen=True, slots=True)
class Known:
    """A snapshot as it was made: its path in its location, and the digest of its content."""

    path: str
    digest: str


class Disk:
    """
    A btrfs in an image that can be copied, replaced, and made to fail.

    Attributes:
        mountpoint: Where it is mounted.
        image: The file.

    """

    def __init__(self, image: Path, mountpoint: Path) -> None:
        self.image, self.mountpoint = image, mountpoint
        self._mounted = ExitStack()

    def mount(self, *, faulty: FaultyDisk | None = None) -> None:
        """Mount it, through a disk that can fail if one is given."""
        btrfs("device", "scan", "--forget")  # copies have one and the same identity
        image = self._mounted.enter_context(faulty.showing(self.image)) if faulty else self.image
        self._mounted.enter_context(mounted(image, self.mountpoint))

    def unmount(self) -> None:
        """Unmount it; nothing of a run may hold it."""
        self._mounted.close()

    def remount(self, *, faulty: FaultyDisk | None = None) -> None:
        """Mount it anew, as after a failure."""
        self.unmount()
        self.mount(faulty=faulty)

    def copy(self, name: str) -> Path:
        """Return a copy of what the disk holds now, beside the image."""
        copied = self.image.with_name(name)
        copied.unlink(missing_ok=True)
        run("cp", "--reflink=always", self.image, copied)
        return copied

    def become(self, image: Path, *, faulty: FaultyDisk | None = None) -> None:
        """Have another image in the place of this one, mounted."""
        self.unmount()
        self.image.unlink(missing_ok=True)
        run("cp", "--reflink=always", image, self.image)
        self.mount(faulty=faulty)

    def subvolumes(self) -> list[Subvolume]:
        """Return every subvolume of it."""
        fd = os.open(self.mountpoint, os.O_RDONLY)
        try:
            return list_subvolumes(fd)
        finally:
            os.close(fd)


class Arena:
    """
    The file systems, the bucket, and what is known of the snapshots.

    Attributes:
        source: Snapshots in the directory `snapshots`.
        destination: The location is its directory `backup`; all else is outside.
        known: Every snapshot by its effective UUID.
        streams: SHA-256 of the stream of each diff between any two of them.
        bucket: Its prefixes `whole`, `empty` and `begun` are beginnings; runs have their own.
        prefix, source_prefix: In the bucket, of destination and source.
        client: Of the bucket's server.
        faulty: A disk that one of the file systems may be on.

    """

    def __init__(self, root: Path, bucket: Bucket) -> None:
        self.root, self.bucket, self.client = root, bucket, bucket.server.client()
        self.source = Disk(root / "host" / "source.img", root / "source")
        self.destination = Disk(root / "host" / "destination.img", root / "destination")
        self.known: dict[Uuid, Known] = {}
        self.streams: dict[Diff, str] = {}
        self._made: list[Subvolume] = []
        self.prefix, self.source_prefix = "", "whole"
        self.faulty = FaultyDisk(root / "faulty")

    @property
    def snapshots(self) -> Path:
        """The source's location."""
        return self.source.mountpoint / "snapshots"

    @property
    def backup(self) -> Path:
        """The destination's location."""
        return self.destination.mountpoint / "backup"

    def locations(self, pairing: Pairing) -> tuple[str, str]:
        """Return the locations that a run is between."""
        source = {"btrfs": f"{self.snapshots}/", "bucket": self.bucket_location(self.source_prefix)}
        destination = {"btrfs": f"{self.backup}/", "bucket": self.bucket_location(self.prefix)}
        for places in (source, destination):
            places["ssh"] = f"ssh://{farside.HOST}{places['btrfs']}"
        return source[pairing.source], destination[pairing.destination]

    def bucket_location(self, prefix: str) -> str:
        """Return the location of a prefix."""
        return f"s3://{self.bucket.name}/{prefix}/"

    def start(self, pairing: Pairing, moment: Moment = NEVER) -> Run:
        """Start the command that makes the destination hold what the source holds, no more."""
        arguments = ("--delete", *self.locations(pairing))
        host_in = self.root / "far" if pairing.is_remote else None
        return moments.start(arguments, moment, self.root / "said", host_in)

    def command(self, *arguments: str) -> Run:
        """Start the command."""
        return moments.start(arguments, NEVER, self.root / "said")

    def succeed(self, *arguments: str) -> None:
        """Run the command, which has to do all it should."""
        ended = self.command(*arguments).wait()
        assert ended.status == 0, ended

    def wanted(self) -> dict[str, str]:
        """Return path and digest of what the source holds now."""
        held = (self.known[effective(each)] for each in self.source.subvolumes() if each.read_only)
        return {each.path: each.digest for each in held}

    def build(self) -> None:
        """Make the source, both beginnings, and what is known."""
        for disk in (self.source, self.destination):
            disk.image.touch()
            os.truncate(disk.image, IMAGE_BYTES)
            run("mkfs.btrfs", "--quiet", disk.image)
            disk.mount()
        elsewhere = self._make_source()
        self._learn(self.snapshots)
        self._learn(elsewhere)
        self._make_destination()
        self.destination.remount()  # so that all of it is in the image
        self.destination.copy("empty.img")
        begun = self.bucket_location("begun")
        for place in (f"{self.backup}/", begun):
            self.succeed("--exclude", "^000[23]$", f"{self.snapshots}/", place)
            self.succeed(f"{elsewhere}/", place)
        self.destination.remount()
        self.destination.copy("begun.img")
        for path in elsewhere.iterdir():
            delete_subvolume(path)
        elsewhere.rmdir()
        self.succeed(f"{self.snapshots}/", self.bucket_location("whole"))
        self.source.remount()
        self.source.copy("source-template.img")
        self._made = self.source.subvolumes()

    def _make_source(self) -> Path:
        """Make a history; return a directory with two snapshots that are to go."""
        top = self.source.mountpoint
        make_history(top, seed=6, count=4, base_bytes=2 * MIB, change_bytes=MIB)
        elsewhere = top / "elsewhere"
        elsewhere.mkdir()
        live = create_subvolume(top / "another")
        for name in ("0003", "old"):
            (live / "file").write_bytes(name.encode() * 1000)
            snapshot(live, elsewhere / name)
        return elsewhere

    def _make_destination(self) -> None:
        """Make the location's directory, and something outside of it."""
        top = self.destination.mountpoint
        self.backup.mkdir()
        other = create_subvolume(top / "other-live")
        (other / "file").write_bytes(b"not ours" * 1000)
        snapshot(other, top / "other")
        (top / "notes").write_bytes(b"not ours either")

    def _learn(self, directory: Path) -> None:
        """Note what the snapshots below a directory are."""
        for path in directory.iterdir():
            fd = os.open(path, os.O_RDONLY)
            top = path.relative_to(self.source.mountpoint)
            uuid = next(e.uuid for e in self.source.subvolumes() if e.path == os.fsencode(top))
            self.known[Uuid(uuid)] = Known(path.name, tree_digest(path))
            os.close(fd)
        location = parse_location(os.fsencode(directory) + b"/")
        with open_store(location, Mode.READ, Role.SOURCE) as store:
            store.stream_version = store.traits.sends
            here = [each.uuid for each in store.catalogue().snapshots]
            for to in here:
                for parent in (None, *(each for each in here if each != to)):
                    diff = Diff(to, parent)
                    digest = hashlib.sha256()
                    with store.send(diff) as chunks:
                        for chunk in chunks:
                            digest.update(chunk)
                    self.streams[diff] = digest.hexdigest()

    def begin(self, pairing: Pairing, beginning: str, number: int) -> None:
        """Put both file systems back, and give the run a prefix of its own."""
        if self.source.subvolumes() != self._made:
            self.source.become(self.root / "host" / "source-template.img")
        self.destination.become(self.root / "host" / f"{beginning}.img")
        shutil.rmtree(self.root / "cache", ignore_errors=True)  # so that there is all to measure
        self.prefix = f"run-{number}"
        if pairing.destination_is == "bucket":
            self.copy_prefix(beginning, self.prefix)

    def keys(self, prefix: str) -> list[str]:
        """Return the keys in the bucket that begin so."""
        return [entry["Key"] for entry in self.objects(prefix)]

    def objects(self, prefix: str = "") -> list[dict[str, str]]:
        """Return what a listing of the bucket says."""
        answer = self.client.list_objects_v2(Bucket=self.bucket.name, Prefix=prefix)
        assert not answer["IsTruncated"]
        return list(answer.get("Contents", ()))

    def uploads(self) -> list[dict[str, str]]:
        """Return key and upload id of what has not ended."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket.name).get("Uploads", ())
        return [{"Key": each["Key"], "UploadId": each["UploadId"]} for each in found]

    def copy_prefix(self, old: str, new: str) -> None:
        """Copy all objects below a prefix of the bucket."""
        for key in self.keys(f"{old}/"):
            self.client.copy_object(
                Bucket=self.bucket.name,
                Key=new + key.removeprefix(old),
                CopySource={"Bucket": self.bucket.name, "Key": key},
            )

    def clear_bucket(self) -> None:
        """Remove what runs have left in the bucket."""
        keys = [{"Key": key} for key in (*self.keys("run-"), *self.keys("trash/"))]
        if keys:
            self.client.delete_objects(Bucket=self.bucket.name, Delete={"Objects": keys})
        for each in self.uploads():
            self.client.abort_multipart_upload(Bucket=self.bucket.name, **each)

    def close(self) -> None:
        """Unmount both file systems."""
        self.client.close()
        self.destination.unmount()
        self.source.unmount()


def effective(subvolume: Subvolume) -> Uuid:
    """Return the UUID that a snapshot has everywhere."""
    return Uuid(subvolume.received_uuid or subvolume.uuid)


def tree_digest(directory: Path) -> str:
    """Return a digest of all data and metadata in a directory; an error if any cannot be read."""
    digest = hashlib.sha256()
    for line in entries(os.fsencode(directory)):
        if isinstance(line, Exception):
            raise line
        digest.update(line)
    return digest.hexdigest()


@contextmanager
def arena(root: Path) -> Iterator[Arena]:
    """Have an arena below an empty directory, all of it in memory, and gone after."""
    with ExitStack() as stack:
        moments.import_everything()
        stack.enter_context(tmpfs(root))
        host = root / "host.img"
        host.touch()
        os.truncate(host, HOST_BYTES)
        run("mkfs.btrfs", "--quiet", host)
        stack.enter_context(mounted(host, root / "host", options=("nobarrier",)))
        botocore.session.get_session = cache(botocore.session.get_session)  # it reads many files
        server = stack.enter_context(s3servers.moto(root, least_part_bytes=moments.PART_BYTES))
        os.environ.update(server.environment(), XDG_CACHE_HOME=str(root / "cache"))
        bucket = server.bucket("faults")
        (root / "faulty").mkdir()
        (root / "far").mkdir()
        farside.install(root / "far", sys.executable)
        made = Arena(root, bucket)
        stack.callback(made.close)
        made.build()
        yield made
