"""
The word that names a store on the command line, and what it means. No I/O here.

`/path/` is every snapshot below a directory; `/path` as a source is that one snapshot. So it is
with `s3://bucket/prefix/` and `s3://bucket/prefix/snapshot`, and with `ssh://host/path/` and
`ssh://host/path/snapshot`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from buttersink.errors import UsageError, printable

_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/-]*?")  # also an access point's ARN
_AUTHORITY = re.compile(
    rb"(?:(?P<user>[A-Za-z0-9_.][A-Za-z0-9_.@\\+-]*\$?)@)?"
    rb"(?P<host>\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    rb"(?::(?P<port>[0-9]{1,5}))?"
)
_HINT = "Name a directory of a mounted btrfs file system, ssh://host/directory/, or s3://bucket/prefix/."


@dataclass(frozen=True, slots=True)
class Location:
    """
    A directory of a btrfs file system.

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


@dataclass(frozen=True, slots=True)
class S3Location:
    """
    A prefix in an S3 bucket.

    Attributes:
        bucket: Its name.
        prefix: What the keys begin with, without slashes at its ends; empty for the whole bucket.
            The name of a single snapshot at its end can have surrogates, for bytes not UTF-8.
        all_below: Whether it ended with a slash: every snapshot below, not that one snapshot.

    """

    bucket: str
    prefix: str
    all_below: bool

    def __str__(self) -> str:
        slash = "/" if self.all_below and self.prefix else ""
        return f"s3://{self.bucket}/{printable(self.prefix)}{slash}"


@dataclass(frozen=True, slots=True)
class SshLocation:
    """
    A directory of a btrfs file system on another host.

    Attributes:
        user: Who to log in as; empty for whom ssh takes by itself.
        host: Its name as ssh knows it, or its address; one of version 6 without brackets.
        port: Of its sshd; None for the one ssh takes by itself.
        path: Absolute, as given, without a slash at its end (but `/` itself).
        all_below: Whether it ended with a slash: every snapshot below, not that one snapshot.

    """

    user: str
    host: str
    port: int | None
    path: bytes
    all_below: bool

    def __str__(self) -> str:
        slash = "/" if self.all_below and self.path != b"/" else ""
        return f"{self.authority}{printable(self.path)}{slash}"

    @property
    def authority(self) -> str:
        """How the host alone is written: what goes before a path there."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}"

    def split(self) -> tuple[bytes, bytes]:
        """Return the directory that a single snapshot lies in, and its name there."""
        above, _slash, name = self.path.rpartition(b"/")
        return above or b"/", name


AnyLocation = Location | S3Location | SshLocation


def parse_location(text: bytes) -> AnyLocation:
    """Return what a word of the command line names; `UsageError` if it is no location."""
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() == b"s3":
        return _s3(text, text[scheme.end() :])
    if scheme and scheme[1].lower() == b"ssh":
        return _ssh(text, text[scheme.end() :])
    if scheme:
        name = scheme[1].decode("ascii").lower()
        why = f"{name}:// is not one of those this version has"
        raise UsageError("unknown kind of location", where=text, why=why, hint=_HINT)
    if not text or b"\0" in text:
        raise UsageError("empty location", hint=_HINT)
    directory = text.rstrip(b"/") or b"/"
    return Location(directory, all_below=text.endswith(b"/"))


def _s3(text: bytes, rest: bytes) -> S3Location:
    """Return the location in `rest`, which is what follows the scheme."""
    bucket, _slash, prefix = rest.partition(b"/")
    hint = "Write it as s3://bucket/prefix/."
    if not bucket or not _BUCKET.fullmatch(bucket):
        raise UsageError("no bucket", where=text, why="that is no name of one", hint=hint)
    name = prefix.strip(b"/").decode("utf-8", "surrogateescape")
    all_below = not name or prefix.endswith(b"/")
    if not _is_utf8(name if all_below else name.rpartition("/")[0]):
        raise UsageError("bad prefix", where=text, why="keys in a bucket are UTF-8", hint=hint)
    return S3Location(bucket.decode("ascii"), name, all_below=all_below)


def _is_utf8(text: str) -> bool:
    """Return whether text was that, and not bytes which Python keeps as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _ssh(text: bytes, rest: bytes) -> SshLocation:
    """Return the location in `rest`, which is what follows the scheme."""
    hint = "Write it as ssh://user@host:port/directory/; user and port may be left out."
    authority, slash, path = rest.partition(b"/")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        why = "that is no host" if b":" not in authority else "that is no host with a port"
        raise UsageError("bad ssh location", where=text, why=why, hint=hint)
    port = int(parts["port"]) if parts["port"] else None
    if port is not None and not 1 <= port <= 65535:
        why = "a port is a number from 1 to 65535"
        raise UsageError("bad ssh location", where=text, why=why, hint=hint)
    if not slash or b"\0" in path:
        raise UsageError("bad ssh location", where=text, why="it names no directory", hint=hint)
    return SshLocation(
        user=(parts["user"] or b"").decode("ascii"),
        host=parts["host"].strip(b"[]").decode("ascii"),
        port=port,
        path=b"/" + path.rstrip(b"/") if path.strip(b"/") else b"/",
        all_below=not path.strip(b"/") or path.endswith(b"/"),
    )
