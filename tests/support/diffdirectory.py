"""
A store that keeps diffs: one file for each in a directory, as a bucket has objects.

It is as simple as its contract allows, so that planning for chains can be tried end to end on real
streams: files are named `<to>_<parent>`, and a file of notes beside it holds what the sender knew
of the snapshot, and size and SHA-256 of each diff that makes it. A diff has its name only when it
is whole. As a source it may name a single one of its snapshots; the others are then outside.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from buttersink.catalogue import (
    Catalogue,
    Diff,
    Exactness,
    Partial,
    Size,
    Snapshot,
    uuid_from_text,
    uuid_text,
)
from buttersink.errors import SendError
from buttersink.planner import Weights
from buttersink.stores.base import Comparison, Mode, Store, Traits
from buttersink.stream import rest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from buttersink.catalogue import Measurement
    from buttersink.planner.plan import Step
    from buttersink.stores.base import Sink
    from buttersink.stream import Checkpoint


class DiffDirectory(Store):
    """Diffs as files below one directory."""

    def __init__(
        self, path: Path, weights: Weights | None = None, *, single: bytes | None = None
    ) -> None:
        super().__init__(str(path), Mode.WRITE)
        self.traits = Traits(
            measures=False, weights=weights or Weights(keeps_diffs=True), verifies=True
        )
        self._path, self._single = path, single
        path.mkdir(exist_ok=True)

    def close(self) -> None:
        """Hold nothing open."""

    def file(self, diff: Diff) -> Path:
        """Return where a diff is."""
        parent = uuid_text(diff.parent) if diff.parent else "None"
        return self._path / f"{uuid_text(diff.to)}_{parent}"

    def notes(self, diff: Diff) -> Path:
        """Return where it is noted what the snapshot is that a diff makes."""
        return self._path / f"{uuid_text(diff.to)}.json"

    def catalogue(self) -> Catalogue:
        """Read the directory."""
        diffs: dict[Diff, Size] = {}
        snapshots = {}
        partials = []
        for file in sorted(self._path.glob("*_*")):
            if file.suffix == ".part":
                to, _parent = file.name.split("_")
                size = file.stat().st_size
                partials.append(Partial(file.name.encode(), uuid_from_text(to), 0, size=size))
                continue
            to, parent = file.name.split("_")
            uuid = uuid_from_text(to)
            diff = Diff(uuid, None if parent == "None" else uuid_from_text(parent))
            diffs[diff] = Size(file.stat().st_size, Exactness.STORED)
            notes = json.loads(self.notes(diff).read_text())
            name = notes["path"].encode("utf-8", "surrogateescape")
            snapshots[uuid] = Snapshot(uuid, uuid, None, None, notes["generation"], 0, name)
        inside = tuple(s for s in snapshots.values() if self._single in (None, s.path))
        outside = tuple(s for s in snapshots.values() if s not in inside)
        return Catalogue(inside, outside, diffs=diffs, partials=tuple(partials))

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """Have nothing to measure."""
        raise NotImplementedError

    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """Have nothing to guess."""
        raise NotImplementedError

    @contextmanager
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> Iterator[Iterator[memoryview]]:
        """Read a file, and prove at its end that it is what was written."""
        try:
            file = self.file(diff).open("rb")
        except OSError as error:
            where, why = str(self.file(diff)), error.strerror or ""
            raise SendError("cannot read", where=where, why=why) from error
        with file:
            stream = self._proved(diff, file)
            yield rest_of(stream, checkpoint) if checkpoint else stream

    def _proved(self, diff: Diff, file: BinaryIO) -> Iterator[memoryview]:
        digest = hashlib.sha256()
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
            yield memoryview(chunk)
        recorded = self._recorded(diff)
        if recorded and digest.hexdigest() != recorded["sha256"]:
            raise SendError("damaged", where=str(self.file(diff)), why="its SHA-256 is another one")

    def check(self, diff: Diff) -> Comparison:
        """Read a file in place of a server that would know its checksum."""
        recorded = self._recorded(diff)
        if not recorded:
            return Comparison(note="nothing was recorded")
        with suppress(FileNotFoundError):
            data = self.file(diff).read_bytes()
            if len(data) != recorded["size"]:
                return Comparison(f"it has {len(data)} bytes, and was {recorded['size']}")
            changed = hashlib.sha256(data).hexdigest() != recorded["sha256"]
            return Comparison("its SHA-256 is not what it was" if changed else "")
        raise SendError("cannot find", where=str(self.file(diff)))

    def _recorded(self, diff: Diff) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = json.loads(self.notes(diff).read_text())["diffs"]
        return found.get(self.file(diff).name, {})

    @contextmanager
    def receive(self, step: Step, checkpoint: Checkpoint | None = None) -> Iterator[Sink]:
        """Write a file, and name it when it is whole."""
        assert step.snapshot is not None
        assert checkpoint is None
        diff = Diff(step.snapshot.uuid, step.parent.uuid if step.parent else None)
        final, partial = self.file(diff), self.file(diff).with_suffix(".part")
        with partial.open("wb") as file:
            sink = _File(file.fileno())
            yield sink
        notes = self.notes(diff)
        known = json.loads(notes.read_text())["diffs"] if notes.exists() else {}
        recorded = {"size": partial.stat().st_size, "sha256": sink.digest.hexdigest()}
        facts = {
            "path": step.path.decode("utf-8", "surrogateescape"),
            "generation": step.snapshot.generation,
            "diffs": {**known, final.name: recorded},
        }
        notes.write_text(json.dumps(facts))
        partial.rename(final)

    def copy(self, step: Step) -> None:
        """Have nothing outside."""
        raise NotImplementedError

    def delete(self, step: Step) -> None:
        """Delete a file."""
        assert step.diff is not None
        self.file(step.diff).unlink()

    def discard(self, partial: Partial) -> None:
        """Delete a file."""
        self._path.joinpath(os.fsdecode(partial.path)).unlink()

    def flush(self) -> None:
        """Have written everything."""


class _File:
    resumed = 0

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.digest = hashlib.sha256()

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes."""
        os.writev(self._fd, [chunk])
        self.digest.update(chunk)
