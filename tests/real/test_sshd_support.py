"""The far host and its sshd: who gets in, what sudo allows, what a line does, and what stays."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.support import loopfs
from tests.support.farhost import held_namespaces
from tests.support.line import FAR_ADDRESS, MTU, device_prefix
from tests.support.loopfs import CommandError, btrfs, create_subvolume, loop_device, run
from tests.support.sshd import LIMITED, started_sshd

if TYPE_CHECKING:
    from tests.conftest import MakeFilesystem
    from tests.support.line import Line
    from tests.support.sshd import StartedSshd

pytestmark = pytest.mark.root

LET_GO_SECONDS = 10.0
TRANSFER = 8 << 20  # bytes; more than the buffers of ssh, sshd and TCP hold
RECEIVE = "head -c {count} | sha256sum"
ENDS_BY_ITSELF = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")


@pytest.mark.parametrize(
    ("destination", "user"),
    [("testhost", "root"), ("root@testhost", "root"), (f"{LIMITED}@testhost", LIMITED)],
)
def test_plain_ssh_logs_in(sshd: StartedSshd, destination: str, user: str) -> None:
    environment = {**os.environ, **sshd.client.environment}
    said = subprocess.check_output(
        ("ssh", destination, "id -un; pwd; hostname"), env=environment, text=True
    )
    assert said.splitlines() == [user, f"/run/{user}", "testhost"]


def test_the_address_and_port_do_as_well_as_the_name(sshd: StartedSshd) -> None:
    assert sshd.ssh("-p", str(sshd.port), f"{LIMITED}@{sshd.address}", "id -un") == f"{LIMITED}\n"


def test_only_the_key_gets_in(sshd: StartedSshd, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other)
    with pytest.raises(CommandError, match="Permission denied") as refused:
        sshd.ssh("-o", f"IdentityFile={other}", "-F", "/dev/null", *unknown(sshd), "true")
    assert refused.value.status == 255


def unknown(sshd: StartedSshd) -> tuple[str, ...]:
    """Return what reaches the host without its configuration."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    words = [word for option in options for word in ("-o", option)]
    return (*words, "-p", str(sshd.port), f"root@{sshd.address}")


def test_a_host_that_is_not_known_is_refused(sshd: StartedSshd, tmp_path: Path) -> None:
    nothing = f"UserKnownHostsFile={tmp_path / 'nothing'}"
    with pytest.raises(CommandError, match="Host key verification failed"):
        sshd.ssh("-o", nothing, "testhost", "true")


def test_sudo_does_what_its_lines_say_and_nothing_else(sshd: StartedSshd) -> None:
    who = f"{LIMITED}@testhost"
    with sshd.host.sudoers(f"{LIMITED} ALL=(root) NOPASSWD: /usr/bin/id -u"):
        assert sshd.ssh(who, "sudo -n id -u") == "0\n"
        with pytest.raises(CommandError, match="password is required"):
            sshd.ssh(who, "sudo -n id -g")
    with pytest.raises(CommandError, match="password is required"):
        sshd.ssh(who, "sudo -n id -u")


def test_wrong_sudoers_lines_are_an_error_and_change_nothing(sshd: StartedSshd) -> None:
    before = (sshd.host.root / "etc/sudoers").read_text()
    with pytest.raises(CommandError, match="visudo"), sshd.host.sudoers("limited may do it"):
        pass
    assert (sshd.host.root / "etc/sudoers").read_text() == before


def test_a_user_of_any_name_can_be_added(sshd: StartedSshd) -> None:
    sshd.host.add_user("backup")  # Debian has a system user of this name
    sshd.authorize("backup")
    assert sshd.ssh("backup@testhost", "id -un; pwd").split() == ["backup", "/run/backup"]
    sshd.host.add_user("guest")
    assert sshd.host.run("id", "-u", "guest") != sshd.host.run("id", "-u", "backup")


def test_a_forced_command_is_run_in_place_of_the_wanted_one(sshd: StartedSshd) -> None:
    forced = 'restrict,command="echo wanted: $SSH_ORIGINAL_COMMAND"'
    with sshd.authorized("root", forced):
        assert sshd.ssh("testhost", "id -u") == "wanted: id -u\n"
    assert sshd.ssh("testhost", "id -u") == "0\n"


def test_the_program_of_this_checkout_is_there_or_is_not(sshd: StartedSshd) -> None:
    ours = subprocess.check_output((sys.executable, "-m", "buttersink", "--version"), text=True)
    assert sshd.ssh("testhost", "buttersink --version") == ours
    with (
        sshd.host.without_program(),
        pytest.raises(CommandError, match="not found") as missing,
    ):
        sshd.ssh("testhost", "buttersink --version")
    assert missing.value.status == 127
    assert sshd.ssh("testhost", "buttersink --version") == ours


def test_users_are_of_the_far_host_only(sshd: StartedSshd) -> None:
    assert sshd.ssh("testhost", f"getent passwd sshd {LIMITED}").count("\n") == 2
    with pytest.raises(KeyError):
        pwd.getpwnam(LIMITED)
    sshd.ssh("testhost", "touch /etc/far /usr/far /run/far ~/far")
    assert not [top for top in ("/etc", "/usr", "/run", "/root") if os.path.exists(f"{top}/far")]


def test_a_file_system_mounted_later_is_there_too_and_goes(
    sshd: StartedSshd, tmp_path: Path
) -> None:
    with loopfs.loop_filesystem(tmp_path) as made:
        create_subvolume(made.mountpoint / "one")
        assert "one" in sshd.ssh("testhost", f"btrfs subvolume list {made.mountpoint}")
        sshd.ssh("testhost", f"btrfs subvolume create {made.mountpoint}/two")
        assert "two" in btrfs("subvolume", "list", made.mountpoint)
        there = "mkdir /run/top; mount {} /run/top && ls /run/top; umount /run/top"
        assert sshd.ssh("testhost", there.format(made.device)).split() == ["one", "two"]
    assert not loop_device(made.image)
    assert os.fspath(tmp_path) not in sshd.ssh("testhost", "cat /proc/self/mountinfo")


def test_sessions_are_told_apart_from_the_server(sshd: StartedSshd) -> None:
    sshd.wait_until_idle()
    ssh = (sshd.client.programs / "ssh", "testhost", "cat")
    with subprocess.Popen(ssh, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as talking:
        assert talking.stdin
        assert talking.stdout
        talking.stdin.write(b"x")
        talking.stdin.flush()
        assert talking.stdout.read(1) == b"x"
        assert [b"cat"] in sshd.sessions().values()
    sshd.wait_until_idle()


def test_what_happens_there_can_be_read_from_its_syslog(sshd: StartedSshd) -> None:
    allowed = f"{LIMITED} ALL=(root) NOPASSWD: /usr/bin/id -u"
    with sshd.host.syslog() as log, sshd.host.sudoers(allowed):
        sshd.ssh("testhost", "logger -t trial said 'by hand'")
        sshd.ssh(f"{LIMITED}@testhost", "sudo -n id -u")
        assert log.wait_for("said by hand").endswith("trial: said by hand")
        assert f"sudo: {LIMITED}" in re.sub(" +", " ", log.wait_for("COMMAND=/usr/bin/id -u"))
        assert len(log.messages) >= 2
    assert not os.path.lexists(sshd.host.root / "dev/log") or os.path.lexists("/dev/log")


def test_a_loop_device_made_while_the_syslog_is_read_is_there(
    sshd: StartedSshd, make_filesystem: MakeFilesystem
) -> None:
    with sshd.host.syslog():
        device = make_filesystem("later").device
        sshd.ssh("testhost", f"mkdir /run/later; mount {device} /run/later; umount /run/later")


@pytest.fixture
def line(distant_sshd: StartedSshd) -> Line:
    assert distant_sshd.line
    return distant_sshd.line


def test_a_delay_takes_as_long_as_it_says(distant_sshd: StartedSshd, line: Line) -> None:
    quick = ping(distant_sshd)
    line.set_quality(delay_seconds=0.2)
    slow = ping(distant_sshd)
    assert quick < 0.4 <= slow


def ping(sshd: StartedSshd) -> float:
    """Return the seconds until a connection is there, which is one packet there and one back."""
    connect = "import socket, sys, time; t = time.monotonic(); "
    connect += f"socket.create_connection(('{FAR_ADDRESS}', 22)); print(time.monotonic() - t)"
    assert sshd.line
    return float(run(*sshd.line.near_side, sys.executable, "-c", connect))


def test_losses_slow_a_transfer_and_change_nothing(distant_sshd: StartedSshd, line: Line) -> None:
    line.set_quality(loss=0.02)
    with Transfer(distant_sshd) as transfer:
        assert transfer.finish() == transfer.expected
    assert line.lost >= TRANSFER // MTU // 100


def test_a_transfer_goes_on_when_the_line_is_mended(distant_sshd: StartedSshd, line: Line) -> None:
    line.cut_after(TRANSFER // 2)
    with Transfer(distant_sshd) as transfer:
        wait_until_cut(line)
        passed = line.passed
        time.sleep(0.5)
        assert line.passed == passed
        line.mend()
        assert transfer.finish() == transfer.expected
    assert TRANSFER < line.acknowledged < line.passed


def test_a_line_that_stays_cut_ends_both_sides(distant_sshd: StartedSshd, line: Line) -> None:
    line.cut_after(TRANSFER // 2)
    with Transfer(distant_sshd, *ENDS_BY_ITSELF) as transfer:
        wait_until_cut(line)
        transfer.finish()
        assert transfer.process.returncode == 255
    assert distant_sshd.sessions()  # nobody told the far side
    distant_sshd.end_sessions()
    distant_sshd.wait_until_idle()


def wait_until_cut(line: Line) -> None:
    deadline = time.monotonic() + LET_GO_SECONDS
    while not line.is_cut:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Transfer:
    """A long transfer to the far side, which answers with its checksum."""

    expected = run("sh", "-c", f"head -c {TRANSFER} /dev/zero | sha256sum").encode()

    def __init__(self, sshd: StartedSshd, *options: str) -> None:
        words = (*options, "testhost", RECEIVE.format(count=TRANSFER))
        self.process = subprocess.Popen(
            (sshd.client.programs / "ssh", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.writer = subprocess.Popen(
            ("head", "-c", str(TRANSFER), "/dev/zero"), stdout=self.process.stdin
        )
        assert self.process.stdin
        self.process.stdin.close()
        self.process.stdin = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.process, self.writer):
            process.kill()
            process.communicate()

    def finish(self) -> bytes:
        return self.process.communicate(timeout=60)[0]


def test_two_hosts_run_at_once(tmp_path: Path, distant_sshd: StartedSshd, line: Line) -> None:
    (tmp_path / "other").mkdir()
    with started_sshd(tmp_path / "other", with_line=True) as other:
        line.cut()
        assert other.ssh("testhost", "id -u") == "0\n"
        line.mend()
        other.host.add_user("guest")
        with pytest.raises(CommandError):
            distant_sshd.ssh("testhost", "getent passwd guest")


@pytest.mark.parametrize("with_line", [False, True])
def test_nothing_stays(tmp_path: Path, *, with_line: bool) -> None:
    before = traces()
    with (  # noqa: PT012  the body is the point
        pytest.raises(LookupError),
        started_sshd(tmp_path, with_line=with_line) as sshd,
    ):
        sshd.ssh("testhost", "setsid -f sleep 1000 >/dev/null 2>&1 </dev/null")
        processes = [sshd.host.holder, sshd.host.init, *sshd.host.processes()]
        assert b"1000" in [words[-1] for words in sshd.host.processes().values()]
        raise LookupError
    assert not [pid for pid in processes if os.path.exists(f"/proc/{pid}")]
    assert traces() == before


def traces() -> list[str]:
    """Return what a host that stayed would show in: mounts, users, /dev/log, our interfaces."""
    mounts = run("findmnt", "--noheadings", "--output=TARGET,PROPAGATION", "--list")
    files = [Path(path).read_text() for path in ("/etc/passwd", "/etc/group", "/etc/shadow")]
    return [mounts, *files, str(os.path.lexists("/dev/log")), *interfaces(os.getpid())]


def interfaces(pid: int) -> list[str]:
    """Return the devices of lines that a process made and did not give away."""
    return [name for name in os.listdir("/sys/class/net") if name.startswith(device_prefix(pid))]


KILLED = """\
import sys, time
from pathlib import Path
from tests.support.sshd import started_sshd
with started_sshd(Path(sys.argv[1]), with_line=True) as sshd:
    sshd.ssh("testhost", "setsid -f sleep 1000 >/dev/null 2>&1 </dev/null")
    print(sshd.host.holder, sshd.host.init, *sshd.host.processes(), flush=True)
    time.sleep(1000)
"""


def test_nothing_stays_of_a_killed_test_run(tmp_path: Path) -> None:
    killed, processes = kill_run(tmp_path)
    assert len(processes) > 3
    for pid in processes:
        wait_until_gone(pid)
    assert not interfaces(killed)


def kill_run(directory: Path) -> tuple[int, list[int]]:
    """Kill a run of its own, as script/test starts it; return it and the processes it started."""
    private = ("unshare", "--mount", "--propagation", "private")
    with subprocess.Popen(
        (*private, sys.executable, "-c", KILLED, directory), stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout
        processes = [int(pid) for pid in started.stdout.readline().split()]
        started.send_signal(signal.SIGKILL)
    return started.pid, processes


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + LET_GO_SECONDS
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, Path(f"/proc/{pid}/status").read_text()
        time.sleep(0.01)


def test_a_namespace_ends_with_its_holder() -> None:
    with held_namespaces("--net") as holder:
        shown = run("nsenter", f"--net=/proc/{holder}/ns/net", "ip", "-brief", "link")
        assert shown.split()[0] == "lo"
    assert not os.path.exists(f"/proc/{holder}")
