"""What a check tells of sound streams, and how it names what is wrong with others."""

from __future__ import annotations

import struct

import pytest

from buttersink.catalogue import Uuid
from buttersink.errors import StreamError
from buttersink.stream import StreamCheck, StreamFacts
from tests.support import streams
from tests.support.streams import (
    COMMAND_BYTES,
    HEADER_BYTES,
    KERNEL_STREAM,
    KERNEL_STREAM_V2,
    Command,
    clone,
    encode,
    encode_command,
    end,
    mkfile,
    seal,
    snapshot,
    subvol,
    write,
)

S, P, Q = (Uuid(letter * 16) for letter in (b"s", b"p", b"q"))
FULL = encode([subvol(b"s", S, 7), mkfile(b"f"), write(b"f", 0, b"data"), end()])
FIRST = len(encode([subvol(b"s", S, 7)]))
MAKES_A_FILE = len(encode_command(mkfile(b"f")))


def checked(stream: bytes, chunk: int = 1 << 20) -> StreamFacts:
    check = StreamCheck()
    for start in range(0, len(stream), chunk):
        check.feed(memoryview(stream)[start : start + chunk])
    return check.finish()


def fault(stream: bytes) -> str:
    """Return what is said of a stream, which has to be the same however it is cut."""
    said = set()
    for chunk in (1, 7, 10, 1000, 1 << 20):
        with pytest.raises(StreamError) as caught:
            checked(stream, chunk)
        said.add(str(caught.value))
    assert len(said) == 1
    return said.pop()


class TestFacts:
    def test_of_a_full_stream(self) -> None:
        assert checked(FULL) == StreamFacts(1, S, 7, None, frozenset(), 4, len(FULL))

    def test_of_a_diff_with_clones(self) -> None:
        commands = [snapshot(b"s", S, 9, P, 8), clone(b"f", S), clone(b"f", Q), end()]
        stream = encode(commands)
        assert checked(stream) == StreamFacts(1, S, 9, P, frozenset({S, Q}), 4, len(stream))

    @pytest.mark.parametrize(("stream", "version"), [(KERNEL_STREAM, 1), (KERNEL_STREAM_V2, 2)])
    def test_of_what_the_kernel_wrote(self, stream: bytes, version: int) -> None:
        facts = checked(stream, 11)
        assert facts.version == version
        assert facts.uuid.hex() == "573e718827d8bf44a7100b4a5972929b"
        assert facts.parent is not None
        assert facts.parent.hex() == "2327dfbafc5ddf46b342a6a6e6ab79b0"
        assert (facts.generation, facts.bytes) == (8, len(stream))
        assert facts.commands == len(streams.decode(stream)[1])

    @pytest.mark.parametrize(
        ("version", "size"), [(1, 48 * 1024), (2, 128 * 1024), (2, 192 * 1024)]
    )
    def test_large_writes_are_taken(self, version: int, size: int) -> None:
        stream = encode([subvol(b"s", S, 7), write(b"f", 0, bytes(size)), end()], version)
        assert checked(stream, 4096).bytes == len(stream)

    def test_commands_that_are_not_known_pass(self) -> None:
        stream = encode([subvol(b"s", S, 7), Command(25), Command(4000, ((77, b"x"),)), end()], 2)
        assert checked(stream).commands == 4

    def test_chunks_may_be_empty_and_bytes(self) -> None:
        check = StreamCheck()
        for part in (b"", FULL[:20], b"", FULL[20:], b""):
            check.feed(part)
        assert check.finish().uuid == S


class TestFaults:
    def test_nothing_at_all(self) -> None:
        check = StreamCheck()
        with pytest.raises(StreamError, match="it stops at byte 0 without its end"):
            check.finish()

    def test_something_else(self) -> None:
        said = "not a btrfs send stream: wrong first bytes at byte 0"
        assert fault(b"<html>" + bytes(100)) == said

    def test_a_version_that_is_not_known(self) -> None:
        said = "unknown send stream: version 3 at byte 0. Upgrade buttersink."
        assert fault(encode([], 3) + bytes(100)) == said

    def test_a_flipped_byte_in_data(self) -> None:
        position = FULL.index(b"data")
        damaged = FULL[:position] + b"D" + FULL[position + 1 :]
        at = FIRST + MAKES_A_FILE
        assert fault(damaged) == f"damaged send stream: wrong checksum in command 15, at byte {at}"

    def test_cut_at_a_command(self) -> None:
        whole = FULL[:FIRST]
        assert fault(whole) == f"cut send stream: it stops at byte {FIRST} without its end"

    def test_cut_in_a_command(self) -> None:
        said = fault(FULL[: FIRST + COMMAND_BYTES + 3])
        assert said.endswith(
            f"it stops at byte {FIRST + COMMAND_BYTES + 3} without its end, "
            f"in the command that begins at byte {FIRST}"
        )

    def test_every_cut_is_found(self) -> None:
        for length in range(len(FULL)):
            with pytest.raises(StreamError, match=f"it stops at byte {length} without its end"):
                checked(FULL[:length])

    def test_every_flipped_bit_is_found(self) -> None:
        for bit in range(8 * len(FULL)):
            damaged = bytearray(FULL)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(StreamError, match="at byte"):
                checked(bytes(damaged))

    def test_bytes_after_the_end(self) -> None:
        said = f"damaged send stream: bytes after its end, at byte {len(FULL)}"
        assert fault(FULL + b"x") == said
        assert fault(FULL + FULL) == said

    def test_another_subvolume_without_an_end(self) -> None:
        first = encode_command(subvol(b"s", S, 7))
        stream = encode([subvol(b"s", S, 7)]) + first + encode_command(end())
        assert fault(stream) == f"damaged send stream: another subvolume, at byte {FIRST}"

    @pytest.mark.parametrize("command", [mkfile(b"f"), end(), Command(77)])
    def test_something_before_the_subvolume(self, command: Command) -> None:
        said = fault(encode([command, end()]))
        assert said == (
            f"damaged send stream: it does not begin with a subvolume, at byte {HEADER_BYTES}"
        )

    def test_zeros_are_no_commands(self) -> None:
        """Ten zero bytes are a header without body whose checksum is right."""
        stream = FULL[:FIRST] + bytes(1000) + encode_command(end())
        said = f"damaged send stream: command 0, which does not exist, at byte {FIRST}"
        assert fault(stream) == said

    @pytest.mark.parametrize(
        ("version", "command", "length"),
        [(1, 15, 64 * 1024 + 1), (2, 15, 2**20 + 1), (1, 16, 16 * 1024 + 1), (2, 15, 2**32 - 1)],
    )
    def test_a_length_that_cannot_be(self, version: int, command: int, length: int) -> None:
        head = struct.pack("<IHI", length, command, 0)
        said = fault(encode([subvol(b"s", S, 7)], version) + head + bytes(100))
        assert said.endswith(f"command {command} claims {length:,} bytes, at byte {FIRST}")

    @pytest.mark.parametrize(
        ("command", "missing"),
        [
            (Command(1, ((2, bytes(8)),)), "command 1 without attribute 1 of 16 bytes"),
            (Command(1, ((1, S), (2, b""))), "command 1 without attribute 2 of 8 bytes"),
            (Command(2, ((1, S), (2, bytes(8)))), "command 2 without attribute 20 of 16 bytes"),
            (Command(1, ((1, S + b"x"), (2, bytes(8)))), "command 1 without attribute 1"),
        ],
    )
    def test_a_first_command_that_lacks_something(self, command: Command, missing: str) -> None:
        assert missing in fault(encode([command, end()]))

    def test_a_clone_of_nothing(self) -> None:
        stream = encode([subvol(b"s", S, 7), Command(16), end()])
        assert "command 16 without attribute 20 of 16 bytes, at byte" in fault(stream)

    @pytest.mark.parametrize("body", [b"\1", b"\1\0\x10\0abc", bytes(4) + b"\1\0\1"])
    def test_attributes_that_are_cut(self, body: bytes) -> None:
        stream = encode([]) + seal(1, body)
        assert fault(stream).endswith(f"cut attribute in command 1, at byte {HEADER_BYTES}")
