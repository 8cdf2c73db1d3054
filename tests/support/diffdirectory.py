"""
A store that keeps diffs: one file for each in a directory, as a bucket has objects.

It is as simple as its contract allows, so that planning for chains can be tried end to end on real
streams: files are named `<to>_<parent>`, and a file of notes beside it holds what the sender knew
of the snapshot. A diff has its name only when it is whole.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink.catalogue import (
    Catalogue,
    Diff,
    Exactness,
    Size,
    Snapshot,
    uuid_from_text,
    uuid_text,
)
from buttersink.planner import Weights
from buttersink.stores.base import Mode, Store, Traits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from buttersink.catalogue import Measurement, Partial
    from buttersink.planner.plan import Step
    from buttersink.stores.base import Sink


class DiffDirectory(Store):
    """Diffs as files below one directory."""

    def __init__(self, path: Path, weights: Weights | None = None) -> None:
        super().__init__(str(path), Mode.WRITE)
        self.traits = Traits(measures=False, weights=weights or Weights(keeps_diffs=True))
        self._path = path
        path.mkdir(exist_ok=True)

    def close(self) -> None:
        """Hold nothing open."""

    def file(self, diff: Diff) -> Path:
        """Return where a diff is."""
        parent = uuid_text(diff.parent) if diff.parent else "None"
        return self._path / f"{uuid_text(diff.to)}_{parent}"

    def catalogue(self) -> Catalogue:
        """Read the directory."""
        diffs: dict[Diff, Size] = {}
        snapshots = {}
        for file in sorted(self._path.glob("*_*")):
            to, parent = file.name.split("_")
            uuid = uuid_from_text(to)
            diff = Diff(uuid, None if parent == "None" else uuid_from_text(parent))
            diffs[diff] = Size(file.stat().st_size, Exactness.STORED)
            notes = json.loads((self._path / f"{to}.json").read_text())
            name = notes["path"].encode("utf-8", "surrogateescape")
            snapshots[uuid] = Snapshot(uuid, uuid, None, None, notes["generation"], 0, name)
        return Catalogue(tuple(snapshots.values()), diffs=diffs)

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """Have nothing to measure."""
        raise NotImplementedError

    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """Have nothing to guess."""
        raise NotImplementedError

    @contextmanager
    def send(self, diff: Diff) -> Iterator[Iterator[memoryview]]:
        """Read a file."""
        with self.file(diff).open("rb") as file:
            yield (memoryview(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))

    @contextmanager
    def receive(self, step: Step) -> Iterator[Sink]:
        """Write a file, and name it when it is whole."""
        assert step.snapshot is not None
        diff = Diff(step.snapshot.uuid, step.parent.uuid if step.parent else None)
        final, partial = self.file(diff), self.file(diff).with_suffix(".part")
        notes = {"path": step.path.decode("utf-8", "surrogateescape")}
        with partial.open("wb") as file:
            yield _File(file.fileno())
        (self._path / f"{uuid_text(diff.to)}.json").write_text(
            json.dumps({**notes, "generation": step.snapshot.generation})
        )
        partial.rename(final)

    def copy(self, step: Step) -> None:
        """Have nothing outside."""
        raise NotImplementedError

    def delete(self, step: Step) -> None:
        """Delete a file."""
        assert step.diff is not None
        self.file(step.diff).unlink()

    def discard(self, partial: Partial) -> None:
        """Have none."""
        raise NotImplementedError

    def flush(self) -> None:
        """Have written everything."""


class _File:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes."""
        os.writev(self._fd, [chunk])
