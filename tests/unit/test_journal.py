"""The journal of a checkpoint: what is written is read, and what is none is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from buttersink.catalogue import Diff, Uuid
from buttersink.errors import ResumeError
from buttersink.kernel.ioctl import SubvolumeInfo
from buttersink.stores.btrfs.journal import (
    Journal,
    parse_journal,
    read_journal,
    remove_journal,
    write_journal,
)
from buttersink.stream import Checkpoint
from buttersink.stream.segments import Stretch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TO, PARENT, CLONE, OWN, RECEIVED = (Uuid(bytes([number]) * 16) for number in range(1, 6))
STRETCHES = (Stretch(1000, b"a" * 32), Stretch(1, b"b" * 32))
JOURNAL = Journal(
    Diff(TO, PARENT, (CLONE,)), Checkpoint(1, STRETCHES, 7), b".part1", OWN, RECEIVED, 99
)
FULL = Journal(Diff(TO, None), Checkpoint(2, STRETCHES[:1], None), b"\xff", OWN, RECEIVED, 0)
FOUND = SubvolumeInfo(300, True, OWN, PARENT, RECEIVED, 99, 5)  # noqa: FBT003  as ioctl gives it
NAME = b"journal"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("journal", [JOURNAL, FULL])
def test_what_is_written_is_read(directory: int, tmp_path: Path, journal: Journal) -> None:
    write_journal(directory, NAME, FULL)
    write_journal(directory, NAME, journal)
    assert read_journal(directory, NAME) == journal
    assert os.listdir(tmp_path) == ["journal"]
    remove_journal(directory, NAME)
    remove_journal(directory, NAME)
    assert read_journal(directory, NAME) is None
    assert os.listdir(tmp_path) == []


def test_a_half_written_one_is_no_obstacle(directory: int, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"kept")
    (tmp_path / "journal.new").symlink_to(elsewhere)
    write_journal(directory, NAME, JOURNAL)
    assert read_journal(directory, NAME) == JOURNAL
    assert elsewhere.read_bytes() == b"kept"


@pytest.mark.parametrize(
    "changes",
    [
        {"buttersink": 2},
        {"buttersink": None},
        {"to": "x"},
        {"to": None},
        {"from": 5},
        {"clones": [1]},
        {"stretches": []},
        {"stretches": [[0, "00"]]},
        {"stretches": [[-5, "00"]]},
        {"stretches": [[1, "zz"]]},
        {"stretches": [[1]]},
        {"version": "x"},
        {"crc32c": "x"},
        {"name": 3},
        {"uuid": ""},
        {"ctransid": []},
    ],
)
def test_what_is_none_is_refused(changes: dict[str, object]) -> None:
    document = json.loads(JOURNAL.to_json())
    with pytest.raises(ResumeError):
        parse_journal(json.dumps({**document, **changes}).encode())


@pytest.mark.parametrize("key", json.loads(JOURNAL.to_json()))
def test_what_lacks_a_key_is_refused(key: str) -> None:
    document = json.loads(JOURNAL.to_json())
    del document[key]
    with pytest.raises(ResumeError):
        parse_journal(json.dumps(document).encode())


def test_it_fits_the_checkpoint_unchanged_and_nothing_else() -> None:
    assert JOURNAL.fits(FOUND)
    for changed in (
        FOUND._replace(read_only=False),
        FOUND._replace(uuid=PARENT),
        FOUND._replace(received_uuid=bytes(16)),
        FOUND._replace(ctransid=100),
    ):
        assert not JOURNAL.fits(changed)
