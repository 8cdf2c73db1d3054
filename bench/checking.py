"""
Time how fast a send stream is checked, by the size of its commands.

    python -m bench.checking

The stream is made in memory and fed in chunks of 1 MiB, so that nothing but the checking counts.
The best of five runs each, beside what its checksums alone take.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import google_crc32c

from buttersink.stream import StreamCheck
from tests.support import streams

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20
_ROWS = (("writes of 48 KiB", 48 * 1024, 5000), ("commands of 50 bytes", 5, 500_000))


def main() -> None:
    """Print a line for each size of command."""
    for name, size, count in _ROWS:
        one = streams.encode_command(streams.write(b"a/file", 0, bytes(size)))
        first = streams.subvol(b"s", b"u" * 16, 7)
        stream = streams.encode([first]) + one * count + streams.encode_command(streams.end())
        checked = _rate(stream, partial(_check, stream))
        alone = _rate(stream, partial(_sums, one, count))
        print(f"{name}: {checked:,.0f} MB/s, checksums alone {alone:,.0f} MB/s")


def _rate(stream: bytes, work: Callable[[], None]) -> float:
    """Return MB of the stream a second."""
    best = float("inf")
    for _run in range(5):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return len(stream) / best / 1e6


def _check(stream: bytes) -> None:
    check, view = StreamCheck(), memoryview(stream)
    for start in range(0, len(stream), _CHUNK):
        check.feed(view[start : start + _CHUNK])
    check.finish()


def _sums(command: bytes, count: int) -> None:
    for _number in range(count):
        google_crc32c.extend(0, command)


if __name__ == "__main__":
    main()
