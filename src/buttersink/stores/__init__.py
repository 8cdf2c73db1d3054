"""Stores of snapshots, found by the scheme of their location and imported when one is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.location import S3Location, SshLocation
from buttersink.stores.base import Cache, Mode, Remote, Role, Store, Uploads

if TYPE_CHECKING:
    from buttersink.location import AnyLocation

__all__ = ["Cache", "Mode", "Remote", "Role", "Store", "Uploads", "open_store"]


def open_store(
    location: AnyLocation,
    mode: Mode,
    role: Role,
    cache: Cache | None = None,
    uploads: Uploads | None = None,
    *,
    remote: Remote | None = None,
) -> Store:
    """
    Open the store a location names; `LocationError` or `LockedError` if that cannot be.

    A source without a slash at its end is a single snapshot; a destination may be missing.
    Without a cache nothing is remembered. `uploads` is for places where diffs stay diffs,
    `remote` for other hosts.
    """
    if isinstance(location, S3Location):
        from buttersink.stores.s3 import S3Store

        return S3Store(location, mode, role, uploads)
    if isinstance(location, SshLocation):
        from buttersink.stores.ssh import SshStore

        return SshStore(location, mode, role, cache, remote)
    from buttersink.stores.btrfs import BtrfsStore

    return BtrfsStore(location, mode, role, cache)
