"""
About how long it takes to measure a diff, and to send it, by what it consists of. No I/O here.

A metadata-only send takes the kernel as long as its part of the real one. Most of that is to look,
for each extent, for what else refers to it, which it might be cloned from (find_extent_clone in
fs/btrfs/send.c): the longer, the more snapshots share it, and the more files in each. All diffs of
a history of 12 or of 200 snapshots together take about what this says; a single one may take half
of it or twice as long. A clock would have each run measure something else.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buttersink.catalogue import Measurement

# Seconds of one processor: for anything at all; for a command, which takes longer in larger trees,
# times the fourth root of how many snapshots there are; for an extent beside that, times the square
# root; and for one that is cloned within the snapshot beside that, times their number.
_START, _COMMAND, _EXTENT, _OWN_CLONE = 2e-3, 8e-6, 14e-6, 1.8e-6
_LOOKS = 30  # at all items of a snapshot's tree, while its full send is measured,
_ADDED = 40e-9  # and seconds for each extent that a diff has since added to a family
_TRANSFER = 15e-3  # seconds of sending anything at all: two processes, and a file system synced
_CARRY_OUT = 1.2e-6  # seconds for a command at the other end, times both roots,
_SEEN = 200  # of no more snapshots than there were: a guess beyond that might be far too much
_DATA = 500e6  # bytes in a second, from disk to disk


def measuring(found: Measurement, sharing: int) -> float:
    """Return for how many seconds one processor measures it; so many snapshots share its data."""
    root = sqrt(sharing)
    extents = found.extents * _EXTENT * root + found.own_clones * _OWN_CLONE * sharing
    return _START + found.commands * _COMMAND * sqrt(root) + extents


def looking(found: Measurement, sharing: int) -> float:
    """Return how many seconds of reading how much data all that share it hold are due to a diff."""
    each = found.extents * _ADDED if found.diff.parent else measuring(found, sharing) / _LOOKS
    return sharing * each


def sending(found: Measurement, sharing: int) -> float:
    """Return how many seconds sending a diff takes, to a disk or over a line as quick as one."""
    root = sqrt(min(sharing, _SEEN))
    carrying_out = found.commands * _CARRY_OUT * root * sqrt(root)
    return measuring(found, sharing) + carrying_out + found.bytes / _DATA + _TRANSFER
