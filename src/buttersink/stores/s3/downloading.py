"""
One diff out of a bucket: ranges of it, several at once, in order. And small objects whole.

A range that breaks off is asked for again from where it broke. Every request is for the same
version of the object, by its entity tag, so that what is put together is one object.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager, suppress
from itertools import islice
from mmap import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError

from buttersink.errors import SendError
from buttersink.stores.s3.connection import translating
from buttersink.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from buttersink.stores.s3.connection import Client


RANGE = 16 * 1024 * 1024
"""Bytes of one request."""

_THREADS = 4
_TRIES = 6  # of a range that breaks off without a byte having come; pauses double from a second
_PIECE = 1024 * 1024  # bytes handed on at a time


class Source(NamedTuple):
    """An object to read: the bucket, its key, its bytes, and its entity tag."""

    bucket: str
    key: str
    size: int
    etag: str


@contextmanager
def download(client: Client, source: Source, begin: int = 0) -> Iterator[Iterator[memoryview]]:
    """
    Read the object from a byte on, in order; `SendError` if it cannot be had.

    The first ranges are asked for at once, before anybody takes what comes. A view is valid until
    the next is asked for: its memory is filled again, as new memory would cost the kernel more than
    the copying. There is at most that of one range more than threads.
    """
    free: deque[memoryview] = deque()
    threads = Workers(_THREADS, "download")

    def ask() -> Iterator[_Range]:
        for start in range(begin, source.size, RANGE):
            asked = _Range(client, source, start, min(start + RANGE, source.size), free)
            threads.submit(asked.fetch)
            yield asked

    ranges = ask()
    try:
        yield _in_order(deque(islice(ranges, _THREADS)), ranges)
    finally:
        threads.stop()


def read_whole(client: Client, target: Mapping[str, str]) -> bytes:
    """
    Return a small object, asked for again if it breaks off; raise what botocore does.

    The client library itself tries again only until the answer has begun.
    """
    for tries in range(1, _TRIES):
        body = client.get_object(**target)["Body"]
        with suppress(BotoCoreError, OSError):
            return bytes(body.read())
        time.sleep(2 ** (tries - 1))
    return bytes(client.get_object(**target)["Body"].read())


def _in_order(asked: deque[_Range], more: Iterator[_Range]) -> Iterator[memoryview]:
    """Yield the pieces of one range after the other, and each time ask for one more."""
    while asked:
        asked.extend(islice(more, 1))
        yield from asked.popleft().pieces()


class _Range:
    """
    A range on its way: one thread fetches it, another one takes the pieces as they come.

    Args:
        client: What asks for it.
        source: The object.
        start, end: The first byte, and the one after the last.
        free: Memory for pieces, shared by all ranges.

    """

    def __init__(
        self, client: Client, source: Source, start: int, end: int, free: deque[memoryview]
    ) -> None:
        self._client, self._source, self._next, self._end = client, source, start, end
        self._free = free
        self._come: SimpleQueue[tuple[memoryview, int] | BaseException | None] = SimpleQueue()

    def pieces(self) -> Iterator[memoryview]:
        """Yield what comes, each valid until the next; raise what ends it too early."""
        while (come := self._come.get()) is not None:
            if isinstance(come, BaseException):
                raise come
            room, length = come
            yield room[:length]
            self._free.append(room)

    def fetch(self) -> None:
        """Read all of it; what goes wrong is raised where the pieces are taken."""
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001
            self._come.put(error)
        else:
            self._come.put(None)

    def _read(self) -> None:
        """Ask for it, and again for what is missing where it breaks off."""
        tries = 0
        while self._next < self._end:
            before, broken = self._next, False
            with translating(SendError, "cannot read the diff", self._source.key):
                answer = self._ask()  # which has tried already
                try:
                    self._read_from(answer)
                except (BotoCoreError, OSError):
                    tries = tries + 1 if self._next == before else 1
                    if tries >= _TRIES:
                        raise
                    broken = True
                finally:
                    answer.close()
            if broken:
                time.sleep(2 ** (tries - 1))
            elif self._next < self._end:
                why = f"it ends after {self._next:,} of {self._source.size:,} bytes"
                raise SendError("cannot read the diff", where=self._source.key, why=why)

    def _ask(self) -> Any:  # noqa: ANN401
        """Ask for what is missing; return what it is read from."""
        said: Mapping[str, Any] = self._client.get_object(
            Bucket=self._source.bucket,
            Key=self._source.key,
            Range=f"bytes={self._next}-{self._end - 1}",
            IfMatch=self._source.etag,
        )
        return said["Body"]

    def _read_from(self, answer: Any) -> None:  # noqa: ANN401
        """Hand on what comes."""
        while self._next < self._end:
            room = self._room()
            length = answer.readinto(room[: self._end - self._next])
            if not length:
                return
            self._come.put((room, length))
            self._next += length

    def _room(self) -> memoryview:
        """Return memory for a piece, the last that was let go: it may still be in the cache."""
        try:
            return self._free.pop()
        except IndexError:
            first, *others = _new_memory()
            self._free.extend(others)
            return first


def _new_memory() -> list[memoryview]:
    """Return memory for the pieces of a range, in large pages: of small ones each costs a fault."""
    block = mmap(-1, RANGE, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    with suppress(OSError):  # the kernel may have none
        block.madvise(MADV_HUGEPAGE)
    view = memoryview(block)
    return [view[start : start + _PIECE] for start in range(0, RANGE, _PIECE)]
