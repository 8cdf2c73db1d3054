"""
The btrfs send stream as bytes: its commands, its exact size, its identities. No I/O here.

Format: btrfs-progs' "Btrfs Send Stream" documentation and the kernel's fs/btrfs/send.h. A header of
17 bytes, then commands, each with a length, a number, a CRC32C and attributes (type, length, data).
"""

from buttersink.stream.checking import StreamCheck, StreamFacts
from buttersink.stream.guard import Guard
from buttersink.stream.rewrite import Identity, Rewriter
from buttersink.stream.segments import Checkpoint, Segments, another_stream, rest_of
from buttersink.stream.size import Doubt, OwnerChange, StoredExtent, StreamSize

__all__ = [
    "Checkpoint",
    "Doubt",
    "Guard",
    "Identity",
    "OwnerChange",
    "Rewriter",
    "Segments",
    "StoredExtent",
    "StreamCheck",
    "StreamFacts",
    "StreamSize",
    "another_stream",
    "rest_of",
]
