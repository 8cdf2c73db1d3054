"""
Another host on this machine: the same kernel and the same files, but users and programs of its own.

Namespaces of mounts, processes and the host name are held by one process, and by choice one of the
network, too. In them lies a throwaway layer over /etc and /usr, and an empty /run with the homes of
its users, so that what happens there does not happen here: users, sudoers, programs and caches. The
kernel takes all of it down with that process, which ends with the test run however that ends.

File systems that a test mounts later are seen there as well, at the same paths, because mounts are
passed on to there and none is passed back. For this the mount that holds the directory of the tests
is shared as long as the host is there; script/test runs the tests in a mount namespace of their
own, so nobody else meets that.

The kernel's devices are the same, too, and so is /tmp.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.debian import CACHE, unpacked
from tests.support.loopfs import CommandError, run
from tests.support.syslog import received_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.loopfs import Argument
    from tests.support.syslog import Syslog

NAME = "testhost"
PACKAGES = ("openssh-server", "sudo")
TREE = "tree-1"  # a changed recipe takes the next number
LAYERED = ("etc", "usr")
PROGRAM = "usr/local/bin/buttersink"  # where the far side finds it
LINK = "usr/local/sbin/buttersink"  # and where README.md puts a link to it
SOURCES = Path(__file__).parents[2] / "src"
FIRST_ID, LAST_ID = 64200, 64999  # Debian's policy: nobody gives them without asking
START_SECONDS = 10.0

_PROGRAM_TEXT = """\
#!{python}
import sys
sys.path.insert(0, {sources!r})
from buttersink.cli import command
command()
"""


@dataclass(frozen=True, slots=True)
class FarHost:
    """
    The host.

    Attributes:
        holder: The process whose namespaces these are; not itself among the host's processes.
        init: The host's first process; when it ends, all others do.

    """

    holder: int
    init: int

    @property
    def root(self) -> Path:
        """The host's `/`, as a path that works here."""
        return Path(f"/proc/{self.init}/root")

    def inside(self, *command: Argument) -> tuple[Argument, ...]:
        """Return the command line that runs a command as root on the host."""
        return ("nsenter", f"--target={self.init}", "--all", "--root", "--", *command)

    def run(self, *command: Argument) -> str:
        """Run a command as root on the host to its end; return its stdout."""
        return run(*self.inside(*command))

    def processes(self) -> dict[int, list[bytes]]:
        """Return the command lines of the host's processes, its first one left out, by pid here."""
        ours = os.readlink(f"/proc/{self.init}/ns/pid")
        found = {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
            with suppress(OSError):  # it may just have ended
                if pid != self.init and os.readlink(f"/proc/{pid}/ns/pid") == ours:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
                    found[pid] = words.split(b"\0")
        return found

    def home(self, user: str) -> Path:
        """Return the home of root or of a user that was added, as a path that works here."""
        return self.root / "run" / user

    def add_user(self, name: str) -> None:
        """Make a user, or replace the one of this name; it has no password, but can log in."""
        number = 0 if name == "root" else self._free_number()
        self._put("etc/passwd", name, f"x:{number}:{number}::/run/{name}:/bin/bash")
        self._put("etc/group", name, f"x:{number}:")
        self._put("etc/shadow", name, "*:19000:0:99999:7:::")  # "!" would be locked for sshd
        self.home(name).mkdir(mode=0o755, exist_ok=True)
        os.chown(self.home(name), number, number)

    @contextmanager
    def sudoers(self, *lines: str) -> Iterator[None]:
        """Let these lines be all that sudo goes by, for the block; visudo has to accept them."""
        before = self._read("etc/sudoers")
        self._write_sudoers("".join(f"{line}\n" for line in lines))
        try:
            yield
        finally:
            self._write_sudoers(before)

    @contextmanager
    def without_program(self) -> Iterator[None]:
        """Have no ButterSink on the host, for the block."""
        program = self.root / PROGRAM
        text = program.read_text()
        program.unlink()
        try:
            yield
        finally:
            _write(program, text, mode=0o755)

    @contextmanager
    def syslog(self) -> Iterator[Syslog]:
        """
        Collect what programs on the host log during the block.

        For this, /dev gets a layer, so that /dev/log is made there and not on this machine. What is
        mounted below it, such as /dev/shm, where the tests may be, stays in sight.
        """
        layers = Path("/run", f"dev-{time.monotonic_ns()}")
        self._lay_over_dev(layers)
        try:
            with received_at(self.root / "dev/log") as log:
                yield log
        finally:
            # lazily: whoever began to use /dev/null meanwhile goes on
            self.run("umount", "--lazy", "/dev", layers / "old")

    def _lay_over_dev(self, layers: Path) -> None:
        upper, work, old = layers / "upper", layers / "work", layers / "old"
        self.run("mkdir", layers, upper, work, old)
        self.run("mount", "--rbind", "/dev", old)
        directories = f"lowerdir=/dev,upperdir={upper},workdir={work}"
        self.run("mount", "-t", "overlay", "-o", directories, NAME, "/dev")
        for name in ("pts", "shm"):
            if (self.root / "dev" / name).is_dir():
                self.run("mount", "--rbind", old / name, Path("/dev", name))
        (self.root / "dev/log").unlink(missing_ok=True)  # the machine's own, if it has one

    def _write_sudoers(self, text: str) -> None:
        new = self.root / "etc/sudoers.new"
        _write(new, text, mode=0o440)
        self.run("visudo", "--check", "--strict", "--file=/etc/sudoers.new")
        new.replace(self.root / "etc/sudoers")

    def _read(self, path: str) -> str:
        return (self.root / path).read_text()

    def _free_number(self) -> int:
        """Return a user's and group's number above all those given here."""
        users = (each.split(":") for each in self._read("etc/passwd").splitlines())
        numbers = [int(fields[2]) for fields in users]
        return 1 + max((each for each in numbers if FIRST_ID <= each < LAST_ID), default=FIRST_ID)

    def _put(self, path: str, name: str, rest: str) -> None:
        """Have one line of this name in a file like /etc/passwd."""
        others = [each for each in self._read(path).splitlines() if each.split(":")[0] != name]
        (self.root / path).write_text("".join(f"{each}\n" for each in [*others, f"{name}:{rest}"]))


@contextmanager
def far_host(directory: Path, *, network: bool = False) -> Iterator[FarHost]:
    """
    Have such a host for the block; `network` gives it a network of its own, without any line.

    `directory` is on the same mount as those where tests mount. Needs root. The first run ever
    downloads the Debian packages of sshd and sudo (30 MB, 130 unpacked).
    """
    tree = unpacked(CACHE / "ssh" / _codename(), TREE, PACKAGES, suite=_codename())
    with (
        _shared_mounts(directory),
        held_namespaces(
            *("--mount", "--propagation", "slave", "--pid", "--fork", "--mount-proc", "--uts"),
            *(("--net",) if network else ()),
        ) as holder,
    ):
        host = FarHost(holder, _child(holder))
        _furnish(host, tree, directory)
        yield host


@contextmanager
def held_namespaces(*options: str) -> Iterator[int]:
    """Have a process that only holds namespaces, made with these options of `unshare`."""
    dies_with_us = ("setpriv", "--pdeathsig", "KILL", "--")
    # A first process has to reap what others leave: with this signal ignored, the kernel does.
    waits = ("env", "--ignore-signal=CHLD", "sleep", "infinity")
    kill_child = ("--kill-child",) if "--fork" in options else ()
    with subprocess.Popen(
        (*dies_with_us, "unshare", *options, *kill_child, "--", *waits),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C leaves the order of things to us
    ) as process:
        try:
            _wait_until_waiting(process)
            yield process.pid
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """
    End what holds the namespaces.

    A first process that is killed takes all others of its host with it, and unshare, which waits
    for it, ends after the last of them.
    """
    for pid in _children(process.pid) or (process.pid,):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _child(pid: int) -> int:
    (child,) = _children(pid)
    return child


def _wait_until_waiting(process: subprocess.Popen[bytes]) -> None:
    """Return when the namespaces are there, which is when the last program runs."""
    deadline = time.monotonic() + START_SECONDS
    while not any(_program(pid) == b"sleep" for pid in (process.pid, *_children(process.pid))):
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process)
            said = os.fsdecode(process.stderr.read()) if process.stderr else ""
            raise CommandError(["unshare"], process.returncode, f"there are no namespaces: {said}")
        time.sleep(0.005)


def _program(pid: int) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_bytes().strip()
    return b""


@contextmanager
def _shared_mounts(directory: Path) -> Iterator[None]:
    """Have mounts that are made below the directory's mount passed on, for the block."""
    shown = run("findmnt", "--noheadings", "--output=PROPAGATION,TARGET", "--target", directory)
    propagation, mountpoint = shown.splitlines()[-1].split(maxsplit=1)  # of several the upper one
    if "shared" in propagation:
        yield
        return
    run("mount", "--make-rshared", mountpoint)
    try:
        yield
    finally:
        run("mount", "--make-rslave", mountpoint)  # which is private where it has no master


def _furnish(host: FarHost, tree: Path, directory: Path) -> None:
    """Give the host its layers, its name, and the users that it needs to have."""
    layers = directory / "layers"
    layers.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "mode=0755", NAME, layers)
    for name in LAYERED:
        _lay_over(host, name, layers, tree)
    host.run("mount", "-t", "tmpfs", "-o", "mode=0755", NAME, "/run")
    host.run("hostname", NAME)
    _write(host.root / "etc/hosts", f"127.0.0.1 localhost {NAME}\n")
    _write(host.root / PROGRAM, _program_text(), mode=0o755)
    (host.root / LINK).symlink_to(f"/{PROGRAM}")
    _write(host.root / "etc/sudoers", "root ALL=(ALL:ALL) ALL\n", mode=0o440)
    for user in ("root", "sshd"):  # sshd's home is where it locks up what has no rights yet
        host.add_user(user)
        os.chown(host.home(user), 0, 0)


def _lay_over(host: FarHost, name: str, layers: Path, tree: Path) -> None:
    """Have changes below a directory lie in memory, and packages add what is not there."""
    upper, work = layers / name, layers / f"{name}.work"
    host.run("mkdir", upper, work)
    directories = f"lowerdir=/{name}:{tree / name},upperdir={upper},workdir={work}"
    host.run("mount", "-t", "overlay", "-o", directories, NAME, f"/{name}")


def _program_text() -> str:
    return _PROGRAM_TEXT.format(python=sys.executable, sources=os.fspath(SOURCES))


def _codename() -> str:
    """Return Debian's name of the release that this machine runs, whose libraries fit."""
    lines = Path("/etc/os-release").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields["VERSION_CODENAME"].strip('"')


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)
