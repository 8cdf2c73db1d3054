"""The body of a part, read as the client library reads it."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.stores.s3.body import PartBody

MIB = 1024 * 1024


def read(body: PartBody) -> bytes:
    return b"".join(iter(body.read, b""))


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(0, 3))
def test_it_is_what_the_pieces_are(pieces: list[bytes], reads: int) -> None:
    body, whole = PartBody(pieces), b"".join(pieces)
    assert len(body) == len(whole)
    for _time in range(reads):
        body.read(16)
    assert body.seek(0) == body.tell() == 0
    assert read(body) == whole
    assert body.tell() == body.seek(0, os.SEEK_END) == len(whole)
    assert not body.read()
    assert body.md5().digest() == hashlib.md5(whole, usedforsecurity=False).digest()


def test_long_pieces_are_read_bit_by_bit() -> None:
    body = PartBody([os.urandom(MIB + 1), os.urandom(10), os.urandom(MIB)])
    positions = []
    while body.read():
        positions.append(body.tell())
    assert positions[-1] == len(body)
    assert all(after - before <= MIB // 2 for before, after in pairwise(positions))


def test_nobody_goes_into_the_middle() -> None:
    with pytest.raises(ValueError, match="5"):
        PartBody([b"0123456789"]).seek(5)
