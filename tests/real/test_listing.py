"""Listing real btrfs, however it is mounted and whatever the names."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.command import buttersink, listing, paths
from tests.support.history import HOSTILE_NAMES
from tests.support.loopfs import (
    MIB,
    bound,
    btrfs,
    create_subvolume,
    default_subvolume,
    mounted,
    show_subvolume,
    snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root


@pytest.fixture
def layout(source: Path) -> Path:
    """A root file system as distributions lay it out: @ with data and a nested snapshot, @snaps."""
    live = create_subvolume(source / "@")
    (live / "data").write_bytes(os.urandom(MIB))
    (live / "deep").mkdir()
    create_subvolume(source / "@snaps")
    snapshot(live, source / "@snaps" / "one")
    (source / "@snaps" / "7").mkdir()
    snapshot(live, source / "@snaps" / "7" / "snapshot")
    snapshot(live, live / "deep" / "inner")
    snapshot(live, source / "@snaps" / "writable", read_only=False)
    (source / "@snaps" / "file").touch()
    return source


def test_top_level_shows_every_read_only_subvolume(layout: Path) -> None:
    assert paths(layout) == ["@/deep/inner", "@snaps/7/snapshot", "@snaps/one"]


def test_a_directory_shows_what_is_below_it(layout: Path) -> None:
    assert paths(layout / "@snaps") == ["7/snapshot", "one"]
    assert paths(layout / "@" / "deep") == ["inner"]
    assert paths(layout / "@snaps" / "7") == ["snapshot"]


def test_a_mounted_subvolume_shows_what_is_below_it(layout: Path, tmp_path: Path) -> None:
    assert layout
    with mounted(tmp_path / "source.img", tmp_path / "root", options=["subvol=@"]) as root:
        assert paths(root) == ["deep/inner"]
        assert paths(root / "deep") == ["inner"]
    with mounted(tmp_path / "source.img", tmp_path / "snaps", options=["subvol=@snaps"]) as snaps:
        assert paths(snaps) == ["7/snapshot", "one"]


def test_a_bind_mount_shows_what_is_below_it(layout: Path, tmp_path: Path) -> None:
    with bound(layout / "@" / "deep", tmp_path / "bind") as bind:
        assert paths(bind) == ["inner"]


def test_a_second_mount_shows_the_same(layout: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "source.img", tmp_path / "again") as again:
        assert listing(again)["snapshots"] == listing(layout)["snapshots"]


def test_a_changed_default_subvolume_changes_only_what_is_mounted(
    layout: Path, tmp_path: Path
) -> None:
    with default_subvolume(layout / "@snaps"):
        assert paths(layout / "@") == ["deep/inner"]
        with mounted(tmp_path / "source.img", tmp_path / "default") as default:
            assert paths(default) == ["7/snapshot", "one"]


def test_a_snapshot_alone_is_listed_alone(layout: Path) -> None:
    document = buttersink("--json", layout / "@snaps" / "one").document
    assert [each["path"] for each in document["snapshots"]] == ["one"]


def test_the_fields_are_those_of_btrfs_progs(layout: Path) -> None:
    (one,) = [s for s in listing(layout / "@snaps")["snapshots"] if s["path"] == "one"]
    shown = show_subvolume(layout / "@snaps" / "one")
    assert bytes.fromhex(one["uuid"].replace("-", "")) == shown.uuid
    assert bytes.fromhex(one["parent_uuid"].replace("-", "")) == shown.parent_uuid
    assert one["received_uuid"] is None
    assert one["generation"] <= shown.generation
    assert one["size"] is None
    assert one["exclusive"] is None


def test_hostile_names_are_listed_and_can_be_turned_back_into_bytes(source: Path) -> None:
    live = create_subvolume(source / "live")
    for name in HOSTILE_NAMES:
        snapshot(live, source / os.fsdecode(name))
    found = {path.encode("utf-8", "surrogateescape") for path in paths(source)}
    assert found == set(HOSTILE_NAMES)
    text = buttersink("-e", f"{source}/", environment={"LC_ALL": "C"}).out
    assert f"{len(HOSTILE_NAMES)} snapshots" in text
    assert r"new\nline" in text


def test_sizes_are_lengths_of_full_sends(layout: Path) -> None:
    document = buttersink("--json", f"{layout}/@snaps/").document
    send = ("btrfs", "send", "--quiet", "--proto", "2", "--compressed-data")
    sent = subprocess.check_output([*send, layout / "@snaps" / "one"])
    (size,) = [s["size"] for s in document["snapshots"] if s["path"] == "one"]
    assert size == len(sent)
    assert document["total_size"] == sum(s["size"] for s in document["snapshots"])


def test_sizes_are_those_of_quota_groups_where_they_are_on(layout: Path) -> None:
    btrfs("quota", "enable", layout)
    btrfs("quota", "rescan", "-w", layout)
    btrfs("filesystem", "sync", layout)
    (layout / "@" / "more").write_bytes(os.urandom(MIB))
    snapshot(layout / "@", layout / "@snaps" / "two")
    (layout / "@" / "more").unlink()
    btrfs("filesystem", "sync", layout)
    (two,) = [s for s in listing(layout / "@snaps")["snapshots"] if s["path"] == "two"]
    assert two["size"] > 2 * MIB
    assert MIB <= two["exclusive"] < 2 * MIB


def test_listing_never_turns_quotas_on(layout: Path) -> None:
    buttersink(f"{layout}/")
    shown = subprocess.run(
        ["btrfs", "qgroup", "show", layout], capture_output=True, check=False, text=True
    )
    assert "quotas not enabled" in shown.stderr


def test_simple_quotas_are_not_believed(make_filesystem: MakeFilesystem) -> None:
    filesystem = make_filesystem("simple").mountpoint
    live = create_subvolume(filesystem / "live")
    (live / "data").write_bytes(os.urandom(MIB))
    snapshot(live, filesystem / "one")
    fd = os.open(filesystem, os.O_RDONLY)
    try:  # BTRFS_IOC_QUOTA_CTL with BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA, linux/btrfs.h
        fcntl.ioctl(fd, 0xC0109428, struct.pack("=QQ", 4, 0))
    finally:
        os.close(fd)
    btrfs("filesystem", "sync", filesystem)
    assert listing(filesystem)["snapshots"][0]["size"] is None


def test_a_snapshot_received_with_its_uuid_is_known_by_it(source: Path, destination: Path) -> None:
    live = create_subvolume(source / "live")
    snapshot(live, source / "one")
    buttersink(f"{source}/", destination)
    (here,), (there,) = listing(source)["snapshots"], listing(destination)["snapshots"]
    assert there["uuid"] == there["received_uuid"] == here["uuid"]
    assert there["generation"] == here["generation"]


def test_two_subvolumes_with_one_effective_uuid_are_both_listed(
    source: Path, destination: Path
) -> None:
    live = create_subvolume(source / "live")
    snapshot(live, source / "one")
    buttersink(f"{source}/", destination)
    snapshot(destination / "one", destination / "copy")
    assert paths(destination) == ["copy", "one"]
    assert "note:" in buttersink(f"{destination}/").err


def test_an_empty_directory_lists_nothing(source: Path) -> None:
    done = buttersink(f"{source}/")
    assert done.out.startswith("0 snapshots") or "no snapshots" in done.out.lower()
