"""Stores of snapshots, found by the scheme of their location and imported when one is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.stores.base import Cache, Mode, Role, Store

if TYPE_CHECKING:
    from buttersink.location import Location

__all__ = ["Cache", "Mode", "Role", "Store", "open_store"]


def open_store(location: Location, mode: Mode, role: Role, cache: Cache | None = None) -> Store:
    """
    Open the store a location names; `LocationError` or `LockedError` if that cannot be.

    A source without a slash at its end is a single snapshot; a destination may be missing.
    Without a cache nothing is remembered.
    """
    from buttersink.stores.btrfs import BtrfsStore

    return BtrfsStore(location, mode, role, cache)
