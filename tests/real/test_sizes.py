"""Measured sizes are those of the real stream, whatever became of the ends of files."""

from __future__ import annotations

import os
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING

import pytest

from buttersink import Mode, Role, open_store, parse_location
from buttersink.catalogue import Diff
from tests.support.loopfs import create_subvolume, run, snapshot

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

PAGE = 4096
FILES = 30


def change_end(random: Random, path: Path) -> None:
    """Cut or lengthen a file, write, punch a hole, reserve room after its end, or clone into it."""
    size = path.stat().st_size
    way = random.randrange(6)
    if way == 0:
        os.truncate(path, random.randrange(size + 1))
    elif way == 1:
        os.truncate(path, size + random.randrange(1, 20 * PAGE))
    elif way == 2:
        reserve(path, "--punch-hole", random.randrange(20) * PAGE, random.randrange(1, 8) * PAGE)
    elif way == 3:
        reserve(path, "--keep-size", size // PAGE * PAGE, 10 * PAGE)
    elif way == 4:
        with path.open("r+b") as file:
            file.seek(random.randrange(20 * PAGE))
            file.write(random.randbytes(random.randrange(8 * PAGE)))
    else:
        other = path.with_name(f"{random.randrange(FILES):02}")
        if other != path:
            run("cp", "--reflink=always", other, path)


def reserve(path: Path, how: str, offset: int, length: int) -> None:
    run("fallocate", how, "--offset", str(offset), "--length", str(length), path)


@pytest.mark.parametrize("seed", [1, 4, 12])
def test_measured_sizes_are_exact(source: Path, seed: int) -> None:
    random = Random(seed)
    live = create_subvolume(source / "live")
    files = [live / f"{number:02}" for number in range(FILES)]
    for path in files:
        path.write_bytes(random.randbytes(random.randrange(1, 40) * PAGE // 2))
    (source / "snaps").mkdir()
    for number in range(7):
        for path in files * 2:
            if random.random() < 0.5:
                change_end(random, path)
        snapshot(live, source / "snaps" / str(number))
    with open_store(parse_location(f"{source}/snaps/".encode()), Mode.READ, Role.SOURCE) as store:
        uuids = [each.uuid for each in store.catalogue().snapshots]
        pairs = [Diff(to, None) for to in uuids]
        pairs += [Diff(to, parent) for to, parent in permutations(uuids, 2)]
        measured = {found.diff: found.bytes for found in store.measure(pairs)}
        for pair in pairs:
            with store.send(pair) as chunks:
                assert sum(map(len, chunks)) == measured[pair], pair


def test_one_look_at_a_snapshot_tells_what_is_newer_than_each_other(source: Path) -> None:
    """Which is about what a diff from that has, and never more."""
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    random = Random(1)
    for number in range(5):
        (live / f"{number}").write_bytes(random.randbytes(PAGE * random.randrange(1, 200)))
        (live / "same").write_bytes(random.randbytes(50 * PAGE))
        snapshot(live, source / "snaps" / str(number))
    with open_store(parse_location(f"{source}/snaps/".encode()), Mode.READ, Role.SOURCE) as store:
        found = sorted(store.catalogue().snapshots, key=lambda each: each.path)
        uuids = [each.uuid for each in found]
        pairs = [Diff(to, parent) for to in uuids for parent in (None, *uuids) if parent != to]
        told = dict(store.estimate(pairs))
        assert told == dict(pair for each in pairs for pair in store.estimate([each]))
        older = [Diff(to, parent) for at, to in enumerate(uuids) for parent in (None, *uuids[:at])]
        assert told.keys() == set(older)
        for measured in store.measure(older):
            assert told[measured.diff] <= measured.bytes < told[measured.diff] * 1.05 + 2000


def test_a_diff_over_its_limit_is_only_said_to_be_longer(source: Path) -> None:
    """The true length is no less than what is said, and short ones are measured all the same."""
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "empty")
    for number in range(5000):
        (live / f"{number:04}").touch()
    snapshot(live, source / "snaps" / "many")
    with open_store(parse_location(f"{source}/snaps/".encode()), Mode.READ, Role.SOURCE) as store:
        empty, many = (each.uuid for each in store.catalogue().snapshots)
        there, back = Diff(many, empty), Diff(empty, many)
        lengths = {each.diff: each for each in store.measure([there, back])}
        limits = {there: 10_000, back: lengths[back].bytes}
    with open_store(parse_location(f"{source}/snaps/".encode()), Mode.READ, Role.SOURCE) as store:
        store.catalogue()
        limited = {each.diff: each for each in store.measure([there, back], limits)}
    assert limited[back] == lengths[back]
    assert not limited[there].finished
    assert 10_000 < limited[there].bytes < lengths[there].bytes
    assert limited[there].commands < lengths[there].commands
