"""A directory of a mounted btrfs file system as a store of whole snapshots."""

from buttersink.stores.btrfs.store import BtrfsStore

__all__ = ["BtrfsStore"]
