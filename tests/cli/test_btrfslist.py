"""The command as a process: its fields are those of btrfs-progs, its paths lead where they say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from buttersink.catalogue import uuid_from_text
from tests.support.command import run_raw
from tests.support.history import HOSTILE_NAMES
from tests.support.loopfs import (
    MIB,
    ShownSubvolume,
    bound,
    btrfs,
    create_subvolume,
    default_subvolume,
    delete_subvolume,
    mounted,
    run,
    send_and_receive,
    show_subvolume,
    snapshot,
    sync_filesystem,
    tmpfs,
    unmount,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.conftest import MakeFilesystem

COMMAND = (sys.executable, "-m", "buttersink.utilities.btrfslist")
KEYS = [
    "id", "path", "level", "generation", "size", "exclusive", "read_only", "own_uuid",
    "parent_uuid", "received_uuid", "mounts",
]  # fmt: skip
TOP_LEVEL = 5

needs_root = pytest.mark.root


def btrfslist(
    *arguments: str | bytes | Path,
    status: int = 0,
    under: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    working_in: Path | None = None,
) -> tuple[str, str]:
    """Run the command, `under` another if wanted; return its output and what it complained of."""
    command = [*under, *COMMAND, *arguments]
    done = run_raw(command, environment=environment, working_in=working_in)
    assert done.returncode == status, done
    return done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode()


def document(directory: Path) -> Any:  # noqa: ANN401  JSON
    out, complaints = btrfslist("--json", directory)
    assert not complaints
    return json.loads(out)


def subvolumes(directory: Path) -> dict[str, Any]:
    """Return the fields of each subvolume, by its path."""
    sync_filesystem(directory)
    return {each["path"]: each for each in document(directory)["subvolumes"]}


def mounts(directory: Path) -> dict[str, list[str]]:
    return {path: each["mounts"] for path, each in subvolumes(directory).items()}


def assert_paths_lead_there(found: dict[str, Any]) -> None:
    """Fail unless the kernel finds each subvolume at each of its paths."""
    for each in found.values():
        for path in each["mounts"]:
            assert btrfs("inspect-internal", "rootid", path).strip() == str(each["id"])
            assert os.stat(path).st_ino == 256


@pytest.fixture
def layout(source: Path) -> Path:
    """A file system as distributions lay it out: @ with a nested subvolume, and @snaps."""
    live = create_subvolume(source / "@")
    (live / "data").write_bytes(os.urandom(MIB))
    (live / "deep").mkdir()
    create_subvolume(live / "deep" / "inner")
    create_subvolume(source / "@snaps")
    snapshot(live, source / "@snaps" / "one")
    snapshot(live, source / "@snaps" / "writable", read_only=False)
    return source


# The fields


def shown(fields: Mapping[str, Any]) -> ShownSubvolume:
    """Return what is listed in the words of `btrfs subvolume show`, what is not listed as 0."""
    uuids = (fields["own_uuid"], fields["parent_uuid"], fields["received_uuid"])
    own, parent, received = (text and uuid_from_text(text) for text in uuids)
    assert own is not None
    return ShownSubvolume(
        fields["id"], own, parent, received, fields["generation"], 0, 0, fields["read_only"]
    )


@needs_root
def test_the_fields_are_those_of_subvolume_show(layout: Path) -> None:
    found = subvolumes(layout)
    assert list(found) == ["", "@", "@/deep/inner", "@snaps", "@snaps/one", "@snaps/writable"]
    for path, fields in found.items():
        assert list(fields) == KEYS
        expected = show_subvolume(layout / path)
        assert shown(fields) == expected
    assert {path for path, fields in found.items() if fields["read_only"]} == {"@snaps/one"}
    assert found["@snaps/one"]["parent_uuid"] == found["@"]["own_uuid"]


@needs_root
def test_the_subvolumes_are_those_of_subvolume_list(layout: Path) -> None:
    found = subvolumes(layout)
    line = re.compile(r"ID (\d+) gen (\d+) parent \d+ top level \d+ path (.*)")
    listed = btrfs("subvolume", "list", "-p", layout).splitlines()
    expected = [match.groups() for text in listed if (match := line.fullmatch(text))]
    assert len(expected) == len(listed)
    assert sorted(expected) == sorted(
        (str(each["id"]), str(each["generation"]), path) for path, each in found.items() if path
    )


@needs_root
def test_a_received_one_has_its_received_uuid(layout: Path, destination: Path) -> None:
    received = send_and_receive(layout / "@snaps" / "one", destination)
    fields = subvolumes(destination)["one"]
    assert fields["received_uuid"] == subvolumes(layout)["@snaps/one"]["own_uuid"]
    assert fields["own_uuid"] != fields["received_uuid"]
    assert shown(fields).effective_uuid == show_subvolume(received).effective_uuid
    assert shown(fields).read_only


@needs_root
def test_the_level_is_the_height_of_the_tree(make_filesystem: MakeFilesystem) -> None:
    filesystem = make_filesystem("filled")
    top = filesystem.mountpoint
    for number in range(1000):
        (top / f"{number:0200}").touch()
    create_subvolume(top / "empty")
    sync_filesystem(top)
    dump = btrfs("inspect-internal", "dump-tree", "--tree", "root", filesystem.device)
    for path, fields in subvolumes(top).items():
        item = dump[dump.index(f"key ({fields['id'] if path else 'FS_TREE'} ROOT_ITEM ") :]
        level = re.search(r"\blevel (\d+)", item)
        assert level
        assert fields["level"] == int(level[1])
    assert [each["level"] for each in subvolumes(top).values()] == [1, 0]


@needs_root
def test_the_file_system_is_named(layout: Path) -> None:
    found = document(layout / "@" / "deep")
    assert list(found) == ["buttersink", "directory", "filesystem", "subvolumes"]
    assert found["buttersink"] == version("buttersink")
    assert found["directory"] == f"{layout}/@/deep"
    assert f"uuid: {found['filesystem']}" in btrfs("filesystem", "show", layout)
    assert found["subvolumes"] == document(layout)["subvolumes"]


@needs_root
def test_a_top_level_can_be_read_only(source: Path) -> None:
    btrfs("property", "set", source, "ro", "true")
    assert document(source)["subvolumes"][0]["read_only"]


@needs_root
def test_a_deleted_one_is_not_shown(layout: Path) -> None:
    with (layout / "@snaps" / "writable" / "data").open("rb"):  # not cleaned up while it is open
        delete_subvolume(layout / "@snaps" / "writable")
        assert "@snaps/writable" not in subvolumes(layout)
        assert len(subvolumes(layout)) == 5


@needs_root
def test_five_levels_of_nesting(source: Path, tmp_path: Path) -> None:
    inside, path = source, ""
    expected = [""]
    for name in "abcde":
        inside, path = create_subvolume(inside / name), f"{path}/{name}".lstrip("/")
        expected.append(path)
        inside, path = inside / "directory", f"{path}/directory"
        inside.mkdir()
    with mounted(tmp_path / "source.img", tmp_path / "c", options=[f"subvol={expected[3]}"]):
        found = subvolumes(source)
        assert list(found) == expected
        assert_paths_lead_there(found)
        assert found[expected[2]]["mounts"] == [f"{source}/{expected[2]}"]
        assert found[expected[5]]["mounts"] == [
            f"{tmp_path}/c/directory/d/directory/e",
            f"{source}/{expected[5]}",
        ]


@needs_root
def test_hostile_names_come_back_from_json_and_are_one_line_of_text(
    source: Path, tmp_path: Path
) -> None:
    for name in HOSTILE_NAMES:
        create_subvolume(source / os.fsdecode(name))
    found = document(source)["subvolumes"]
    names = [each["path"].encode("utf-8", "surrogateescape") for each in found]
    assert names == sorted([b"", *HOSTILE_NAMES])
    for each in found[1:]:
        assert each["mounts"] == [f"{source}/{each['path']}"]
    for settings in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C.UTF-8"}):
        out = btrfslist(source, environment=settings)[0]
        assert len(out.split("\n")) == len(HOSTILE_NAMES) + 3
        assert "\x1b" not in out
        assert r"new\nline" in out
    point, quoted = tmp_path / "here \\ \n\t#\udcff", "quote'\"`$(id)\\"
    number = show_subvolume(source / quoted).subvolume_id
    with mounted(tmp_path / "source.img", point, options=[f"subvolid={number}"]):
        assert str(point) in mounts(point)[quoted]
    with bound(source / "new\nline", tmp_path / "bind"):
        assert f"{tmp_path}/bind" in mounts(source)["new\nline"]


# Sizes


@needs_root
def test_sizes_are_those_of_quota_groups_where_they_are_on(layout: Path) -> None:
    assert {each["size"] for each in subvolumes(layout).values()} == {None}
    assert {each["exclusive"] for each in subvolumes(layout).values()} == {None}
    complaint = subprocess.run(
        ["btrfs", "qgroup", "show", layout], capture_output=True, check=False
    ).stderr
    assert b"quotas not enabled" in complaint  # looking did not turn them on
    btrfs("quota", "enable", layout)
    btrfs("quota", "rescan", "-w", layout)
    (layout / "@" / "more").write_bytes(os.urandom(MIB))
    found = subvolumes(layout)
    groups = btrfs("qgroup", "show", "--raw", layout)
    for each in found.values():
        group = rf"^0/{each['id']} +{each['size']} +{each['exclusive']}\b"
        assert re.search(group, groups, re.MULTILINE)
    assert found["@"]["exclusive"] >= MIB
    assert found["@"]["size"] >= 2 * MIB
    btrfs("quota", "disable", layout)
    assert {each["size"] for each in subvolumes(layout).values()} == {None}


# Mounts


@needs_root
def test_every_mount_that_leads_to_a_subvolume_has_its_path(layout: Path, tmp_path: Path) -> None:
    image = tmp_path / "source.img"
    with ExitStack() as stack:
        for name, option in {"r": "subvol=@", "r2": "subvol=@", "again": "subvolid=5"}.items():
            stack.enter_context(mounted(image, tmp_path / name, options=[option]))
        stack.enter_context(bound(layout / "@" / "deep", tmp_path / "bind"))
        stack.enter_context(_bound_file(layout / "@" / "data", tmp_path / "file"))
        found = subvolumes(layout)
        assert_paths_lead_there(found)
        relative = {
            path: [os.path.relpath(way, tmp_path) for way in each["mounts"]]
            for path, each in found.items()
        }
    assert relative == {
        "": ["again", "source"],
        "@": ["r", "r2", "again/@", "source/@"],
        "@/deep/inner": [
            "bind/inner", "r/deep/inner", "r2/deep/inner",
            "again/@/deep/inner", "source/@/deep/inner",
        ],
        "@snaps": ["again/@snaps", "source/@snaps"],
        "@snaps/one": ["again/@snaps/one", "source/@snaps/one"],
        "@snaps/writable": ["again/@snaps/writable", "source/@snaps/writable"],
    }  # fmt: skip


@contextmanager
def _bound_file(source: Path, mountpoint: Path) -> Iterator[None]:
    mountpoint.touch()
    run("mount", "--bind", source, mountpoint)
    try:
        yield
    finally:
        unmount(mountpoint)


@needs_root
def test_without_the_top_level_mounted_only_what_is_below_a_mount_is_reachable(
    layout: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "source.img", tmp_path / "root", options=["subvol=@"]) as root:
        unmount(layout)
        found = subvolumes(root)
    assert {path: each["mounts"] for path, each in found.items() if each["mounts"]} == {
        "@": [str(root)],
        "@/deep/inner": [f"{root}/deep/inner"],
    }
    assert len(found) == 6


@needs_root
def test_a_default_subvolume_is_where_a_mount_without_one_begins(
    layout: Path, tmp_path: Path
) -> None:
    with (
        default_subvolume(layout / "@snaps"),
        mounted(tmp_path / "source.img", tmp_path / "default") as default,
    ):
        assert mounts(default)["@snaps"] == [str(default), f"{layout}/@snaps"]
        assert mounts(default)[""] == [str(layout)]


@needs_root
def test_a_mounted_subvolume_that_moves_keeps_its_mount(layout: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "source.img", tmp_path / "root", options=["subvol=@"]) as root:
        (layout / "@").rename(layout / "old")
        assert mounts(layout)["old"] == [str(root), f"{layout}/old"]
        (layout / "old").rename(layout / "@")


@needs_root
def test_what_another_mount_hides_is_left_out(layout: Path, tmp_path: Path) -> None:
    before = mounts(layout)
    with tmpfs(layout / "@" / "deep"):
        hidden = subvolumes(layout)
        assert hidden["@/deep/inner"]["mounts"] == []
        assert hidden["@"]["mounts"] == before["@"]
        (layout / "@" / "deep" / "inner").mkdir()  # on the tmpfs
        assert mounts(layout) == {**before, "@/deep/inner": []}
    with bound(layout / "@snaps", tmp_path / "bind"), tmpfs(tmp_path / "bind"):
        assert mounts(layout) == before
    with mounted(tmp_path / "source.img", tmp_path / "top", options=["subvol=@"]) as top:
        run("mount", "--bind", layout / "@snaps", top)  # one stacked on the other
        found = subvolumes(layout)
        assert_paths_lead_there(found)
        assert str(top) in found["@snaps"]["mounts"]
        assert str(top) not in found["@"]["mounts"]
    assert mounts(layout) == before


@needs_root
def test_a_mount_that_was_there_before_hides_nothing(layout: Path, tmp_path: Path) -> None:
    (tmp_path / "late" / "@").mkdir(parents=True)
    with (
        tmpfs(tmp_path / "late" / "@"),
        mounted(tmp_path / "source.img", tmp_path / "late") as late,
    ):
        found = subvolumes(layout)
        assert_paths_lead_there(found)
        assert f"{late}/@" in found["@"]["mounts"]


@needs_root
def test_a_mount_over_a_mounted_subvolumes_own_place_is_one_path(layout: Path) -> None:
    with bound(layout / "@snaps", layout / "@snaps"):
        assert mounts(layout)["@snaps"] == [f"{layout}/@snaps"]
        assert mounts(layout)["@snaps/one"] == [f"{layout}/@snaps/one"]


@needs_root
def test_mounts_of_another_file_system_do_not_count(layout: Path, destination: Path) -> None:
    create_subvolume(destination / "@")
    assert mounts(layout)["@"] == [f"{layout}/@"]
    assert mounts(destination) == {"": [str(destination)], "@": [f"{destination}/@"]}


@needs_root
def test_a_directory_that_was_removed_under_a_bind_leads_nowhere(
    layout: Path, tmp_path: Path
) -> None:
    before = mounts(layout)
    (layout / "gone").mkdir()
    with bound(layout / "gone", tmp_path / "bind"):
        (layout / "gone").rmdir()
        assert mounts(layout) == before


# What is printed


@needs_root
def test_the_table(layout: Path, tmp_path: Path) -> None:
    with bound(layout / "@", tmp_path / "bind"):
        found = subvolumes(layout)
        out, complaints = btrfslist(layout / "@snaps")
    assert not complaints
    title, *lines = out.splitlines()
    assert re.split("  +", title.strip()) == [
        "ID", "Path", "Level", "Generation", "Total", "Exclusive", "Access", "Own UUID",
        "Parent UUID", "Received UUID", "Mounted at",
    ]  # fmt: skip
    assert [re.split("  +", line.strip()) for line in lines] == [
        [
            str(each["id"]), path or "/", str(each["level"]), str(each["generation"]), "-", "-",
            "ro" if path == "@snaps/one" else "rw",
            each["own_uuid"], each["parent_uuid"] or "-", "-", ", ".join(each["mounts"]),
        ]
        for path, each in found.items()
    ]  # fmt: skip
    assert len(found["@"]["mounts"]) == 2


@needs_root
def test_sizes_in_the_table_have_a_unit(source: Path) -> None:
    btrfs("quota", "enable", source)
    btrfs("quota", "rescan", "-w", source)
    assert "  16.0 KiB   16.0 KiB  rw  " in btrfslist(source)[0]


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version(option: str) -> None:
    assert btrfslist(option) == (f"btrfslist {version('buttersink')}\n", "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_tells_the_columns_and_the_keys(option: str) -> None:
    out, _ = btrfslist(option)
    for word in ("\n  Received UUID  ", "\n  Mounted at ", *KEYS, "directory", "filesystem"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


# What goes wrong


@pytest.mark.parametrize("arguments", [(), (".", "."), ("--nonsense", "."), ("-n", ".")])
def test_usage(arguments: tuple[str, ...]) -> None:
    out, complaint = btrfslist(*arguments, status=2)
    assert not out
    assert complaint.splitlines()[-1].startswith("btrfslist: error: ")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    missing, file = tmp_path / "not\nhere\udcff", tmp_path / "file"
    file.touch()
    for path, name, why in (
        (missing, f"{tmp_path}/not\\nhere\\xff", "No such file or directory"),
        (file, str(file), "Not a directory"),
    ):
        assert btrfslist(*options, path, status=1) == (
            "",
            f"btrfslist: error: cannot open directory: {name}: {why}\n",
        )


def test_what_is_not_btrfs_is_one_line() -> None:
    assert btrfslist("/proc", status=1) == (
        "",
        "btrfslist: error: cannot list subvolumes: /proc: it is not on a btrfs file system\n",
    )


@needs_root
def test_who_is_not_root_is_told_so(layout: Path) -> None:
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    hint = "Run it as root, for example with sudo."
    (layout / "@snaps").chmod(0)
    for directory, what, why in (  # from inside, since pytest's own directories are private
        (".", "list subvolumes", "Operation not permitted"),
        ("@snaps", "open directory", "Permission denied"),
    ):
        out, complaint = btrfslist(directory, status=1, under=nobody, working_in=layout)
        assert not out
        assert complaint == f"btrfslist: error: cannot {what}: {directory}: {why}. {hint}\n"


@needs_root
def test_root_without_the_capability_is_told_what_the_kernel_says(layout: Path) -> None:
    assert btrfslist(layout, status=1, under=("setpriv", "--bounding-set=-sys_admin")) == (
        "",
        f"btrfslist: error: cannot list subvolumes: {layout}: Operation not permitted\n",
    )


@needs_root
def test_output_that_cannot_be_written_is_an_error(source: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, source], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"btrfslist: error: cannot write the result: No space left on device\n"


@needs_root
def test_streams_that_are_closed_are_no_bug(source: Path) -> None:
    closed = ("sh", "-c", 'exec "$@" >&-', "sh")
    complaint = "btrfslist: error: cannot write the result: stdout is closed\n"
    assert btrfslist(source, status=1, under=closed) == ("", complaint)
    speechless = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    assert btrfslist(source / "missing", status=1, under=speechless) == ("", "")


@pytest.mark.parametrize("options", [(), ("--json",), ("--help",), ("--version",)])
@needs_root
def test_a_reader_that_left_is_no_error(source: Path, options: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, *options, source], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""
