"""What changes a tree's lines and what must not, on real files of whatever file system /tmp has."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.errors import Error, LocationError
from buttersink.utilities.checksumdir import entries, escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WHEN = 1_234_567_890_123_456_789

pytestmark = pytest.mark.root  # devices, owners, trusted attributes


def lines(top: Path) -> list[bytes]:
    found = list(entries(bytes(top)))
    assert not [line for line in found if isinstance(line, Error)]
    return [line for line in found if isinstance(line, bytes)]


def errors(top: Path) -> list[Error]:
    return [line for line in entries(bytes(top)) if isinstance(line, Error)]


def paths(top: Path) -> list[bytes]:
    return [line.rstrip(b"\n").split(b" ", 7)[7] for line in lines(top)]


def settle(top: Path) -> Path:
    """Give every entry the same time, so that a test's own traces do not count."""
    for path in (top, *top.rglob("*")):
        os.utime(path, ns=(WHEN, WHEN), follow_symlinks=False)
    return top


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def cut(path: Path) -> None:
    """Make a hard link a file of its own, with all that the other has."""
    data = path.read_bytes()
    replace(path, lambda path: path.write_bytes(data))
    os.setxattr(path, "user.a", b"bc")


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def tree(tmp_path: Path, usual_umask: None) -> Path:  # noqa: ARG001
    top = tmp_path / "tree"
    top.mkdir(0o755)
    (top / "file").write_bytes(b"data")
    (top / "twin").hardlink_to(top / "file")
    (top / "dir").mkdir(0o755)
    (top / "dir" / "empty").touch(0o644)
    (top / "link").symlink_to("target")
    os.mkfifo(top / "fifo", 0o644)
    os.mknod(top / "char", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "block", 0o644 | stat.S_IFBLK, os.makedev(7, 300))
    listen(top / "socket")
    os.setxattr(top / "file", "user.a", b"bc")
    os.setxattr(top / "dir", "trusted.d", b"")
    os.setxattr(top / "link", "trusted.l", b"l", follow_symlinks=False)
    return settle(top)


CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
ACL = struct.pack(
    "<I" + "HHI" * 5,
    2,
    *(1, 6, 0xFFFFFFFF),
    *(2, 4, 1234),
    *(4, 4, 0xFFFFFFFF),
    *(16, 4, 0xFFFFFFFF),
    *(32, 4, 0xFFFFFFFF),
)


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "data": ("file", lambda path: path.write_bytes(b"dat4")),
    "size": ("dir/empty", lambda path: os.truncate(path, 1)),
    "mode of a file": ("dir/empty", lambda path: path.chmod(0o645)),
    "set-user-id": ("dir/empty", lambda path: path.chmod(0o4644)),
    "sticky": ("dir", lambda path: path.chmod(0o1755)),
    "mode of a fifo": ("fifo", lambda path: path.chmod(0o600)),
    "owner": ("dir/empty", lambda path: os.chown(path, 1, -1)),
    "group": ("dir/empty", lambda path: os.chown(path, -1, 2)),
    "owner of a link": ("link", lambda path: os.lchown(path, 1, 2)),
    "target": ("link", lambda path: replace(path, lambda path: path.symlink_to("tarbet"))),
    "fifo to socket": ("fifo", lambda path: replace(path, listen)),
    "fifo to file": ("fifo", lambda path: replace(path, lambda path: path.touch(0o644))),
    "minor": ("char", lambda path: replace(path, lambda path: device(path, stat.S_IFCHR, 1, 4))),
    "major": ("char", lambda path: replace(path, lambda path: device(path, stat.S_IFCHR, 2, 3))),
    "kind": ("char", lambda path: replace(path, lambda path: device(path, stat.S_IFBLK, 1, 3))),
    "user xattr": ("dir/empty", lambda path: os.setxattr(path, "user.new", b"")),
    "trusted xattr": ("dir/empty", lambda path: os.setxattr(path, "trusted.new", b"")),
    "capability": ("dir/empty", lambda path: os.setxattr(path, "security.capability", CAPABILITY)),
    "ACL": ("dir/empty", lambda path: os.setxattr(path, "system.posix_acl_access", ACL)),
    "default ACL": ("dir", lambda path: os.setxattr(path, "system.posix_acl_default", ACL)),
    "xattr's value": ("file", lambda path: os.setxattr(path, "user.a", b"bd")),
    "xattr's end": ("file", lambda path: rename_attribute(path, "user.a", "user.ab", b"c")),
    "xattr gone": ("file", lambda path: os.removexattr(path, "user.a")),
    "empty xattr gone": ("dir", lambda path: os.removexattr(path, "trusted.d")),
    "xattr of a link": (
        "link",
        lambda path: os.removexattr(path, "trusted.l", follow_symlinks=False),
    ),
    "file gone": ("dir/empty", lambda path: path.unlink()),
    "empty directory": ("new", lambda path: path.mkdir()),
    "hard link cut": ("twin", cut),
    "hard link more": ("other", lambda path: path.hardlink_to(path.with_name("link"))),
    "mode of the top": (".", lambda path: path.chmod(0o700)),
    "owner of the top": (".", lambda path: os.chown(path, 5, 6)),
    "xattr of the top": (".", lambda path: os.setxattr(path, "user.top", b"")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_shows_on_its_own_line(tree: Path, change: str) -> None:
    path, make = CHANGES[change]
    before = lines(tree)
    make(tree / path)
    differing = {unlinked(line) for line in {*before} ^ {*lines(settle(tree))}}
    assert differing == {os.path.normpath(path).encode()}


def unlinked(line: bytes) -> bytes:
    """Return the path of a line from the top, without a target."""
    return os.path.normpath(line.rstrip(b"\n").split(b" ", 7)[7].split(b" -> ")[0])


def test_a_new_name_shows_beside_the_old(tree: Path) -> None:
    before = lines(tree)
    (tree / "dir" / "empty").rename(tree / "dir" / "void")
    differing = {unlinked(line) for line in {*before} ^ {*lines(settle(tree))}}
    assert differing == {b"dir/empty", b"dir/void"}


def device(path: Path, kind: int, major: int, minor: int) -> None:
    os.mknod(path, 0o644 | kind, os.makedev(major, minor))


def rename_attribute(path: Path, old: str, new: str, value: bytes) -> None:
    os.removexattr(path, old)
    os.setxattr(path, new, value)


@pytest.mark.parametrize(
    "path", ["dir/empty", "file", "dir", "link", "fifo", "char", "block", "socket"]
)
def test_a_nanosecond_shows(tree: Path, path: str) -> None:
    before = set(lines(tree))
    os.utime(tree / path, ns=(WHEN, WHEN + 1), follow_symlinks=False)
    assert len(before ^ set(lines(tree))) == 2


@pytest.mark.parametrize("nanoseconds", [0, -1, -500_000_000, 4_102_444_800_999_999_999])
def test_times_are_exact_whatever_the_century(tmp_path: Path, nanoseconds: int) -> None:
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", ns=(0, nanoseconds))
    seconds, _, fraction = lines(tmp_path)[1].split()[4].partition(b".")
    assert int(seconds) * 10**9 + int(fraction) == nanoseconds


def outside_name(top: Path) -> None:
    (top.parent / "outside").hardlink_to(top / "dir" / "empty")


def grow_directory(top: Path) -> None:
    """Leave the directory larger than its entries need, as ext4 does."""
    for number in range(2000):
        (top / "dir" / f"{number:0200}").touch()
    for number in range(2000):
        (top / "dir" / f"{number:0200}").unlink()
    settle(top)


IRRELEVANT: dict[str, Callable[[Path], object]] = {
    "atime": lambda top: os.utime(top / "file", ns=(0, WHEN)),
    "mtime of the top": lambda top: os.utime(top, ns=(0, 0)),
    "ctime": lambda top: (top / "file").chmod(stat.S_IMODE((top / "file").stat().st_mode)),
    "a name outside": outside_name,
    "size of a directory": grow_directory,
}


@pytest.mark.parametrize("change", IRRELEVANT)
def test_what_does_not_matter_does_not_show(tree: Path, change: str) -> None:
    before = lines(tree)
    IRRELEVANT[change](tree)
    assert lines(tree) == before


def test_reading_leaves_access_times_alone(tree: Path) -> None:
    os.utime(tree / "file", ns=(5, WHEN))
    os.utime(tree / "dir", ns=(5, WHEN))
    lines(tree)
    assert (tree / "file").stat().st_atime_ns == (tree / "dir").stat().st_atime_ns == 5


def test_neither_name_nor_order_of_making_nor_inode_numbers_matter(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(300)]
    for top, order in (("a", names), ("a very different name", names[::-1])):
        (tmp_path / top).mkdir()
        for name in order:
            (tmp_path / top / name).write_text(name)
        settle(tmp_path / top)
    assert lines(tmp_path / "a") == lines(tmp_path / "a very different name")


def test_holes_are_zeros(tmp_path: Path) -> None:
    size = 5 << 20
    for top in ("sparse", "full"):
        (tmp_path / top).mkdir()
    (tmp_path / "full" / "file").write_bytes(bytes(size))
    with (tmp_path / "sparse" / "file").open("wb") as file:
        file.truncate(size)
    assert lines(settle(tmp_path / "sparse")) == lines(settle(tmp_path / "full"))


def test_hard_links_name_the_first_in_order(tmp_path: Path) -> None:
    for name in ("b", "a/c", "a.x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "b").write_text("x")
    (tmp_path / "a" / "c").hardlink_to(tmp_path / "b")
    (tmp_path / "a.x").hardlink_to(tmp_path / "b")
    found = lines(tmp_path)
    assert found[2].startswith(b"f 0644 ")
    assert found[3:] == [b"h - - - - - - ./a/c -> ./a.x\n", b"h - - - - - - ./b -> ./a.x\n"]


HOSTILE = [
    b"plain",
    b"with space",
    b" -> arrow",
    b"tail ->",
    b"new\nline",
    b"tab\tbell\x07",
    b"back\\slash",
    b"\\x41",
    b"A",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "ünïcödé".encode(),
    "\u202e\u2028\x85".encode(),
    b"-n",
    b"*",
    b"n" * 255,
    b"\xff" * 255,
]


def unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\x(..)", lambda found: bytes([int(found[1], 16)]), text)


def test_hostile_names_come_back_from_their_lines(tmp_path: Path) -> None:
    for name in HOSTILE:
        with open(os.path.join(bytes(tmp_path), name), "wb") as file:
            file.write(name)
    assert [unescaped(path) for path in paths(tmp_path)] == [
        b".",
        *(b"./" + name for name in sorted(HOSTILE)),
    ]


def test_hostile_targets_come_back_from_their_lines(tmp_path: Path) -> None:
    for name in HOSTILE:
        os.symlink(name, os.path.join(bytes(tmp_path), name))
    for line in paths(tmp_path)[1:]:
        path, target = (unescaped(part) for part in line.split(b" -> ", 1))
        assert path == b"./" + target


@given(st.binary())
def test_any_path_is_one_line_and_comes_back(path: bytes) -> None:
    text = escaped(path)
    assert len(text.splitlines()) <= 1
    assert " ->" not in text
    assert unescaped(text.encode()) == path


def test_text_that_needs_no_escape_has_none() -> None:
    assert escaped("größe 日本 €.txt".encode()) == "größe 日本 €.txt"


def test_the_order_is_that_of_the_whole_paths_bytes(tmp_path: Path) -> None:
    for name in ("a/z", "a b/y", "a.c/x", "a0/w", "a-/v/u"):
        (tmp_path / name).mkdir(parents=True)
    found = paths(tmp_path)
    assert len(found) == 12
    assert found == sorted(found)


def test_a_tree_deeper_than_path_max_and_any_recursion(tmp_path: Path) -> None:
    depth = 1300
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(b"deep", dir_fd=at)
        inner = os.open(b"deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.symlink(b"target", b"link", dir_fd=at)
    with open(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=at), "wb") as file:
        os.setxattr(file.fileno(), "user.deep", b"down")
        file.write(b"here")
    os.close(at)
    descriptors = os.listdir("/proc/self/fd")
    try:
        found = lines(tmp_path)
        assert len(found) == depth + 3
        assert found[-2].endswith(b"/deep/file\n")
        assert b" 4 " in found[-2]
        assert b" - - ./" not in found[-2]
        assert found[-1].endswith(b"/deep/link -> target\n")
        assert os.listdir("/proc/self/fd") == descriptors
    finally:
        remove_deep(tmp_path)


def remove_deep(top: Path) -> None:
    """Take a tree apart from its top: shutil would recurse, and no path reaches its bottom."""
    while (top / "deep").exists():
        (top / "deep").rename(top / "old")
        for child in (top / "old").iterdir():
            child.rename(top / child.name)
        (top / "old").rmdir()


def test_the_lines_are_these_on_every_machine(tree: Path) -> None:
    assert b"".join(lines(tree)) == (
        b"d 0755 0:0 - - - - .\n"
        b"b 0644 0:0 - 1234567890.123456789 7:300 - ./block\n"
        b"c 0644 0:0 - 1234567890.123456789 1:3 - ./char\n"
        b"d 0755 0:0 - 1234567890.123456789 -"
        b" 7b91fef266a8069505dc32ae04c971ab6f139954b676deabc3578942eec6a31c ./dir\n"
        b"f 0644 0:0 0 1234567890.123456789"
        b" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 - ./dir/empty\n"
        b"p 0644 0:0 - 1234567890.123456789 - - ./fifo\n"
        b"f 0644 0:0 4 1234567890.123456789"
        b" 3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
        b" dbbc3bfdcac851d04a61435e6a63cd69999a5db645ab79ce65edb9f613f8836d ./file\n"
        b"l 0777 0:0 - 1234567890.123456789 -"
        b" 41fe4ccbff6c9f4bcb5fc7a01f5631ff2e8832aa41a157d78dece7b4b6070567 ./link -> target\n"
        b"s 0755 0:0 - 1234567890.123456789 - - ./socket\n"
        b"h - - - - - - ./twin -> ./file\n"
    )


def test_a_file_system_without_attributes_has_none(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[str]:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "listxattr", refuse)
    assert {line.split()[6] for line in lines(tree)} == {b"-"}


def test_large_files_are_read_whole(tmp_path: Path) -> None:
    data = os.urandom((3 << 20) + 17)
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "chunk").write_bytes(data[: 1 << 20])
    digests = [line.split()[5] for line in lines(tmp_path)[1:]]
    assert digests == [
        hashlib.sha256(part).hexdigest().encode() for part in (data[: 1 << 20], data)
    ]


def test_a_file_that_vanishes_is_an_error_and_the_rest_is_digested(tmp_path: Path) -> None:
    count = 5000
    for number in range(count):
        (tmp_path / f"{number:04}").touch()
    found = entries(bytes(tmp_path))
    first = next(found)
    (tmp_path / "4999").unlink()
    rest = list(found)
    assert isinstance(first, bytes)
    assert len(rest) == count
    assert str(rest[-1]) == f"cannot read: {tmp_path}/4999: No such file or directory"


def test_a_file_that_changes_while_it_is_read_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.readv

    def write_too(descriptor: int, buffers: list[memoryview]) -> int:
        os.truncate(tree / "file", 3)
        return read(descriptor, buffers)

    monkeypatch.setattr(os, "readv", write_too)
    (error,) = errors(tree)
    assert str(error) == (
        f"cannot digest: {tree}/file: it changed while it was read."
        " Digest a read-only snapshot instead"
    )


def test_closing_the_lines_early_ends_the_readers(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}").touch()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    descriptors = os.listdir("/proc/self/fd")
    found = entries(bytes(tmp_path))
    next(found)
    found.close()
    (tmp_path / "huge").unlink()  # what pytest keeps should not take an hour to read
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("name", ["missing", "file", "dangling"])
def test_a_top_that_is_no_directory_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(LocationError, match=name):
        lines(tmp_path / name)


def test_a_top_named_by_a_link_is_followed(tree: Path) -> None:
    shortcut = tree.with_name("shortcut")
    shortcut.symlink_to(tree)
    assert lines(shortcut) == lines(tree)
