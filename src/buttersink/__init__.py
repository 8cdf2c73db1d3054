"""
ButterSink: rsync for btrfs snapshots.

The command is `buttersink`; these names are the same capability as a library.
"""

from buttersink.catalogue import Catalogue, Diff, Size, Snapshot
from buttersink.errors import Error

__all__ = ["Catalogue", "Diff", "Error", "Size", "Snapshot"]
