"""The command as a process: what it prints, its exit status, mounts, subvolumes, sent copies."""

from __future__ import annotations

import hashlib
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from tests.support.command import run_raw
from tests.support.loopfs import (
    MIB,
    bound,
    btrfs,
    create_subvolume,
    delete_subvolume,
    mounted,
    run,
    send_and_receive,
    snapshot,
    tmpfs,
    unmount,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

COMMAND = (sys.executable, "-m", "buttersink.utilities.checksumdir")
ANYONE = 0xFFFFFFFF
ACL_ENTRIES = ((1, 6, ANYONE), (2, 4, 1234), (4, 4, ANYONE), (16, 4, ANYONE), (32, 4, ANYONE))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ACL_ENTRIES)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def checksumdir(
    *arguments: str | bytes | Path,
    status: int = 0,
    under: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> tuple[bytes, str]:
    """Run the command, `under` another if wanted; return its output and what it complained of."""
    done = run_raw([*under, *COMMAND, *arguments], environment=environment)
    assert done.returncode == status, done
    return done.stdout, done.stderr.decode()


def output(directory: Path) -> bytes:
    """Return what is printed of a directory that can be read whole."""
    out, complaints = checksumdir(directory)
    assert not complaints
    return out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "dir").mkdir(parents=True)
    (top / "dir" / "file").write_text("data")
    (top / "größe").symlink_to("ü")
    return top


# What is printed


def test_the_last_line_is_the_digest_of_the_lines_before(tree: Path) -> None:
    *lines, last = output(tree).splitlines(keepends=True)
    assert len(lines) == 4
    assert last == hashlib.sha256(b"".join(lines)).hexdigest().encode() + b"  .\n"


def test_each_directory_has_its_lines_and_its_digest(tree: Path) -> None:
    assert checksumdir(tree, f"{tree}/", tree / "dir") == (
        output(tree) * 2 + output(tree / "dir"),
        "",
    )


def test_a_copy_elsewhere_prints_the_same(tree: Path, tmp_path: Path) -> None:
    run("cp", "--archive", tree, tmp_path / "copy")
    assert output(tmp_path / "copy") == output(tree)


@pytest.mark.parametrize(
    "settings",
    [
        "LC_ALL=C",
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
        "LC_ALL=C.UTF-8",
        "LC_ALL=C.UTF-8 PYTHONIOENCODING=latin-1 PYTHONUNBUFFERED=1",
        "TZ=Asia/Tokyo",
        "TZ=America/St_Johns",
    ],
)
def test_neither_locale_nor_time_zone_matters(tree: Path, settings: str) -> None:
    environment = dict(setting.split("=") for setting in settings.split())
    for name in (b"\xff", b"new\nline", "é日本".encode()):
        with open(os.path.join(bytes(tree), name), "wb"):
            os.setxattr(os.path.join(bytes(tree), name), b"user.\xff\xc3\xa9", b"")
    out, complaints = checksumdir(tree, environment=environment)
    assert not complaints
    assert out == output(tree)
    assert "./é日本".encode() in out


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version(option: str) -> None:
    assert checksumdir(option) == (f"checksumdir {version('buttersink')}\n".encode(), "")


def test_help_tells_the_fields() -> None:
    out, _ = checksumdir("-h")
    assert b"\n  mtime  seconds" in out
    assert max(map(len, out.splitlines())) <= 80


def test_little_is_imported() -> None:
    program = "import sys, buttersink.utilities.checksumdir; print(*sys.modules)"
    loaded = set(run(sys.executable, "-c", program).split())
    assert not loaded & {"rich", "importlib.metadata", "asyncio", "subprocess", "email"}


# What goes wrong


def test_usage() -> None:
    for arguments in ((), ("--nonsense", "."), ("-n", ".")):
        out, complaint = checksumdir(*arguments, status=2)
        assert out == b""
        assert complaint.splitlines()[-1].startswith("checksumdir: error: ")


def test_what_is_no_directory_is_named_and_the_rest_is_printed(tree: Path) -> None:
    file = tree / "dir" / "file"
    out, complaints = checksumdir(tree / "not\nhere", file, tree, status=1)
    assert complaints == (
        f"checksumdir: error: cannot open directory: {tree}/not\\nhere: No such file or directory\n"
        f"checksumdir: error: cannot open directory: {file}: Not a directory\n"
    )
    assert out == output(tree)


@pytest.mark.root
def test_data_that_rotted_leaves_no_digest(tmp_path: Path) -> None:
    image, mountpoint = tmp_path / "image", tmp_path / "mountpoint"
    pattern = b"these bytes occur just once in the image".ljust(4096, b".")
    with image.open("xb") as file:
        file.truncate(128 * MIB)
    run("mkfs.btrfs", "--quiet", image)
    with mounted(image, mountpoint):
        (mountpoint / "bad").write_bytes(pattern)
        (mountpoint / "good").write_bytes(b"good")
        sound = output(mountpoint).splitlines(keepends=True)
    with image.open("r+b") as disk, mmap.mmap(disk.fileno(), 0) as content:
        content[content.find(pattern)] ^= 1
    with mounted(image, mountpoint):
        out, complaints = checksumdir(mountpoint, status=1)
    assert complaints == f"checksumdir: error: cannot read: {mountpoint}/bad: Input/output error\n"
    assert out.splitlines(keepends=True) == [sound[0], sound[2]]


@pytest.mark.root
def test_what_may_not_be_read_is_an_error_on_one_line(tree: Path) -> None:
    (tree / "dir" / "file").chmod(0)
    (tree / "locked").mkdir(0)
    (tree / "locked" / "inside").touch()
    mortal = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    out, complaints = checksumdir(tree, status=1, under=mortal)
    assert complaints == (
        f"checksumdir: error: cannot read: {tree}/dir/file: Permission denied\n"
        f"checksumdir: error: cannot list directory: {tree}/locked: Permission denied\n"
    )
    names = [line.split(b" ", 7)[7] for line in out.splitlines()]
    assert names == [b".", b"./dir", "./größe -> ü".encode(), b"./locked"]


def test_a_full_disk_is_an_error(tree: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, tree], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        b"checksumdir: error: cannot write the result: No space left on device\n"
    )


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}").touch()
    with subprocess.Popen(
        [*COMMAND, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline().endswith(b" .\n")
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_an_interrupt_ends_it_quietly(tmp_path: Path) -> None:
    for number in range(100):  # those of the first batch overfill the output's buffer once
        (tmp_path / f"{number:060}").touch()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    ) as process:
        assert process.stdout
        assert process.stdout.readline().endswith(b" .\n")
        process.stdout.close()  # an interrupt ends the reader too
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert process.stderr.read() == b""
    (tmp_path / "huge").unlink()  # what pytest keeps should not take an hour to read
    assert process.returncode == 128 + signal.SIGINT


# Mounts


@pytest.fixture
def covered(tree: Path) -> Iterator[tuple[Path, bytes]]:
    """A tree in which three things are mounted, and what is printed of it when they are not."""
    point, file = tree / "dir" / "a \\ \n\t#", tree / "file"
    point.mkdir()
    (tree / "bind").mkdir()
    (point / "under").write_text("under")
    file.write_text("under")
    before = output(tree)
    with tmpfs(point), bound(tree / "dir", tree / "bind"):
        (point / "over").write_text("over")
        run("mount", "--bind", tree / "dir" / "file", file)
        try:
            yield tree, before
        finally:
            unmount(file)


@pytest.mark.root
def test_what_lies_below_a_mount_is_printed(covered: tuple[Path, bytes]) -> None:
    tree, before = covered
    assert (tree / "file").read_text() == "data"
    assert output(tree) == before


@pytest.mark.root
def test_without_the_right_to_look_below_mounts_are_left_out(covered: tuple[Path, bytes]) -> None:
    tree, before = covered
    out, complaints = checksumdir(tree, under=("setpriv", "--bounding-set=-sys_admin"))
    assert not complaints
    hidden = (b" ./bind\n", rb" ./dir/a \x5c \x0a\x09#", b" ./file\n")
    left = [
        line
        for line in before.splitlines(keepends=True)[:-1]
        if not any(part in line for part in hidden)
    ]
    assert out.splitlines(keepends=True)[:-1] == left
    assert len(left) == 4


# Subvolumes and what a send carries


def furnish(top: Path) -> None:
    """Put everything into a subvolume that a send stream can carry, and some that it cannot."""
    btrfs("property", "set", top, "compression", "zstd")
    os.setxattr(top, "user.top", b"top")
    directory = top / "dir"
    directory.mkdir()
    os.setxattr(directory, "system.posix_acl_default", ACL)
    for name in (b"file", b"new\nline", b"\xff\\", "é -> ".encode(), b"n" * 255):
        with open(os.path.join(bytes(directory), name), "wb") as file:
            file.write(name * 5000)
    (directory / "zlink").hardlink_to(directory / "file")
    (top / "again").hardlink_to(directory / "file")
    (top / "link").symlink_to("no/where")
    os.setxattr(top / "link", "trusted.link", b"", follow_symlinks=False)
    os.lchown(top / "link", 1, 2)
    os.utime(top / "link", ns=(1, 123_456_789), follow_symlinks=False)
    os.mkfifo(top / "fifo")
    os.setxattr(top / "fifo", "security.label", b"l")
    os.mknod(top / "char", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "block", 0o600 | stat.S_IFBLK, os.makedev(7, 300))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "socket"))
    (top / "program").write_bytes(b"x")
    os.chown(top / "program", 12, 34)
    (top / "program").chmod(0o6711)
    os.setxattr(top / "program", "security.capability", CAPABILITY)
    os.setxattr(top / "program", "system.posix_acl_access", ACL)
    with (top / "sparse").open("wb") as file:
        file.truncate(10 * MIB)
        file.seek(5 * MIB)
        file.write(b"middle")
    (top / "flagged").touch()
    run("chattr", "+A", top / "flagged")
    (top / "old").touch()
    os.utime(top / "old", ns=(1, -1_500_000_001))
    create_subvolume(top / "nested")
    (top / "nested" / "inside").touch()
    create_subvolume(directory / "nested")
    os.chown(top, 5, 6)
    top.chmod(0o1750)


def alter(top: Path) -> None:
    """Change what `furnish` made, each thing in another way."""
    (top / "dir" / "file").write_bytes(b"new")
    (top / "dir" / "file").chmod(0o640)
    (top / "again").unlink()
    (top / "again").write_bytes(b"new")
    os.removexattr(top / "link", "trusted.link", follow_symlinks=False)
    os.setxattr(top / "program", "user.late", b"late")
    (top / "sparse").rename(top / "dir" / "moved")
    (top / "socket").unlink()
    (top / "old").unlink()
    (top / "old").mkdir()
    delete_subvolume(top / "nested")
    create_subvolume(top / "old" / "nested")
    os.utime(top / "char", ns=(1, 2))


@pytest.mark.root
def test_what_was_sent_and_received_prints_the_same(source: Path, destination: Path) -> None:
    live = create_subvolume(source / "live")
    furnish(live)
    first = snapshot(live, source / "first")
    alter(live)
    second = snapshot(live, source / "second")
    received = send_and_receive(first, destination)
    assert output(received) == output(first)
    assert output(send_and_receive(second, destination, parent=first)) == output(second)
    assert output(first) != output(second) == output(live)
    for kind in b"dflpscbh":
        assert b"\n%c " % kind in output(first)


@pytest.mark.root
def test_neither_nested_subvolumes_nor_their_stubs_count(source: Path) -> None:
    live = create_subvolume(source / "live")
    (live / "dir").mkdir()
    create_subvolume(live / "dir" / "nested")
    (live / "dir" / "nested" / "file").write_text("inside")
    taken = snapshot(live, source / "taken")
    assert (taken / "dir" / "nested").is_dir()
    assert output(taken) == output(live)
    assert b"nested" not in output(taken)
    assert b" ./file\n" in output(live / "dir" / "nested")


@pytest.mark.root
def test_properties_of_btrfs_do_not_count(source: Path) -> None:
    (source / "file").touch()
    before = output(source)
    btrfs("property", "set", source / "file", "compression", "lzo")
    assert os.listxattr(source / "file") == ["btrfs.compression"]
    assert output(source) == before
