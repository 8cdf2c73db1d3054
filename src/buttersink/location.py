"""
The word that names a store on the command line, and what it means. No I/O here.

`/path/` is every snapshot below a directory; `/path` as a source is that one snapshot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from buttersink.errors import UsageError, printable

_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class Location:
    """
    A place that holds snapshots.

    Attributes:
        directory: The path as given, without a slash at its end (but `/` itself).
        all_below: Whether it ended with a slash: every snapshot below, not that one snapshot.

    """

    directory: bytes
    all_below: bool

    def __str__(self) -> str:
        slash = "/" if self.all_below and self.directory != b"/" else ""
        return printable(self.directory) + slash

    def split(self) -> tuple[bytes, bytes]:
        """Return the directory that a single snapshot lies in, and its name there."""
        above, _slash, name = self.directory.rpartition(b"/")
        if self.directory.startswith(b"/"):
            above = above or b"/"
        return above or b".", name


def parse_location(text: bytes) -> Location:
    """Return what a word of the command line names; `UsageError` if it is no location."""
    scheme = _SCHEME.match(text)
    if scheme:
        name = scheme[1].decode("ascii").lower()
        raise UsageError(
            "unknown kind of location",
            where=text,
            why=f"{name}:// is not one of those this version has",
            hint="Name a directory of a mounted btrfs file system.",
        )
    if not text or b"\0" in text:
        raise UsageError("empty location", hint="Name a directory of a mounted btrfs file system.")
    directory = text.rstrip(b"/") or b"/"
    return Location(directory, all_below=text.endswith(b"/"))
