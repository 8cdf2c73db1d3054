"""The processes of a session: all that one that was started has started, if it did not leave."""

from __future__ import annotations

from pathlib import Path


def processes_of(session: int) -> list[str]:
    """Return number and name of those that do not only wait to be reaped."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        head, _, rest = text.rpartition(")")
        fields = rest.split()
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(head)
    return found


def number_of(process: str) -> int:
    """Return the number of one of these."""
    return int(process.partition(" ")[0])
