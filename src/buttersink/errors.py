"""
The exceptions ButterSink raises on purpose, and the text a person reads when one does.

Every error says what failed, on which path or key, why, and what to do. Each class carries the exit
status of the command it ends. Anything that is not an `Error` is a bug and stays a traceback.
"""

from __future__ import annotations

import os
from typing import ClassVar


def printable(path: bytes | str) -> str:
    r"""
    Return a path as one line of printable text.

    Control characters become Python escapes and bytes that are not UTF-8 become `\\xNN`, so that
    neither a terminal nor a log line is broken by a name.
    """
    text = os.fsdecode(path) if isinstance(path, bytes) else path
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class Error(Exception):
    """
    The root, never raised itself: what failed, where, why, and what the user can do.

    Attributes:
        reached: How far it had come when it failed, such as "at 40 %"; set by who knows it.

    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, where: bytes | str | None = None, why: str = "", hint: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint
        self.reached = ""

    def __str__(self) -> str:
        what = f"{self.what} {self.reached}" if self.reached else self.what
        where = None if self.where is None else printable(self.where)
        cause = ": ".join(part for part in (what, where, self.why) if part)
        return f"{cause}. {self.hint}" if self.hint else cause


class UsageError(Error):
    """The command line asks for something that cannot be."""

    exit_code = 2


class LockedError(Error):
    """Another run is writing to the destination."""

    exit_code = 3


class LocationError(Error):
    """A location does not exist, is not what its scheme says, or cannot be opened."""


class PrivilegeError(LocationError):
    """The kernel refuses because the process is not root."""


class ProtocolError(LocationError):
    """The other end of a connection does not speak the protocol, or no version of it in common."""


class ConnectionLostError(LocationError):
    """The connection to another host has ended, and whatever was going on with it."""


class ConflictError(Error):
    """The destination path of a snapshot is taken by something else."""


class RefusedError(Error):
    """What was asked for would lose data that nobody can have meant."""


class PlanError(Error):
    """A diff that there is to choose from makes no sense, or no diff leads to a snapshot."""


class SendError(Error):
    """The source could not produce a diff."""


class ResumeError(Error):
    """What an interrupted transfer left cannot be gone on with; it starts over."""


class ReceiveError(Error):
    """The destination could not take a diff, or what arrived is not what was sent."""


class NoSpaceError(ReceiveError):
    """The destination file system is full."""


class DeleteError(Error):
    """A snapshot or a partial transfer could not be removed."""


class StreamError(Error):
    """Bytes that are not a well-formed btrfs send stream."""


class VerifyError(Error):
    """A stored diff is not what was sent, or no sound diffs lead to a snapshot any more."""
