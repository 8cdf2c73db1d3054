"""
A real sshd on a far host, and the `ssh` that reaches it as `testhost`.

Root logs in and so does `limited`, a user who may do with sudo what a test's sudoers lines say. The
server has a host key, a configuration and authorized keys of its own. The client's part is a
program named `ssh` in a directory to be put in front of $PATH: the machine's own ssh with a
configuration that knows the host and the key, and asks for nothing. The command that is tested
starts it by the plain name, as it does at a user's.

The server listens on 127.0.0.1, or behind a line of which tests decide what it does: see `line`.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.farhost import NAME, FarHost, far_host
from tests.support.line import FAR_ADDRESS, Line, line_to
from tests.support.loopfs import run
from tests.support.serving import HOST, START_SECONDS, Running, ServerError, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LIMITED = "limited"
USERS = ("root", LIMITED)
FAR_PORT = 22  # where it has a network of its own
POLL_SECONDS = 0.01

SERVER_CONFIGURATION = """\
ListenAddress {address}:{port}
HostKey /etc/ssh/testhost_key
AuthorizedKeysFile /etc/ssh/authorized_keys/%u
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
LogLevel VERBOSE
"""  # PAM would want a session of the machine's login service, which a container has not

CLIENT_CONFIGURATION = """\
Host {name}
    HostName {address}
    Port {port}
    HostKeyAlias {name}
Host *
    IdentityFile {key}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
"""


@dataclass(frozen=True, slots=True)
class Client:
    """
    What the client's side has, all of it in one directory; tests may change the files.

    Attributes:
        programs: The directory with the program `ssh`.
        configuration: What that reads in place of the user's and the machine's.
        key: The private key; the public one lies beside it, with `.pub`.
        known_hosts: The host's public key, under its name and under its address and port.

    """

    programs: Path
    configuration: Path
    key: Path
    known_hosts: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What a command's environment needs to have `ssh` be this one."""
        return {"PATH": f"{self.programs}:{os.environ['PATH']}"}


@dataclass(frozen=True, slots=True)
class StartedSshd:
    """
    The server, which runs.

    Attributes:
        host: The machine it runs on.
        server: Its process; the log has what sshd and its sessions say.
        address: Where it listens.
        port: And at which port.
        client: Who may log in.
        line: What lies between, if it is not on 127.0.0.1.

    """

    host: FarHost
    server: Running
    address: str
    port: int
    client: Client
    line: Line | None

    def ssh(self, *words: str) -> str:
        """Run the client's `ssh` with these arguments to its end; return its stdout."""
        return run(self.client.programs / "ssh", *words)

    def authorize(self, user: str, options: str = "") -> None:
        """Let the client's key, and no other, log in as this user, by choice with such options."""
        public = self.client.key.with_suffix(".pub").read_text()
        path = self.host.root / "etc/ssh/authorized_keys" / user
        path.write_text(f"{options} {public}".lstrip())

    @contextmanager
    def authorized(self, user: str, options: str) -> Iterator[None]:
        """Have the key's options be these for the block, such as `restrict,command="..."`."""
        self.authorize(user, options)
        try:
            yield
        finally:
            self.authorize(user)

    def sessions(self) -> dict[int, list[bytes]]:
        """Return the command lines of the host's processes, the listening sshd left out, by pid."""
        listener = b"sshd: /usr/sbin/sshd"
        return {
            pid: words
            for pid, words in self.host.processes().items()
            if not words or not words[0].startswith(listener)
        }

    def end_sessions(self) -> None:
        """Kill every session and what it started, as where sshd notices that a client has gone."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_until_idle(self, seconds: float = 10.0) -> None:
        """Return when no session and nothing started by one is left; else an AssertionError."""
        deadline = time.monotonic() + seconds
        while left := self.sessions():
            assert time.monotonic() < deadline, f"still on the far host: {left}"
            time.sleep(POLL_SECONDS)


@contextmanager
def started_sshd(directory: Path, *, with_line: bool = False) -> Iterator[StartedSshd]:
    """
    Run an sshd for the block; `directory` keeps what both sides have, and has to be empty.

    Until a test gives sudoers lines, `limited` may do nothing with sudo.
    """
    with ExitStack() as stack:
        host = stack.enter_context(far_host(directory, network=with_line))
        line = stack.enter_context(line_to(host.init)) if with_line else None
        address, port = (FAR_ADDRESS, FAR_PORT) if line else (HOST, free_port())
        _configure(host, directory, address, port)
        client = _make_client(directory, address, port, line)
        server = stack.enter_context(
            running(
                *host.inside("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/testhost_config"),
                log=directory / "sshd.log",
                environment={},
            )
        )
        started = StartedSshd(host, server, address, port, client, line)
        for user in USERS:
            started.authorize(user)
        _wait_until_listening(server)
        yield started


def _configure(host: FarHost, directory: Path, address: str, port: int) -> None:
    host.add_user(LIMITED)
    key = directory / "host_key"
    _make_key(key)
    settings = host.root / "etc/ssh"
    shutil.copy(key, settings / "testhost_key")  # with its mode
    configuration = SERVER_CONFIGURATION.format(address=address, port=port)
    (settings / "testhost_config").write_text(configuration)
    (settings / "authorized_keys").mkdir()


def _make_client(directory: Path, address: str, port: int, line: Line | None) -> Client:
    client = Client(
        programs=directory / "bin",
        configuration=directory / "ssh_config",
        key=directory / "key",
        known_hosts=directory / "known_hosts",
    )
    _make_key(client.key)
    client.configuration.write_text(
        CLIENT_CONFIGURATION.format(
            name=NAME, address=address, port=port, key=client.key, known_hosts=client.known_hosts
        )
    )
    public = (directory / "host_key.pub").read_text()
    client.known_hosts.write_text(f"{NAME},[{address}]:{port},{address} {public}")
    client.programs.mkdir()
    program = client.programs / "ssh"
    through = line.near_side if line else ()
    words = " ".join(
        (*through, shutil.which("ssh") or "ssh", "-F", os.fspath(client.configuration))
    )
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return client


def _make_key(path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path)


def _wait_until_listening(server: Running) -> None:
    """Return when sshd says that it listens; raise ServerError if it ends or is late."""
    deadline = time.monotonic() + START_SECONDS
    while b"Server listening on" not in server.log.read_bytes():
        if server.process.poll() is not None:
            raise ServerError(server, f"ended with status {server.process.returncode}")
        if time.monotonic() > deadline:
            raise ServerError(server, f"does not listen within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
