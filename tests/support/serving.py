"""
Servers as processes that a test starts: on a free port of 127.0.0.1, with a log, and gone after.

Each is the leader of a session of its own and is ended by its pid, politely first. The kernel ends
it too when the process that started it is killed, so that nothing stays behind a killed test run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.loopfs import Argument

HOST = "127.0.0.1"
START_SECONDS = 60.0  # the slowest, Ceph's gateway, takes 2 on an idle machine
END_SECONDS = 5.0
LOG_CHARACTERS = 4000  # of a log's end that an error shows


class ServerError(Exception):
    """A server did not start; the text has the end of its log."""

    def __init__(self, server: Running, problem: str) -> None:
        """Read the log while it is there."""
        end = server.log.read_text("utf-8", "replace")[-LOG_CHARACTERS:]
        super().__init__(f"{server.log.stem}: {problem}. Its log, {server.log}, ends:\n{end}")


class Running:
    """
    A server's process.

    Attributes:
        process: Leader of its own process group.
        log: The file of what it writes.

    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def wait_until_answers(self, port: int, seconds: float = START_SECONDS) -> None:
        """Return when any HTTP answer comes; raise ServerError if the server ends or is late."""
        deadline = time.monotonic() + seconds
        while not _answers(port):
            if self.process.poll() is not None:
                raise ServerError(self, f"ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise ServerError(self, f"no answer on port {port} within {seconds:.0f} s")
            time.sleep(0.02)


def free_port() -> int:
    """Return a TCP port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(*command: Argument, log: Path, environment: Mapping[str, str]) -> Iterator[Running]:
    """Run a server for the block; what it writes is added to `log`."""
    dies_with_us = ("setpriv", "--pdeathsig", "KILL", "--")
    with log.open("ab") as output:
        process = subprocess.Popen(
            (*dies_with_us, *command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", **environment},
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        _end(process)


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group; a stopped one has to go on to see that it is asked to end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGCONT)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
