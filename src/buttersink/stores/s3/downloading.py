"""
One diff out of a bucket: ranges of it, several at once, in order.

A range that breaks off is asked for again from where it broke. Every request is for the same
version of the object, by its entity tag, so that what is put together is one object.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError

from buttersink.errors import SendError
from buttersink.stores.s3.connection import translating
from buttersink.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from buttersink.stores.s3.connection import Client

RANGE = 16 * 1024 * 1024
"""Bytes of one request."""

_THREADS = 4
_TRIES = 6  # of a range that breaks off without a byte having come; pauses double from a second
_CHUNK = 1024 * 1024  # bytes read at a time


class Source(NamedTuple):
    """An object to read: the bucket, its key, its bytes, and its entity tag."""

    bucket: str
    key: str
    size: int
    etag: str


def download(client: Client, source: Source, begin: int = 0) -> Iterator[memoryview]:
    """
    Yield the object from a byte on, in order; `SendError` if it cannot be had.

    A view is valid until the next is asked for: its memory is filled again, as new memory would
    cost the kernel more than the copying. There is that of two ranges more than threads.
    """
    waiting: deque[Future[memoryview]] = deque()
    length = min(RANGE, source.size)
    free: list[memoryview] = []
    threads = Workers(_THREADS, "download")
    try:
        for start in range(begin, source.size, RANGE):
            room = free.pop() if free else memoryview(bytearray(length))
            room = room[: source.size - start]
            waiting.append(threads.submit(_range, client, source, start, room))
            if len(waiting) > _THREADS:
                whole = waiting.popleft().result()
                yield whole
                free.append(whole)
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.stop()


def _range(client: Client, source: Source, start: int, data: memoryview) -> memoryview:
    """Fill `data` with the bytes from `start` on, and return it."""
    done = tries = 0
    while done < len(data):
        before = done
        with translating(SendError, "cannot read the diff", source.key):
            body = _open(client, source, start + done, len(data) - done)  # which has tried already
            try:
                for length in _read_into(body, data[done:]):
                    done += length
            except (BotoCoreError, OSError) as error:
                tries = tries + 1 if done == before else 1
                if tries >= _TRIES:
                    raise
                broken: BotoCoreError | OSError | None = error
            else:
                broken = None
        if broken is None and done < len(data):
            why = f"it ends after {start + done:,} of {source.size:,} bytes"
            raise SendError("cannot read the diff", where=source.key, why=why)
        if broken is not None:
            time.sleep(2 ** (tries - 1))
    return data


def _open(client: Client, source: Source, start: int, length: int) -> Any:  # noqa: ANN401
    """Ask for so many of the object's bytes from `start` on; return what they are read from."""
    answer: Mapping[str, Any] = client.get_object(
        Bucket=source.bucket,
        Key=source.key,
        Range=f"bytes={start}-{start + length - 1}",
        IfMatch=source.etag,
    )
    return answer["Body"]


def _read_into(body: Any, room: memoryview) -> Iterator[int]:  # noqa: ANN401
    """Fill `room` with what comes; yield how many bytes have come, and again."""
    done = 0
    try:
        while done < len(room):
            chunk = body.read(min(_CHUNK, len(room) - done))
            if not chunk:
                return
            room[done : done + len(chunk)] = chunk
            done += len(chunk)
            yield len(chunk)
    finally:
        body.close()
