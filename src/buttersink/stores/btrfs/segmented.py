"""
A long stream received in segments, so that what an interruption leaves can be gone on with.

Each segment is a `btrfs receive` of its own, which makes a snapshot of what the one before it made.
Between two of them everything is on disk, and the journal says so. A segment ends after so many
bytes or, where they come slowly, after so many seconds: what comes fast pays for few checkpoints,
and what comes slowly loses little. A stream that ends before is one receive and nothing else.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from buttersink.stream import Segments
from buttersink.stream.segments import ENDING, opening

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from buttersink.catalogue import Diff
    from buttersink.stores.btrfs.arrival import Place
    from buttersink.stores.btrfs.receiving import ReceiveProcess
    from buttersink.stream import Identity

SEGMENT_BYTES = 512 * 1024 * 1024
"""Bytes of a stream after which a checkpoint is made: docs/BENCHMARKS.md has what it costs."""

SEGMENT_SECONDS = 5.0
"""Seconds after which it is made of fewer bytes."""

FIRST_SECONDS = 1.0
"""The same, for the first of a run: without it that would have nothing to show for itself."""

_FEWEST_BYTES = 8 * 1024 * 1024
_TIMES_AS_LONG = 40  # as a checkpoint took, at least, until time asks for the next
_SYNC_BYTES = 64 * 1024 * 1024  # of a stream after which another sync is begun meanwhile


class SegmentedReceive:
    """
    A sink that hands a stream to one receiver after the other; end it with `finish` or `abort`.

    Args:
        place: Where it arrives. If that keeps a checkpoint, the stream goes on from there.
        diff: What the stream is of.
        identity: What it shall say if it is received from its start, but for the place's names.
        start: Starts a receiver.
        prove: Raises an error unless what it is made from has not changed so far.
        size: Bytes of the stream, if known.
        checksum: Whether the CRC32C of the stream is of use to go on with it.

    """

    resumed = 0

    def __init__(
        self,
        place: Place,
        diff: Diff,
        identity: Identity,
        start: Callable[[Identity], ReceiveProcess],
        prove: Callable[[], None],
        *,
        size: int | None = None,
        checksum: bool,
    ) -> None:
        self._place, self._diff, self._identity, self._start = place, diff, identity, start
        self._prove = prove
        checkpoint = place.kept.checkpoint if place.kept else None
        self._segments = Segments(SEGMENT_BYTES, checkpoint, size=size, checksum=checksum)
        self._since, self._pause = time.monotonic(), FIRST_SECONDS  # of the last checkpoint
        self._process: ReceiveProcess | None = None
        self._syncing = ThreadPoolExecutor(1, "sync")
        self._sync: Future[None] | None = None
        self._unsynced = 0

    def _begin(self) -> ReceiveProcess:
        """Start the receiver of a segment; all but the first are made from what is kept."""
        place, identity, kept = self._place, self._identity, self._place.kept
        self._process = process = self._start(
            replace(
                identity,
                uuid=place.received,
                name=place.partial,
                parent=kept.received_uuid if kept else identity.parent,
                clones={**identity.clones, self._diff.to: place.received},
            )
        )
        if kept is not None:
            process.begin(opening(kept.checkpoint.version), kept.checkpoint.bytes)
        return process

    def write(self, chunk: memoryview) -> None:
        """Hand on the next bytes; `ReceiveError` or `StreamError` if they cannot be taken."""
        process = self._process or self._begin()
        is_time = time.monotonic() - self._since >= self._pause
        self._segments.least = min(_FEWEST_BYTES, SEGMENT_BYTES) if is_time else SEGMENT_BYTES
        for piece in self._segments.feed(chunk):
            if piece is None:
                self._make_checkpoint(process)
                process = self._begin()
            else:
                process.write(piece)
                self._sync_ahead(len(piece))

    def _make_checkpoint(self, process: ReceiveProcess) -> None:
        started = time.monotonic()
        process.write(memoryview(ENDING))
        process.finish()
        self._synced()
        self._prove()
        self._place.make_checkpoint(self._diff, self._segments.checkpoint())
        self._since = time.monotonic()
        self._pause = max(SEGMENT_SECONDS, _TIMES_AS_LONG * (self._since - started))

    def _sync_ahead(self, count: int) -> None:
        """Catch up while the stream flows, so that little is left to do at its end."""
        self._unsynced += count
        if self._unsynced >= _SYNC_BYTES and (self._sync is None or self._sync.done()):
            self._synced()
            self._sync, self._unsynced = self._syncing.submit(self._place.catch_up), 0

    def _synced(self) -> None:
        """Wait until a sync that is under way has ended; `ReceiveError` if it has failed."""
        if self._sync is not None:
            self._sync.result()

    def finish(self) -> None:
        """Wait until everything is taken; `StreamError` if the stream is not at its end."""
        (self._process or self._begin()).finish()
        self._synced()

    def abort(self) -> None:
        """End the receiver, whatever it does; may be called after `finish`."""
        if self._process is not None:
            self._process.abort()
        self._syncing.shutdown()
