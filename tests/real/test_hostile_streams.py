"""What a stored stream cannot do to the machine that receives it, whoever has written it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buttersink import Mode, Role, open_store, parse_location, sync
from buttersink.catalogue import Diff, Uuid
from buttersink.planner import PlanOptions
from buttersink.progress import Reporter
from tests.support import streams
from tests.support.diffdirectory import DiffDirectory
from tests.support.loopfs import MIB, create_subvolume, run, show_subvolume, snapshot
from tests.support.streams import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

SELF = Uuid(bytes(range(16)))
SYMLINK, MKNOD = 8, 5
RDEV, PATH_LINK = 8, 17
SECRET = b"secret" * 1000


@pytest.fixture
def outside(destination: Path) -> Path:
    """A file beside the location, on the same file system."""
    (destination / "into").mkdir()
    path = destination / "outside"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A block device full of zeros."""
    image = tmp_path / "disk"
    image.write_bytes(bytes(MIB))
    found = Path(run("losetup", "--find", "--show", image).strip())
    try:
        yield found
    finally:
        run("losetup", "--detach", found)


def receive(tmp_path: Path, destination: Path, *commands: Command) -> str:
    """Restore a full diff of these commands; return what went wrong, or nothing."""
    archive, diff = DiffDirectory(tmp_path / "archive"), Diff(SELF, None)
    stream = streams.encode([streams.subvol(b"made", SELF, 7), *commands, streams.end()])
    archive.file(diff).write_bytes(stream)
    archive.notes(diff).write_text(json.dumps({"path": "made", "generation": 7, "diffs": {}}))
    place = parse_location(os.fsencode(destination / "into") + b"/")
    with open_store(place, Mode.APPEND, Role.DESTINATION) as store:
        plan = sync.prepare(archive, store, sync.Options(PlanOptions()), Reporter())
        report = sync.carry_out(plan, archive, store, Reporter())
    (result,) = report.steps
    return str(result.error or "")


def file(path: bytes, data: bytes = b"mine") -> list[Command]:
    return [streams.mkfile(path), streams.write(path, 0, data)]


def test_a_harmless_one_is_received(tmp_path: Path, destination: Path, outside: Path) -> None:
    assert receive(tmp_path, destination, *file(b"a")) == ""
    assert (destination / "into" / "made" / "a").read_bytes() == b"mine"
    assert show_subvolume(destination / "into" / "made").received_uuid == SELF
    assert outside.read_bytes() == SECRET


def symlink(path: bytes, target: bytes) -> Command:
    return Command(SYMLINK, ((streams.PATH, path), (streams.INO, bytes(8)), (PATH_LINK, target)))


ESCAPES: list[list[Command]] = [
    file(b"../../new"),
    [streams.write(b"../../outside", 0, b"mine")],
    [streams.truncate(b"../../outside", 0)],
    [symlink(b"up", b"../.."), streams.write(b"up/outside", 0, b"mine")],
    [symlink(b"up", b"../.."), *file(b"up/new")],
    [symlink(b"it", b"../../outside"), streams.write(b"it", 0, b"mine")],
    [streams.subvol(b"second", bytes(16), 7)],
]


@pytest.mark.parametrize("commands", ESCAPES)
def test_files_outside(
    tmp_path: Path, destination: Path, outside: Path, commands: list[Command]
) -> None:
    assert receive(tmp_path, destination, *commands)
    assert outside.read_bytes() == SECRET
    assert sorted(os.listdir(destination)) == ["into", "outside"]
    assert os.listdir(destination / "into") == []


def test_devices(tmp_path: Path, destination: Path, outside: Path, device: Path) -> None:
    number = os.stat(device).st_rdev
    node = Command(
        MKNOD,
        (
            (streams.PATH, b"disk"),
            (streams.INO, bytes(8)),
            (RDEV, number.to_bytes(8, "little")),
            (streams.MODE, (stat.S_IFBLK | 0o600).to_bytes(8, "little")),
        ),
    )
    assert receive(tmp_path, destination, node, streams.write(b"disk", 0, b"mine"))
    assert device.read_bytes() == bytes(MIB)
    assert os.listdir(destination / "into") == []
    assert outside.exists()


def test_data_of_another_snapshot(tmp_path: Path, destination: Path, outside: Path) -> None:
    live = create_subvolume(destination / "live")
    (live / "file").write_bytes(SECRET)
    other = show_subvolume(snapshot(live, destination / "other"))
    steal = streams.clone(b"a", other.uuid, source=b"file")
    said = receive(tmp_path, destination, streams.mkfile(b"a"), steal)
    assert "clones from a snapshot that is not among its sources" in said
    assert os.listdir(destination / "into") == []
    assert outside.exists()
