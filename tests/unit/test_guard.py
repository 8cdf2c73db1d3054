"""Streams that `btrfs receive` must not see, and that the kernel's own are not among them."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.errors import StreamError
from buttersink.stream import Guard
from tests.support import streams
from tests.support.streams import KERNEL_STREAM, KERNEL_STREAM_V2, Command

SELF, PARENT, OTHER = bytes([1]) * 16, bytes([2]) * 16, bytes([3]) * 16
MKDIR, SYMLINK, RENAME, LINK = 4, 8, 9, 10
PATH_TO, PATH_LINK = 16, 17
FULL = streams.subvol(b"s", SELF, 7)
STEP = streams.snapshot(b"s", SELF, 7, PARENT, 6)


def check(raw: bytes, parent: bytes | None, cuts: list[int] | None = None) -> None:
    guard = Guard(parent, {SELF, PARENT})
    edges = sorted({0, len(raw), *(cut % len(raw) for cut in cuts or ())})
    for start, end in pairwise(edges):
        guard.check(memoryview(raw)[start:end])


def refusal(first: Command, *others: Command, version: int = 1) -> str:
    raw = streams.encode([first, *others, streams.end()], version)
    parent = PARENT if first == STEP else None
    found = []
    for cuts in ([], list(range(len(raw)))):  # at once, and byte by byte
        with pytest.raises(StreamError) as caught:
            check(raw, parent, cuts)
        found.append(caught.value.why)
    assert found[0] == found[1]
    return found[0]


@given(st.sampled_from([KERNEL_STREAM, KERNEL_STREAM_V2]), st.lists(st.integers(0, 1000)))
def test_what_the_kernel_sends_passes(raw: bytes, cuts: list[int]) -> None:
    _version, commands = streams.decode(raw)
    check(raw, commands[0].value(streams.CLONE_UUID), cuts)


def test_a_version_that_the_receiver_does_not_take_well() -> None:
    parent = streams.decode(KERNEL_STREAM)[1][0].value(streams.CLONE_UUID)
    with pytest.raises(StreamError, match=r"version 2, which btrfs-progs .* 6\.0\.2") as caught:
        Guard(parent, {SELF}, receives=1).check(KERNEL_STREAM_V2)
    assert caught.value.hint == "Upgrade btrfs-progs where it is received."
    Guard(parent, {SELF}, receives=1).check(KERNEL_STREAM)


@pytest.mark.parametrize("version", [1, 2])
@given(cuts=st.lists(st.integers(0, 200_000)))
def test_dots_that_lead_nowhere_pass(version: int, cuts: list[int]) -> None:
    commands = [
        FULL,
        Command(SYMLINK, ((streams.PATH, b"o"), (PATH_LINK, b"../../etc"))),
        streams.write(b"a..b/...", 0, b"../" * 15000),
        streams.write(b"...", 0, b"."),
        streams.set_xattr(b"a", b"user.x", b"../.."),
        streams.clone(b"..a", SELF, source=b"a.."),
        streams.utimes(b""),
        streams.end(),
    ]
    check(streams.encode(commands, version), None, cuts)


@pytest.mark.parametrize("path", [b"..", b"../x", b"a/..", b"a/../../b", b"/../x", b"x\0"])
@pytest.mark.parametrize("version", [1, 2])
def test_paths_that_lead_outside(path: bytes, version: int) -> None:
    attacks = [
        streams.mkfile(path),
        streams.write(path, 0, b"x" * 100),
        streams.write(path, 0, b"x" * 40_000),
        streams.truncate(path, 0),
        streams.chmod(path, 0o4755),
        streams.clone(path, SELF),
        streams.clone(b"a", SELF, source=path),
        Command(RENAME, ((streams.PATH, b"a"), (PATH_TO, path))),
        Command(LINK, ((streams.PATH, b"a"), (PATH_LINK, path))),
        Command(SYMLINK, ((streams.PATH, path), (PATH_LINK, b"x"))),
        Command(streams.ENCODED_WRITE, ((streams.PATH, path), (streams.DATA, b"x"))),
        Command(streams.CHMOD, ((streams.PATH, b"good"), (streams.PATH, path))),
    ]
    if path == b"x\0":  # without dots it ends the path early, and leads nowhere
        attacks = [streams.write(path, 0, b"x"), streams.clone(path, SELF)]
    for attack in attacks:
        assert "it names the path" in refusal(FULL, attack, version=version), attack


def test_data_in_front_of_the_path() -> None:
    hidden = ((streams.DATA, b"x" * 9000), (streams.PATH, b"../x"))
    assert "not as the kernel writes it" in refusal(FULL, Command(streams.WRITE, hidden))
    trailing = ((streams.PATH, b"a"), (streams.DATA, b"x" * 9), (streams.PATH, b"../x"))
    assert "not as the kernel writes it" in refusal(FULL, Command(streams.WRITE, trailing))


def test_a_path_longer_than_any() -> None:
    attack = Command(streams.WRITE, ((streams.PATH, b"a" * 9000), (streams.DATA, b"x")))
    assert "not as the kernel writes it" in refusal(FULL, attack)


def test_another_source() -> None:
    assert "clones from a snapshot" in refusal(STEP, streams.clone(b"a", OTHER))


def test_another_beginning() -> None:
    raw = streams.encode([streams.snapshot(b"s", SELF, 7, OTHER, 6), streams.end()])
    with pytest.raises(StreamError, match="agreed on"):
        check(raw, PARENT)
    with pytest.raises(StreamError, match="agreed on"):
        check(raw, None)
    with pytest.raises(StreamError, match="agreed on"):
        check(streams.encode([FULL, streams.end()]), PARENT)


@pytest.mark.parametrize("second", [FULL, STEP])
def test_another_subvolume_in_the_middle(second: Command) -> None:
    assert "another subvolume" in refusal(FULL, streams.mkfile(b"a"), second)


def test_lengths_that_no_sender_writes() -> None:
    raw = streams.encode([FULL]) + struct.pack("<IHI", 1 << 31, streams.WRITE, 0)
    with pytest.raises(StreamError, match="claims 2,147,483,648 bytes"):
        check(raw, None)
