"""The loop file systems and histories that other tests stand on."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import loopfs
from tests.support.history import HOSTILE_NAMES, History, make_history
from tests.support.loopfs import (
    CommandError,
    bound,
    btrfs,
    create_subvolume,
    default_subvolume,
    delete_subvolume,
    is_mounted,
    loop_device,
    loop_filesystem,
    mounted,
    send_and_receive,
    show_subvolume,
    snapshot,
    unmount,
)

pytestmark = pytest.mark.root


def test_everything_is_taken_down_when_the_body_raises(tmp_path: Path) -> None:
    image = tmp_path / "one.img"
    with pytest.raises(LookupError), ExitStack() as stack:  # noqa: PT012  the body is the point
        top = stack.enter_context(loop_filesystem(tmp_path, label="one")).mountpoint
        create_subvolume(top / "@")
        (top / "@/below").mkdir()
        stack.enter_context(mounted(image, tmp_path / "at", options=["subvol=@"]))
        stack.enter_context(mounted(image, top / "@/below"))
        stack.enter_context(bound(top / "@", tmp_path / "bind"))
        loopfs.run("mount", "--bind", top, top / "@/below")  # on top of another, left to the exit
        assert loop_device(image)
        raise LookupError
    assert os.listdir(tmp_path) == []
    assert os.fsencode(tmp_path) not in Path("/proc/self/mountinfo").read_bytes()
    assert os.fsencode(tmp_path) not in subprocess.check_output(["losetup", "--list"])


def test_unmounting_twice_is_no_error(tmp_path: Path) -> None:
    with loop_filesystem(tmp_path) as filesystem:
        unmount(filesystem.mountpoint)
        unmount(filesystem.mountpoint)


def test_a_mount_in_use_is_reported_and_goes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopfs, "LET_GO_SECONDS", 0.1)
    with ExitStack() as stack:
        with pytest.raises(CommandError, match="busy"), loop_filesystem(tmp_path) as filesystem:
            held = stack.enter_context((filesystem.mountpoint / "held").open("xb"))
        assert not held.closed
        assert os.listdir(tmp_path) == []


def test_a_mountpoint_with_blanks_and_bytes(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"a b\n\\040\xff")
    strange.mkdir()
    with bound(tmp_path, strange):
        assert is_mounted(strange)
    assert not is_mounted(strange)


def test_layouts_show_the_same_file_system(tmp_path: Path) -> None:
    with loop_filesystem(tmp_path) as filesystem:
        home = create_subvolume(filesystem.mountpoint / "@home")
        (home / "in").mkdir()
        (home / "in/file").touch()
        with mounted(filesystem.image, tmp_path / "sub", options=["subvol=@home"]) as sub:
            assert os.listdir(sub / "in") == ["file"]
            assert loop_device(filesystem.image) == str(filesystem.device)
        with bound(home / "in", tmp_path / "bind") as bind:
            assert os.listdir(bind) == ["file"]
        with default_subvolume(home), mounted(filesystem.image, tmp_path / "default") as default:
            assert os.listdir(default / "in") == ["file"]
        with mounted(filesystem.image, tmp_path / "top") as top:
            assert os.listdir(top) == ["@home"]


def test_subvolume_fields(tmp_path: Path) -> None:
    with loop_filesystem(tmp_path) as filesystem:
        live = create_subvolume(filesystem.mountpoint / "live")
        taken = snapshot(live, filesystem.mountpoint / os.fsdecode(b"\xff\nUUID: 1"))
        shown, original = show_subvolume(taken), show_subvolume(live)
        assert shown.parent_uuid == original.uuid
        assert (shown.read_only, original.read_only) == (True, False)
        assert (shown.received_uuid, original.parent_uuid) == (None, None)
        assert shown.effective_uuid == shown.uuid
        with pytest.raises(FileExistsError):
            snapshot(live, taken)
        delete_subvolume(taken)
        with pytest.raises(CommandError, match="No such file"):
            btrfs("subvolume", "show", taken)


def test_a_history_is_what_its_seed_says(tmp_path: Path) -> None:
    with loop_filesystem(tmp_path) as filesystem:
        first, again, other = (
            make_history(_directory(filesystem.mountpoint / name), seed=seed)
            for name, seed in (("first", 1), ("again", 1), ("other", 2))
        )
        assert _digests(first) == _digests(again)
        assert not set(_digests(first)) & set(_digests(other))
        assert len(set(_digests(first))) == len(first.snapshots)


def test_a_history_has_a_rollback_branch(tmp_path: Path) -> None:
    with loop_filesystem(tmp_path) as filesystem:
        history = make_history(filesystem.mountpoint, count=6)
        assert [made.earlier for made in history.snapshots] == [None, 0, 1, 2, 1, 4]
        assert [made.branch for made in history.snapshots] == [0, 0, 0, 0, 1, 1]
        shown = [show_subvolume(made.path) for made in history.snapshots]
        live = show_subvolume(history.live)
        assert all(fields.read_only for fields in shown)
        assert live.parent_uuid == shown[1].uuid
        assert [fields.parent_uuid == live.uuid for fields in shown] == [False] * 4 + [True] * 2


def test_a_history_can_be_received_elsewhere(tmp_path: Path) -> None:
    with (
        loop_filesystem(tmp_path, label="source") as source,
        loop_filesystem(tmp_path, label="destination") as destination,
    ):
        history = make_history(source.mountpoint, count=4)
        for made in history.snapshots:
            parent = None if made.earlier is None else history.snapshots[made.earlier].path
            received = send_and_receive(made.path, destination.mountpoint, parent=parent)
            assert _digest(received) == _digest(made.path)
            assert show_subvolume(received).received_uuid == show_subvolume(made.path).uuid
        names = os.listdir(os.fsencode(destination.mountpoint / "0000/hostile"))
        assert set(HOSTILE_NAMES) < set(names)
        with pytest.raises(CommandError, match="exists"):
            send_and_receive(history.snapshots[0].path, destination.mountpoint)


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _digests(history: History) -> list[str]:
    return [_digest(made.path) for made in history.snapshots]


def _digest(top: Path) -> str:
    """Names, kinds, sizes and content; enough to tell one snapshot of a history from another."""
    digest = hashlib.sha256()
    for directory, names, files in os.walk(os.fsencode(top)):
        names.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            where = os.path.relpath(path, os.fsencode(top))
            digest.update(b"%s %d %d " % (where, status.st_mode, status.st_rdev))
            digest.update(b"%d %d" % (status.st_size, status.st_nlink))
            if os.path.isfile(path) and not os.path.islink(path):
                digest.update(Path(os.fsdecode(path)).read_bytes())
    return digest.hexdigest()
