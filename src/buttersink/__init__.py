"""
ButterSink: rsync for btrfs snapshots.

The command is `buttersink`; these names are the same capability as a library: open two stores,
`sync.prepare` a plan, `sync.carry_out` it.
"""

from buttersink import sync
from buttersink.catalogue import Catalogue, Diff, Size, Snapshot
from buttersink.errors import Error
from buttersink.location import parse_location
from buttersink.planner import Plan, make_plan
from buttersink.stores import Mode, Role, open_store

__all__ = [
    "Catalogue",
    "Diff",
    "Error",
    "Mode",
    "Plan",
    "Role",
    "Size",
    "Snapshot",
    "make_plan",
    "open_store",
    "parse_location",
    "sync",
]
