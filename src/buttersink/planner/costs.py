"""
What a plan makes least: the price of sending, storing and chaining diffs. No I/O here.

The unit outside is one byte sent. Prices are whole numbers of sixteenths of that, so that sums are
exact and the same everywhere. Where what arrives is whole (a btrfs directory) only sending counts.
Where diffs stay diffs (S3) a diff is paid for again: by what it takes to keep, and by each wanted
snapshot whose chain it is part of, since there it can be lost and has to be read to restore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNIT = 16
"""Prices in this many parts of a byte sent."""

_AROUND = 3  # requests beside those for the parts: begin, note, complete


@dataclass(frozen=True, slots=True)
class Weights:
    """
    What things cost at one destination, in bytes sent.

    Attributes:
        keeps_diffs: Whether diffs stay diffs; if not, only `per_diff` and the bytes sent count.
        per_diff: What sending one diff costs beside its bytes: requests, starting, finishing.
        part_bytes: Largest part that a diff is sent in; 0 if it is sent in one.
        per_part: What each further part costs.
        storage: Sixteenths of a byte sent that keeping one byte costs.
        least_stored: Bytes that are charged at least for keeping one diff (S3 storage classes such
            as STANDARD_IA bill 128 KiB for smaller objects).
        hop: Chance that a stored diff is lost, which costs each wanted snapshot in whose chain it
            is one full send.

    """

    keeps_diffs: bool = False
    per_diff: int = 64 * 1024
    part_bytes: int = 0
    per_part: int = 16 * 1024
    storage: int = 1
    least_stored: int = 0
    hop: float = 1e-5

    def sending(self, size: int) -> int:
        """Return the price of sending a diff of `size` bytes, and of keeping it if it is kept."""
        further = max(0, -(-size // self.part_bytes) - 1) if self.part_bytes else 0
        price = UNIT * (size + self.per_diff + further * self.per_part)
        return price + self.keeping(size)

    def requests(self, size: int) -> int:
        """Return how many requests it takes to send a diff in parts; 0 if it is sent in one."""
        return max(1, -(-size // self.part_bytes)) + _AROUND if self.part_bytes else 0

    def keeping(self, size: int) -> int:
        """Return the price of keeping a diff of `size` bytes."""
        return self.storage * max(size, self.least_stored) if self.keeps_diffs else 0

    def chaining(self, fulls: Iterable[int]) -> int:
        """
        Return the price of one more diff in the chain of a wanted snapshot.

        `fulls` are the sizes of full sends that are known; where there are none it is free.
        """
        from statistics import median  # 5 ms that a run with nothing to do can do without

        known = list(fulls) if self.keeps_diffs else []
        return int(UNIT * self.hop * median(known)) if known else 0


def in_bytes(price: int) -> int:
    """Return a price in whole bytes sent, rounded up."""
    return -(-price // UNIT)
