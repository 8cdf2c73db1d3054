"""Which btrfs-progs there are, since they do the receiving."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress

_MOST = 200  # bytes of what it says
_SOUND = (6, 0, 2)  # before that, compressed data could be lost in silence (btrfs-progs CHANGES)


def progs_version() -> str:
    """Return what `btrfs --version` says, empty if there is no such command."""
    with suppress(OSError):
        found = subprocess.run(["btrfs", "--version"], capture_output=True, check=False)
        return found.stdout[:_MOST].decode("utf-8", "replace").partition("\n")[0]
    return ""


def receivable_version(progs: str) -> int:
    """Return the highest version of a send stream that these btrfs-progs receive well."""
    found = re.search(r"v(\d+)\.(\d+)(?:\.(\d+))?", progs)
    numbers = tuple(int(number or 0) for number in found.groups()) if found else ()
    return 2 if numbers >= _SOUND else 1
