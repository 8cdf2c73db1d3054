"""
The body of a part as the client library takes it: the pieces that it came in, never put together.

The library turns bytes into a file, of which it sends 16 KiB at a time, and each time waits for
the interpreter's lock. From a file of another kind it takes what that gives. No I/O here.
"""

from __future__ import annotations

import hashlib
import os
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SENT_AT_ONCE = 256 * 1024  # bytes for which the socket's timeout has to suffice


class PartBody:
    """
    A file of bytes that lie in pieces.

    Args:
        pieces: In order, none of them empty.

    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))
        self._position = self._piece = 0

    def __len__(self) -> int:
        """Return how many bytes these are."""
        return self._ends[-1] if self._ends else 0

    def read(self, _size: int = -1) -> memoryview | bytes:
        """Return the next bytes, as many as it is good to send at once; none at the end."""
        if self._piece == len(self._pieces):
            return b""
        piece, end = self._pieces[self._piece], self._ends[self._piece]
        start = len(piece) - (end - self._position)
        found = memoryview(piece)[start : start + _SENT_AT_ONCE]
        self._position += len(found)
        self._piece += self._position == end
        return found

    def tell(self) -> int:
        """Return how many bytes come before the next ones."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the beginning or the end; nobody goes elsewhere."""
        if offset or whence not in (os.SEEK_SET, os.SEEK_END):
            raise ValueError(offset, whence)
        at_end = whence == os.SEEK_END
        self._position, self._piece = (len(self), len(self._pieces)) if at_end else (0, 0)
        return self._position

    def md5(self) -> hashlib._Hash:
        """Return the MD5 of all of it."""
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self._pieces:
            digest.update(piece)
        return digest
