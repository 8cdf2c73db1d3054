"""
Real btrfs file systems in sparse files, mounted for as long as a `with` block lasts.

`loop_filesystem` makes one and mounts its top; `mounted`, `bound` and `default_subvolume` show the
same file system in the layouts that users have. What is mounted is unmounted when its block ends,
however it ends, and the loop device goes with the last mount. Root is needed. Subvolumes are made
and looked at through btrfs-progs, so that tests compare ButterSink with something that is not it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from buttersink.catalogue import Uuid, uuid_from_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Argument = str | bytes | Path

MIB = 1 << 20
LET_GO_SECONDS = 5.0  # how long a process that was just ended may still hold a mount


class CommandError(Exception):
    """A program ended with a status that is not 0; the text is its command line and its stderr."""

    def __init__(self, arguments: Sequence[Argument], status: int, stderr: str) -> None:
        """Keep what a test may want to look at."""
        line = " ".join(os.fsdecode(argument) for argument in arguments)
        super().__init__(f"{line}: status {status}: {stderr.strip()}")
        self.status = status
        self.stderr = stderr


def run(*arguments: Argument) -> str:
    """Run a program and return its stdout, with bytes that are not UTF-8 escaped as in paths."""
    done = subprocess.run(arguments, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise CommandError(arguments, done.returncode, os.fsdecode(done.stderr))
    return os.fsdecode(done.stdout)


def btrfs(*arguments: Argument) -> str:
    """Run `btrfs` with these arguments and return its stdout."""
    return run("btrfs", *arguments)


@dataclass(frozen=True, slots=True)
class LoopFilesystem:
    """
    A btrfs in a file.

    Attributes:
        image: The sparse file.
        device: The loop device, while anything of it is mounted.
        mountpoint: Where its top (subvolume 5) is mounted.

    """

    image: Path
    device: Path
    mountpoint: Path


@contextmanager
def loop_filesystem(
    directory: Path,
    *,
    size_bytes: int = 1024 * MIB,
    label: str = "btrfs",
    mkfs: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[LoopFilesystem]:
    """
    Make a btrfs in `directory`/`label`.img, mount it at `directory`/`label`, and remove both after.

    `mkfs` are more arguments for `mkfs.btrfs`, which wants 114,294,784 bytes at least unless they
    say `--mixed`; `options` are mount options.
    """
    image = directory / f"{label}.img"
    with image.open("xb") as sparse:
        sparse.truncate(size_bytes)
    try:
        run("mkfs.btrfs", "--quiet", "--label", label, *mkfs, image)
        with mounted(image, directory / label, options=options) as mountpoint:
            yield LoopFilesystem(image, Path(loop_device(image)), mountpoint)
    finally:
        _wait_until_detached(image)
        image.unlink(missing_ok=True)


@contextmanager
def mounted(image: Path, mountpoint: Path, *, options: Sequence[str] = ()) -> Iterator[Path]:
    """
    Mount the btrfs in `image` at a directory made for it, as often as wanted at the same time.

    Mounts share one loop device. Options such as `subvol=@` or `compress=zstd` choose the layout.
    """
    with _directory(mountpoint), _unmounting(mountpoint):
        run("mount", "-t", "btrfs", "-o", ",".join(("loop", *options)), image, mountpoint)
        yield mountpoint


@contextmanager
def bound(source: Path, mountpoint: Path) -> Iterator[Path]:
    """
    Make the directory `source` appear at a directory made for it, as `mount --bind` does.

    What is mounted over it is not over `source`, too, also while another host shares the mounts.
    """
    with _directory(mountpoint), _unmounting(mountpoint):
        run("mount", "--bind", "--make-private", source, mountpoint)
        yield mountpoint


@contextmanager
def tmpfs(mountpoint: Path) -> Iterator[None]:
    """Mount a file system in memory over an existing directory."""
    run("mount", "-t", "tmpfs", "none", mountpoint)
    with _unmounting(mountpoint):
        yield


@contextmanager
def default_subvolume(subvolume: Path) -> Iterator[None]:
    """Let mounts that name no subvolume show this one instead of the top."""
    filesystem_top = 5
    identity = show_subvolume(subvolume).subvolume_id
    btrfs("subvolume", "set-default", str(identity), subvolume)
    try:
        yield
    finally:
        btrfs("subvolume", "set-default", str(filesystem_top), subvolume)


@contextmanager
def _directory(path: Path) -> Iterator[None]:
    """Have a directory for the block; one that was there before stays."""
    existed = path.is_dir()
    path.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if not existed:
            with suppress(FileNotFoundError):
                path.rmdir()


@contextmanager
def _unmounting(mountpoint: Path) -> Iterator[None]:
    """After the block unmount what is at and below `mountpoint`, which is not mounted before it."""
    try:
        yield
    finally:
        unmount(mountpoint)


def unmount(mountpoint: Path) -> None:
    """
    Unmount everything at and below a directory, the last mounted first; nothing there is no error.

    A mount that stays in use is hidden all the same, and then the error is raised.
    """
    deadline = time.monotonic() + LET_GO_SECONDS
    while is_mounted(mountpoint):
        try:
            run("umount", "--recursive", mountpoint)
        except CommandError:
            if time.monotonic() > deadline:
                run("umount", "--recursive", "--lazy", mountpoint)
                raise
            time.sleep(0.02)


def is_mounted(directory: Path) -> bool:
    """Tell whether something is mounted there, a bind from the same file system too."""
    where = os.path.realpath(os.fsencode(directory))
    with open("/proc/self/mountinfo", "rb") as table:
        return any(_unescaped(line.split(b" ")[4]) == where for line in table)


def _unescaped(field: bytes) -> bytes:
    """Return a field of mountinfo as it is: blanks, newlines and backslashes are octal there."""
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field)


def _wait_until_detached(image: Path) -> None:
    """Return when no loop device holds the image; the kernel lets go a moment after umount."""
    deadline = time.monotonic() + LET_GO_SECONDS
    while device := loop_device(image):
        if time.monotonic() > deadline:
            run("losetup", "--detach", device)
            return
        time.sleep(0.01)


def loop_device(image: Path) -> str:
    """Return the loop device of an image, empty if it has none."""
    return run("losetup", "--noheadings", "--output", "NAME", "--associated", image).strip()


@dataclass(frozen=True, slots=True)
class ShownSubvolume:
    """What `btrfs subvolume show` says; the absent UUIDs are None, absent numbers 0."""

    subvolume_id: int
    uuid: Uuid
    parent_uuid: Uuid | None
    received_uuid: Uuid | None
    generation: int
    send_transid: int
    receive_transid: int
    read_only: bool

    @property
    def effective_uuid(self) -> Uuid:
        """The UUID by which a send stream names it."""
        return self.received_uuid or self.uuid


def show_subvolume(path: Path) -> ShownSubvolume:
    """Return the fields of the subvolume at `path`."""
    lines = btrfs("subvolume", "show", path).splitlines()
    fields = dict[str, str]()
    for line in lines:
        key, separator, value = line.strip().partition(":")
        if separator and line.startswith("\t"):
            fields.setdefault(key, value.strip())
    return ShownSubvolume(
        subvolume_id=int(fields["Subvolume ID"]),
        uuid=uuid_from_text(fields["UUID"]),
        parent_uuid=_uuid_or_none(fields["Parent UUID"]),
        received_uuid=_uuid_or_none(fields["Received UUID"]),
        generation=int(fields["Generation"]),
        send_transid=int(fields["Send transid"]),
        receive_transid=int(fields["Receive transid"]),
        read_only="readonly" in fields["Flags"],
    )


def _uuid_or_none(text: str) -> Uuid | None:
    return None if text == "-" else uuid_from_text(text)


def create_subvolume(path: Path) -> Path:
    """Make an empty writable subvolume and return its path."""
    btrfs("subvolume", "create", path)
    return path


def snapshot(source: Path, path: Path, *, read_only: bool = True) -> Path:
    """Make a snapshot of `source` at `path`, where nothing may be yet, and return its path."""
    if os.path.lexists(path):  # btrfs would put it inside
        raise FileExistsError(path)
    btrfs("subvolume", "snapshot", *(("-r",) if read_only else ()), source, path)
    return path


def delete_subvolume(path: Path) -> None:
    """Delete a subvolume, read-only or not."""
    btrfs("subvolume", "delete", path)


def sync_filesystem(path: Path) -> None:
    """Return when all that was written to the btrfs at `path` is on its device."""
    btrfs("filesystem", "sync", path)


def send_and_receive(snapshot: Path, directory: Path, *, parent: Path | None = None) -> Path:
    """Bring a snapshot into a directory of another btrfs with btrfs-progs; return its path."""
    based_on = () if parent is None else ("-p", parent)
    sending = ("btrfs", "send", "--quiet", *based_on, snapshot)
    receiving = ("btrfs", "receive", "--quiet", directory)
    with subprocess.Popen(sending, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
        received = subprocess.run(receiving, stdin=sender.stdout, capture_output=True, check=False)
        if sender.stdout:
            sender.stdout.close()
        complaint = sender.stderr.read() if sender.stderr else b""
    if sender.returncode not in (0, -signal.SIGPIPE):  # the receiver's end is not its fault
        raise CommandError(sending, sender.returncode, os.fsdecode(complaint))
    if received.returncode:
        raise CommandError(receiving, received.returncode, os.fsdecode(received.stderr))
    return directory / snapshot.name
