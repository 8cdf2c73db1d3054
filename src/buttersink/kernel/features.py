"""What the kernel's btrfs can do, as it says in /sys/fs/btrfs/features."""

from __future__ import annotations

_SEND_STREAM_VERSION = "/sys/fs/btrfs/features/send_stream_version"


def send_stream_version() -> int:
    """Return the highest version of a send stream that the kernel makes (since Linux 6.0: 2)."""
    try:
        with open(_SEND_STREAM_VERSION, "rb", buffering=0) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1
