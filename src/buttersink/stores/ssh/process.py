"""
The `ssh` process: the command line that starts it, what it says, and its end.

The system's own `ssh` is run, so that the user's configuration, keys, agent and jump hosts hold. It
gets an argument list; the one string in it that a remote shell reads is quoted word by word.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from buttersink.errors import LocationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from buttersink.location import SshLocation

_KEPT = 8 * 1024  # bytes of what it said last
_CONNECT_SECONDS = 30  # where the user's configuration says nothing
_LOOKUP_SECONDS = 20
_PATIENCE = 10.0  # seconds that the far side has to clean up
_OPTIONS = [
    *("-T", "-x"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "RemoteCommand=none"),
    *("-o", "ControlMaster=no"),  # one that runs is used, but others must not depend on this one
]


def settings_for(location: SshLocation) -> dict[str, str]:
    """Return what ssh would do for a location, by its own account; no connection is made."""
    try:
        found = subprocess.run(
            ["ssh", "-G", *_destination(location)],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_LOOKUP_SECONDS,
        )
    except FileNotFoundError as error:
        raise _no_ssh(location) from error
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = found.stdout.decode("utf-8", "replace").splitlines()
    return {key: value for key, _blank, value in (line.partition(" ") for line in lines)}


def _no_ssh(location: SshLocation) -> LocationError:
    why, hint = "there is no command ssh", "Install it: on Debian, apt install openssh-client."
    return LocationError("cannot connect", where=str(location), why=why, hint=hint)


def _destination(location: SshLocation) -> list[str]:
    port = ["-p", str(location.port)] if location.port else []
    user = f"{location.user}@" if location.user else ""
    return [*port, "--", f"{user}{location.host}"]


def command_line(
    location: SshLocation,
    arguments: Sequence[bytes],
    words: Sequence[str],
    settings: dict[str, str],
) -> list[str]:
    """
    Return what starts ButterSink on the other host.

    Args:
        location: Where.
        arguments: What ButterSink gets there.
        words: What it is called there; none for the usual, with sudo unless the user is root.
        settings: What ssh says of itself.

    """
    if not words:
        words = ["buttersink"] if settings.get("user") == "root" else ["sudo", "-n", "buttersink"]
    remote = shlex.join([*words, *map(os.fsdecode, arguments)])
    options = list(_OPTIONS)
    if settings.get("connecttimeout", "none") == "none":
        options += ["-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
    return ["ssh", *options, *_destination(location), remote]


def _environment() -> dict[str, str]:
    """Return the environment in which, where it is passed on, sudo and shells speak English."""
    return {**os.environ, "LC_ALL": "C"}


class SshProcess:
    """
    A running ssh; end it with `close`.

    Args:
        command: Its command line.
        location: Where it leads.

    """

    def __init__(self, command: Sequence[str], location: SshLocation) -> None:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=_environment()
            )
        except FileNotFoundError as error:
            raise _no_ssh(location) from error
        self._said = bytearray()
        # not waited for: a master connection that ssh leaves behind keeps this end open
        self._listener = threading.Thread(target=self._listen, name="ssh-stderr", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        stderr = self._process.stderr
        with suppress(OSError, ValueError):
            while stderr and (more := os.read(stderr.fileno(), _KEPT)):
                self._said += more
                del self._said[:-_KEPT]

    def descriptors(self) -> tuple[int, int]:
        """Return copies of the descriptors to read from and to write to, and let go of its own."""
        streams = (self._process.stdout, self._process.stdin)
        fds = [os.dup(stream.fileno()) for stream in streams if stream]
        for stream in streams:
            if stream:
                stream.close()
        return fds[0], fds[1]

    @property
    def said(self) -> str:
        """What it and the other host have said last on stderr."""
        self._listener.join(1.0 if self._process.returncode is not None else 0.0)
        return bytes(self._said).decode("utf-8", "surrogateescape")

    def wait(self, seconds: float = _PATIENCE) -> int | None:
        """Return its exit status, None if it has not ended in time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def close(self) -> None:
        """Wait until it has ended, which it does once its input ends; else end it."""
        if self.wait() is None:
            self._process.terminate()
            if self.wait(5.0) is None:
                self._process.kill()
                self._process.wait()
        stderr = self._process.stderr
        self._listener.join(1.0)
        if stderr and not self._listener.is_alive():
            stderr.close()
