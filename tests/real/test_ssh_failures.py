"""What a person meets who cannot get to another host or cannot use what is there: one sentence."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Argument, command_line
from tests.support.loopfs import MIB, create_subvolume, run, snapshot
from tests.support.serving import free_port
from tests.support.sshd import LIMITED, USERS
from tests.support.sshlocation import DEBIANS_SUDOERS, FarLocations, at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeFilesystem
    from tests.support.sshd import StartedSshd

pytestmark = pytest.mark.root


@pytest.fixture
def far(sshd: StartedSshd) -> Iterator[FarLocations]:
    found = FarLocations(sshd)
    yield found
    found.assert_gone()


def fails(far: FarLocations, *arguments: Argument, status: int = 1) -> str:
    """Return the one line in which a run that fails says why, without what all begin with."""
    done = far.run(*arguments, status=status)
    assert done.out == ""
    return one_error(done.err)


def one_error(said: str) -> str:
    (line,) = said.splitlines()
    begin = "buttersink: error: "
    assert line.startswith(begin)
    return line.removeprefix(begin)


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """Have other text in a file, which may be new, for the block."""
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


class TestNoConnection:
    def test_a_host_that_is_not_known(self, far: FarLocations) -> None:
        said = fails(far, "ssh://nowhere.invalid/x/")
        assert said == (
            "cannot connect: ssh://nowhere.invalid/x/: the host is not known. "
            "Check its name, or give it a Host entry in ~/.ssh/config."
        )

    def test_a_port_where_nothing_listens(self, far: FarLocations) -> None:
        where = f"ssh://testhost:{free_port()}/x/"
        assert fails(far, where) == (
            f"cannot connect: {where}: nothing listens on its ssh port. "
            "Does sshd run there? Another port is written ssh://host:port/path/."
        )

    def test_a_host_key_that_is_not_known(self, far: FarLocations) -> None:
        with changed(far.sshd.client.known_hosts, ""):
            said = fails(far, "ssh://testhost/x/")
        assert said == (
            "cannot connect: ssh://testhost/x/: its host key is not known. "
            "Log in once by hand, and compare the fingerprint: ssh testhost."
        )

    def test_a_host_key_that_has_changed(self, far: FarLocations, tmp_path: Path) -> None:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
        other = (tmp_path / "other.pub").read_text()
        with changed(far.sshd.client.known_hosts, f"testhost {other}"):
            said = fails(far, f"ssh://{LIMITED}@testhost/x/")
        assert said == (
            f"cannot connect: ssh://{LIMITED}@testhost/x/: its host key is not the one it had: "
            "another host answers, or it was set up anew. If you know why, remove the old key by "
            f"ssh-keygen -R, and log in once by hand: ssh {LIMITED}@testhost."
        )

    def test_a_key_that_is_refused(self, far: FarLocations) -> None:
        with changed(far.sshd.host.root / "etc/ssh/authorized_keys" / LIMITED, ""):
            said = fails(far, f"ssh://{LIMITED}@testhost/x/")
        assert said == (
            f"cannot connect: ssh://{LIMITED}@testhost/x/: it does not accept this user's key. "
            f"Log in once by hand until no password is asked for: ssh {LIMITED}@testhost. "
            "Under sudo, ssh uses root's keys."
        )

    def test_a_host_that_does_not_answer(self, distant_sshd: StartedSshd) -> None:
        assert distant_sshd.line
        far, configuration = FarLocations(distant_sshd), distant_sshd.client.configuration
        distant_sshd.line.cut()
        with changed(configuration, f"ConnectTimeout 1\n{configuration.read_text()}"):
            said = fails(far, "ssh://testhost/x/")
        assert said == (
            "cannot connect: ssh://testhost/x/: the host does not answer. "
            "Is it up, and does a firewall let ssh through?"
        )

    def test_no_ssh_here(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            command_line("ssh://testhost/x/"),
            env={**os.environ, "PATH": os.fspath(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            _out, said = process.communicate()
        assert process.returncode == 1
        assert one_error(said) == (
            "cannot connect: ssh://testhost/x/: there is no command ssh. "
            "Install it: on Debian, apt install openssh-client."
        )


class TestNotStarted:
    def test_sudo_wants_a_password(self, far: FarLocations) -> None:
        said = fails(far, f"ssh://{LIMITED}@testhost/x/")
        assert said == (
            f"cannot connect: ssh://{LIMITED}@testhost/x/: sudo wants a password there, as it does "
            "where no line in sudoers allows the command. "
            "README.md, section Another host over ssh, has the line for sudoers."
        )

    @pytest.mark.parametrize(
        "lines",
        [
            ("Defaults !authenticate",),
            ("Defaults !authenticate", f"{LIMITED} ALL=(root) /usr/bin/id"),
            ("Defaults !authenticate", f"{LIMITED} elsewhere=(root) ALL"),
        ],
    )
    def test_sudo_does_not_allow_it(self, far: FarLocations, lines: tuple[str, ...]) -> None:
        with far.sshd.host.sudoers(*lines):
            said = fails(far, f"ssh://{LIMITED}@testhost/x/")
        assert said == (
            f"cannot connect: ssh://{LIMITED}@testhost/x/: sudo does not allow the command there. "
            "README.md, section Another host over ssh, has the line for sudoers."
        )

    def test_another_directory_than_the_one_allowed(
        self, far: FarLocations, tmp_path: Path
    ) -> None:
        with far.readme_sudoers(tmp_path / "allowed"):
            said = fails(far, at(tmp_path / "other", LIMITED))
        assert "sudo wants a password there, as it does where no line in sudoers" in said

    @pytest.mark.parametrize("user", USERS)
    def test_it_is_not_installed(self, far: FarLocations, user: str) -> None:
        allowed = f"{LIMITED} ALL=(root) NOPASSWD: ALL"
        with far.sshd.host.without_program(), far.sshd.host.sudoers(DEBIANS_SUDOERS, allowed):
            said = fails(far, f"ssh://{user}@testhost/x/")
        assert re.fullmatch(
            rf"buttersink cannot be started there: ssh://{user}@testhost/x/: .*command not found\. "
            r"Install it there, or say where it is by --remote-command\.",
            said,
        )

    def test_sudo_is_not_installed(self, far: FarLocations) -> None:
        sudo = far.sshd.host.root / "usr/bin/sudo"
        sudo.rename(sudo.with_name("nosudo"))
        try:
            said = fails(far, f"ssh://{LIMITED}@testhost/x/")
        finally:
            sudo.with_name("nosudo").rename(sudo)
        assert said == (
            f"cannot connect: ssh://{LIMITED}@testhost/x/: sudo is not installed there. "
            "Install it, log in as root, or name the command by --remote-command."
        )

    def test_a_remote_command_that_is_not_there(self, far: FarLocations) -> None:
        said = fails(far, "--remote-command", "/opt/none", "ssh://testhost/x/")
        assert said == (
            "buttersink cannot be started there: ssh://testhost/x/: "
            "bash: line 1: /opt/none: No such file or directory. "
            "Install it there, or say where it is by --remote-command."
        )

    def test_a_shell_that_greets(self, far: FarLocations) -> None:
        with changed(far.sshd.host.home("root") / ".bashrc", "echo Welcome to testhost\n"):
            said = fails(far, "ssh://testhost/x/")
        assert said == (
            "something else than buttersink answers: ssh://testhost/x/: "
            "the remote shell prints 'Welcome to testhost' on stdout. "
            "Make its start-up files silent for commands."
        )

    def test_a_shell_that_greets_on_stderr_is_no_failure(
        self, far: FarLocations, source: Path
    ) -> None:
        with changed(far.sshd.host.home("root") / ".bashrc", "echo Welcome to testhost >&2\n"):
            assert far.run(at(source)).err == ""

    def test_a_user_who_may_not_log_in(self, far: FarLocations) -> None:
        passwd = far.sshd.host.root / "etc/passwd"
        lines = passwd.read_text().splitlines()
        shut = [
            line.replace("/bin/bash", "/usr/sbin/nologin") if line.startswith(LIMITED) else line
            for line in lines
        ]
        with changed(passwd, "\n".join([*shut, ""])):
            said = fails(far, f"ssh://{LIMITED}@testhost/x/")
        assert "'This account is currently not available.'" in said


class TestLocation:
    def test_a_directory_that_is_missing(self, far: FarLocations, source: Path) -> None:
        for user in ("root", LIMITED):
            where = at(source / "none", user)
            with far.readme_sudoers(source / "none"):
                said = fails(far, where, source)
            assert said == f"cannot open the location: {where[:-1]}: No such file or directory"

    def test_it_is_not_btrfs(self, far: FarLocations, source: Path) -> None:
        for arguments in ([at(source.parent)], [f"{source}/", at(source.parent)]):
            assert fails(far, *arguments) == (
                f"cannot use the location: ssh://testhost{source.parent}: "
                "it is not on a btrfs file system. Is the file system mounted?"
            )

    def test_it_is_a_file(self, far: FarLocations, source: Path) -> None:
        (source / "file").touch()
        said = fails(far, at(source / "file"))
        assert said == f"cannot open the location: ssh://testhost{source}/file: Not a directory"

    def test_one_that_is_no_snapshot(self, far: FarLocations, source: Path) -> None:
        create_subvolume(source / "live")
        said = fails(far, f"ssh://testhost{source}/live", source)
        assert said.startswith(f"not a snapshot: ssh://testhost{source}/live: it is no read-only")

    def test_another_run_is_writing(
        self, far: FarLocations, source: Path, destination: Path
    ) -> None:
        held = os.open(destination, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            said = fails(far, f"{source}/", at(destination), status=3)
        finally:
            os.close(held)
        assert said.startswith(f"locked: {at(destination)}: another run of buttersink")

    def test_the_disk_is_full(
        self, far: FarLocations, source: Path, make_filesystem: MakeFilesystem
    ) -> None:
        big_snapshot(source, 150)
        small = make_filesystem("small", size_bytes=120 * MIB).mountpoint
        done = far.run("-q", f"{source}/", at(small), status=1)
        (said,) = [line for line in done.err.splitlines() if "error" in line]
        assert "the destination is full: big: it takes up to" in said
        assert "Traceback" not in done.err
        assert os.listdir(small) == []

    def test_it_is_mounted_read_only(
        self, far: FarLocations, source: Path, make_filesystem: MakeFilesystem
    ) -> None:
        big_snapshot(source, 1)
        made = make_filesystem("fixed").mountpoint
        run("mount", "-o", "remount,ro", made)
        done = far.run("-q", f"{source}/", at(made), status=1)
        assert "it is mounted read-only. Mount it writable and run again." in done.err
        assert "Traceback" not in done.err


def big_snapshot(source: Path, size: int) -> Path:
    """Make one of so many MiB, the only one there."""
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(os.urandom(size * MIB))
    return snapshot(live, source / "big")
