"""
What has to hold after a fault, and after the run that follows it.

A destination is read in two ways that know nothing of each other: what lists as a snapshot there,
and what has a name. Contents are compared, never UUIDs alone. In a bucket a snapshot is a chain of
diffs, each of which has to be byte by byte the stream that its source makes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff, Uuid, uuid_text
from buttersink.location import parse_location
from buttersink.stores import Mode, Role, open_store
from buttersink.stores.s3.keys import parse_key
from tests.faults.arena import Pairing, effective, tree_digest
from tests.faults.moments import LET_GO_SECONDS
from tests.faults.processes import processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from buttersink.catalogue import Catalogue
    from tests.faults.arena import Arena, Disk, Known
    from tests.faults.moments import Ended

PARTIAL = ".buttersink-"
KEPT = ("0000", "0001")  # at the destination of a run that has begun, and wanted


@dataclass(slots=True)
class Verdict:
    """
    What was found wrong after a fault, in words; nothing, if all is well.

    Attributes:
        false: What lists as a snapshot and is not what it was at the source.
        lost: What was there before, and is no more.
        hand: Why the run that follows did not put everything right by itself.
        left: What else is not as it should be: outside, or left behind, or a bug that shows.

    """

    false: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    hand: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        """Return everything."""
        return [*self.false, *self.lost, *self.hand, *self.left]


@dataclass(frozen=True, slots=True)
class Outside:
    """What a run must not change: subvolumes, objects, and what a place outside holds."""

    subvolumes: frozenset[tuple[object, ...]]
    objects: frozenset[tuple[str, str]]
    digest: str

    def changes(self, before: Outside) -> str:
        """Return what has changed, for a person."""
        subvolumes, objects = self.subvolumes ^ before.subvolumes, self.objects ^ before.objects
        return f"{sorted(map(str, subvolumes))} {sorted(objects)} {before.digest} {self.digest}"


def outside(arena: Arena) -> Outside:
    """Return everything outside of the destination, as it is now."""
    top = arena.destination.mountpoint
    notes = hashlib.sha256((top / "notes").read_bytes()).hexdigest()
    names = sorted(set(os.listdir(top)) - {"filler"})
    return Outside(
        frozenset((*_states(arena.source, ""), *_states(arena.destination, "backup"))),
        frozenset(_objects(arena)),
        f"{names} {notes} {tree_digest(top / 'other')}",
    )


def _states(disk: Disk, location: str) -> Iterator[tuple[object, ...]]:
    below = os.fsencode(location) + b"/"
    for each in disk.subvolumes():
        if not location or not each.path.startswith(below):
            changed = each.ctransid if each.read_only else 0
            yield (disk.mountpoint.name, each.id, each.path, each.uuid, each.read_only, changed)


def _objects(arena: Arena) -> Iterator[tuple[str, str]]:
    for entry in arena.objects():
        if not entry["Key"].startswith(("run-", "trash/")):
            yield entry["Key"], entry["ETag"]


def after_fault(
    arena: Arena, pairing: Pairing, beginning: str, verdict: Verdict, spoilt: set[str]
) -> None:
    """
    Judge what a fault has left at the destination.

    `spoilt` are paths there that the fault itself has taken away or changed.
    """
    there = _destination(arena, pairing)
    verdict.false += [
        each for each in there.false_snapshots() if each.partition(":")[0] not in spoilt
    ]
    names = there.names()
    if beginning == "begun":
        verdict.lost += [f"{path} is gone" for path in KEPT if path not in names | spoilt]
        arrived = all(path in names | spoilt for path in arena.wanted())
        if "0003" not in names | spoilt:
            verdict.lost.append("neither the old 0003 nor the new one is there")
        if "old" not in names | spoilt and not arrived:
            verdict.lost.append("what is to go has gone before all had arrived")


def after_rerun(arena: Arena, pairing: Pairing, ended: Ended, verdict: Verdict) -> None:
    """Judge the destination after a run without a fault."""
    if ended.status:
        verdict.hand.append(f"status {ended.status}: {ended.said.strip()}")
    there = _destination(arena, pairing)
    verdict.false += there.false_snapshots()
    wanted = set(arena.wanted())
    wanted |= there.needed(wanted)
    if there.names() != wanted:
        verdict.hand.append(f"holds {sorted(there.names())} instead of {sorted(wanted)}")
    if there.listed() != wanted:
        verdict.hand.append(f"lists {sorted(there.listed())} instead of {sorted(wanted)}")
    verdict.hand += [f"left there: {each}" for each in there.remains()]


def _destination(arena: Arena, pairing: Pairing) -> _Directory | _Prefix:
    return (_Prefix if pairing.destination_is == "bucket" else _Directory)(arena, pairing)


def _catalogue(arena: Arena, pairing: Pairing) -> Catalogue:
    there = Pairing(pairing.source, pairing.destination_is)  # looked at from here
    location = parse_location(arena.locations(there)[1].encode())
    with open_store(location, Mode.READ, Role.LISTING) as store:
        return store.catalogue()


class _Directory:
    """A destination on btrfs."""

    def __init__(self, arena: Arena, pairing: Pairing) -> None:
        self._arena, self._top = arena, arena.backup
        self._catalogue = _catalogue(arena, pairing)

    def listed(self) -> set[str]:
        """Return the paths that list as snapshots."""
        return {os.fsdecode(each.path) for each in self._catalogue.snapshots}

    def names(self) -> set[str]:
        """Return the names there that are not those of partials."""
        return {name for name in os.listdir(self._top) if not name.startswith(PARTIAL)}

    def needed(self, _wanted: set[str]) -> set[str]:
        """Return what has to stay for the wanted ones: all of them are whole."""
        return set()

    def remains(self) -> list[str]:
        """Return what a run that has ended well leaves nothing of."""
        return [name for name in os.listdir(self._top) if name.startswith(PARTIAL)]

    def false_snapshots(self) -> list[str]:
        """Return what has a snapshot's name, or lists as one, and is not that snapshot."""
        listed = {os.fsdecode(s.path): s.uuid for s in self._catalogue.snapshots}
        found = {
            os.fsdecode(each.path.removeprefix(b"backup/")): each
            for each in self._arena.destination.subvolumes()
            if each.path.startswith(b"backup/")
        }
        wrong = []
        for path in sorted(self.names() | set(listed)):
            each = found.get(path)
            if each is None or not each.read_only:
                wrong.append(f"{path}: no read-only subvolume")
            elif listed.get(path) != effective(each):
                wrong.append(f"{path}: not listed as what it is")
            else:
                wrong += self._differences(path, effective(each))
        return wrong

    def _differences(self, path: str, uuid: Uuid) -> Iterator[str]:
        known = self._arena.known.get(uuid)
        if known is None or known.path != path:
            yield f"{path}: {uuid_text(uuid)} is not the snapshot of this name"
            return
        try:
            digest = tree_digest(self._top / path)
        except Exception as error:  # noqa: BLE001  whatever keeps it from being read
            yield f"{path}: cannot be read: {error}"
            return
        if digest != known.digest:
            yield f"{path}: another content"


class _Prefix:
    """A destination in a bucket."""

    def __init__(self, arena: Arena, pairing: Pairing) -> None:
        self._arena = arena
        self._catalogue = _catalogue(arena, pairing)
        self._keys = arena.keys(f"{arena.prefix}/")
        self._diffs = self._read()

    def _read(self) -> Mapping[Diff, tuple[str, str]]:
        """Return path and SHA-256 of each diff there."""
        found = {}
        for key in self._keys:
            parsed = parse_key(key.removeprefix(f"{self._arena.prefix}/"))
            if parsed and parsed.generation is None:
                answer = self._arena.client.get_object(Bucket=self._arena.bucket.name, Key=key)
                digest = hashlib.sha256(answer["Body"].read()).hexdigest()
                found[parsed.diff] = parsed.path, digest
        return found

    def listed(self) -> set[str]:
        """Return the paths that list as snapshots."""
        return {os.fsdecode(each.path) for each in self._catalogue.snapshots}

    def names(self) -> set[str]:
        """Return the paths that have a diff."""
        return {path for path, _digest in self._diffs.values()}

    def needed(self, wanted: set[str]) -> set[str]:
        """Return the paths of those in the chains of the wanted ones."""
        parents = {diff.to: diff.parent for diff in self._diffs}
        found = set()
        for diff, (path, _digest) in self._diffs.items():
            above = diff.parent if path in wanted else None
            while above is not None:
                found.add(self._arena.known[above].path)
                above = parents.get(above)
        return found

    def remains(self) -> list[str]:
        """Return the uploads that have not ended."""
        below = f"{self._arena.prefix}/"
        return [each["Key"] for each in self._arena.uploads() if each["Key"].startswith(below)]

    def false_snapshots(self) -> list[str]:
        """Return what lists as a snapshot and cannot be made, or is made wrongly."""
        wrong = []
        known: Mapping[Uuid, Known] = self._arena.known
        makes = {diff.to: diff.parent for diff in self._diffs}
        for diff, (path, digest) in self._diffs.items():
            if diff.to not in known or known[diff.to].path != path:
                wrong.append(f"{path}: {uuid_text(diff.to)} is not the snapshot of this name")
            elif self._arena.streams.get(diff) != digest:
                wrong.append(f"{path}: not the stream that makes it")
            if diff.parent is not None and diff.parent not in makes:
                wrong.append(f"{path}: made from what is not there")
        listed = {each.uuid: os.fsdecode(each.path) for each in self._catalogue.snapshots}
        return [
            *wrong,
            *(
                f"{path}: lists without a diff"
                for uuid, path in listed.items()
                if uuid not in makes
            ),
        ]


def bugs(ended: Ended) -> list[str]:
    """Return what an ended run said that no user should see."""
    signs = ("Traceback", "internal error", "Exception ignored", "This is a bug")
    found = [f"it said {sign}: {ended.said.strip()}" for sign in signs if sign in ended.said]
    return found[:1]


def residue(session: int, mounts: frozenset[str]) -> list[str]:
    """Return what has outlived a run: processes of its session, mounts."""
    deadline = time.monotonic() + LET_GO_SECONDS
    while (alive := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.005)
    found = [f"process {each} is still there" for each in alive]
    return found + [f"mount {each} is still there" for each in mount_points() - mounts]


def locks(arena: Arena) -> list[str]:
    """Return that the destination stays locked, if it does."""
    deadline = time.monotonic() + LET_GO_SECONDS
    fd = os.open(arena.backup, os.O_RDONLY)
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return []
            if time.monotonic() > deadline:
                return ["the destination is still locked"]
            time.sleep(0.005)
    finally:
        os.close(fd)


def mount_points() -> frozenset[str]:
    """Return what is mounted here."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    return frozenset(line.split()[4] for line in lines)
