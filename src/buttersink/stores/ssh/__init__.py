"""A directory of a btrfs file system on another host as a store of whole snapshots."""

from buttersink.stores.ssh.store import SshStore

__all__ = ["SshStore"]
