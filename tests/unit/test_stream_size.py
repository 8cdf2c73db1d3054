"""The length of a stream from the same stream without data, against the stream written out."""

from __future__ import annotations

import pytest

from buttersink.errors import StreamError
from buttersink.stream import Doubt, OwnerChange, StoredExtent, StreamSize
from tests.support.streams import (
    HEADER_BYTES,
    KERNEL_STREAM,
    KERNEL_STREAM_WITHOUT_DATA,
    Command,
    chmod,
    chown,
    clone,
    encode,
    encode_command,
    encoded_write,
    end,
    mkfile,
    rename,
    snapshot,
    subvol,
    truncate,
    update_extent,
    write,
)

KIB = 1 << 10
READ_SIZE = 48 * KIB  # what the kernel puts into one WRITE of version 1

FIRST = snapshot(b"monday", b"i" * 16, 11, b"p" * 16, 10)


def size_of(stream: bytes, *cuts: int) -> int:
    """Return the result of feeding the stream in pieces that end at these offsets."""
    size = StreamSize()
    for start, stop in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        size.feed(memoryview(stream)[start:stop])
    return size.result()


def looked_at(*commands: Command) -> StreamSize:
    """Return what is known after a whole stream with these commands in it."""
    size = StreamSize()
    size.feed(encode([FIRST, *commands, end()]))
    size.result()
    return size


def with_data(path: bytes, offset: int, size: int) -> list[Command]:
    """Return the WRITE commands that one UPDATE_EXTENT stands for."""
    stop = offset + size
    return [
        write(path, start, bytes(min(READ_SIZE, stop - start)))
        for start in range(offset, stop, READ_SIZE)
    ]


def test_of_a_kernels_stream() -> None:
    assert size_of(KERNEL_STREAM_WITHOUT_DATA) == len(KERNEL_STREAM)


@pytest.mark.parametrize(
    "size", [0, 1, 4096, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, 2 * READ_SIZE, 300 * KIB + 7]
)
@pytest.mark.parametrize("path", [b"f", b"d/" * 300 + b"f"])
def test_of_one_extent(path: bytes, size: int) -> None:
    stream = encode([FIRST, mkfile(path), update_extent(path, 12345, size), end()])
    real = encode([FIRST, mkfile(path), *with_data(path, 12345, size), end()])
    assert size_of(stream) == len(real)


def test_counts_what_is_cloned_from_each_subvolume() -> None:
    clones = [clone(b"a" * length, bytes([length]) * 16) for length in (1, 2, 2, 200)]
    assert looked_at(*clones).clones == {bytes([n]) * 16: 1 + (n == 2) for n in (1, 2, 200)}


def test_of_many_commands_in_any_order() -> None:
    stream, real = [subvol(b"s", b"i" * 16, 1)], [subvol(b"s", b"i" * 16, 1)]
    for number in range(50):
        path = b"file %d" % number
        others = [mkfile(path), clone(path, b"o" * 16), Command(19, ((15, path), (6, bytes(8))))]
        stream += [*others, update_extent(path, 0, number * 999), update_extent(path, 10**6, 1)]
        real += [*others, *with_data(path, 0, number * 999), *with_data(path, 10**6, 1)]
    assert size_of(encode([*stream, end()])) == len(encode([*real, end()]))


def test_of_an_extent_beyond_32_bits() -> None:
    big = encode([FIRST, update_extent(b"f", 0, READ_SIZE << 30), end()])
    empty = encode([FIRST, end()])
    one = encode([FIRST, *with_data(b"f", 0, READ_SIZE), end()])
    assert size_of(big) == len(empty) + (len(one) - len(empty) << 30)


def test_counts_commands() -> None:
    found = looked_at(mkfile(b"f"), update_extent(b"f", 0, 100 * KIB), clone(b"f", b"o" * 16))
    assert (found.commands, found.extents) == (5, 2)


def test_cut_anywhere_in_two_is_the_same() -> None:
    stream = encode([FIRST, mkfile(b"f"), update_extent(b"f", 0, 100 * KIB), end()])
    assert {size_of(stream, cut) for cut in range(len(stream) + 1)} == {size_of(stream)}


def test_byte_by_byte_is_the_same() -> None:
    stream = encode([FIRST, mkfile(b"f"), update_extent(b"f", 0, 100 * KIB), end()])
    assert size_of(stream, *range(1, len(stream))) == size_of(stream)


def test_what_is_known_so_far_grows_to_the_result() -> None:
    size, known = StreamSize(), [0]
    for byte in KERNEL_STREAM_WITHOUT_DATA:
        size.feed(bytes([byte]))
        known.append(size.so_far)
    assert known == sorted(known)
    assert known[-1] == size.result()


def test_bytes_that_are_used_again_do_not_matter() -> None:
    stream = encode([FIRST, mkfile(b"f"), update_extent(b"f", 0, 100 * KIB), end()])
    size, buffer = StreamSize(), bytearray(7)
    for start in range(0, len(stream), len(buffer)):
        piece = stream[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        size.feed(memoryview(buffer)[: len(piece)])
    assert size.result() == size_of(stream)


def test_a_stream_with_data_is_refused() -> None:
    with pytest.raises(StreamError, match="not a metadata-only send stream: it holds data"):
        size_of(KERNEL_STREAM)


def test_a_stream_cut_anywhere_is_refused() -> None:
    stream = encode([FIRST, update_extent(b"f", 0, 1), end()])
    for length in range(len(stream)):
        with pytest.raises(StreamError, match="cut send stream"):
            size_of(stream[:length])


@pytest.mark.parametrize("more", [b"\0", bytes(9), encode([])[:10], encode([mkfile(b"f")])])
def test_bytes_after_the_end_are_refused(more: bytes) -> None:
    with pytest.raises(StreamError):
        size_of(encode([FIRST, end()]) + more)


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(StreamError, match="not a btrfs send stream"):
        size_of(b"not a stream, but longer than a header")


def test_what_is_shorter_than_a_header_is_refused() -> None:
    with pytest.raises(StreamError, match="no end"):
        size_of(encode([])[: HEADER_BYTES - 1])


def test_a_stream_of_version_2_is_refused_without_a_way_to_look_extents_up() -> None:
    with pytest.raises(StreamError, match="not of version 1"):
        size_of(encode([FIRST, update_extent(b"f", 0, 1), end()], version=2))


class TestVersion2:
    """Data in longer pieces, and what is compressed on disk as it is."""

    @staticmethod
    def size_of(*commands: Command, stored: dict[object, StoredExtent] | None = None) -> int:
        """Return the length where these extents are compressed, by file and offset."""
        known = stored or {}
        size = StreamSize(None, lambda *place: known.get(place))
        for byte in encode([FIRST, *commands, end()], version=2):
            size.feed(bytes([byte]))
        return size.result()

    @staticmethod
    def real(*commands: Command) -> int:
        return len(encode([FIRST, *commands, end()], version=2))

    @pytest.mark.parametrize(
        "size", [1, READ_SIZE + 1, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 300 * KIB + 7]
    )
    def test_of_data_that_are_not_compressed(self, size: int) -> None:
        writes = [
            write(b"d/f", start, bytes(min(128 * KIB, size - start)))
            for start in range(0, size, 128 * KIB)
        ]
        assert self.size_of(update_extent(b"d/f", 0, size)) == self.real(*writes)

    @pytest.mark.parametrize("inline", [False, True])
    def test_of_a_compressed_extent(self, *, inline: bool) -> None:
        stored: dict[object, StoredExtent] = {(b"d/f", 4096): StoredExtent(777, inline)}
        expected = self.real(encoded_write(b"d/f", 4096, bytes(777), inline=inline))
        assert self.size_of(update_extent(b"d/f", 4096, 9000), stored=stored) == expected

    def test_of_a_little_of_a_compressed_extent(self) -> None:
        """The kernel sends it as it is only if that is not longer than what is needed of it."""
        stored: dict[object, StoredExtent] = {(b"f", 0): StoredExtent(5000, inline=False)}
        short = self.size_of(update_extent(b"f", 0, 4999), stored=stored)
        assert short == self.real(write(b"f", 0, bytes(4999)))
        enough = self.size_of(update_extent(b"f", 0, 5000), stored=stored)
        assert enough == self.real(encoded_write(b"f", 0, bytes(5000)))

    def test_looks_files_up_as_what_they_are(self) -> None:
        stored: dict[object, StoredExtent] = {
            (300, 0): StoredExtent(10, inline=True),
            (b"old/g", 8192): StoredExtent(20, inline=False),
        }
        moves = [rename(b"old", b"new"), mkfile(b"o300-7-0", 300), rename(b"o300-7-0", b"f")]
        found = self.size_of(
            *moves, update_extent(b"f", 0, 99), update_extent(b"new/g", 8192, 99), stored=stored
        )
        assert found == self.real(
            *moves,
            encoded_write(b"f", 0, bytes(10), inline=True),
            encoded_write(b"new/g", 8192, bytes(20)),
        )

    def test_takes_every_truncate_for_one_of_the_real_stream(self) -> None:
        size = StreamSize(None, lambda *_place: None)
        commands = [FIRST, update_extent(b"f", 0, 4096), truncate(b"f", 4096), end()]
        size.feed(encode(commands, version=2))
        assert size.result() == self.real(write(b"f", 0, bytes(4096)), truncate(b"f", 4096))
        assert (size.surplus, size.doubts) == ([], [])


class TestDoubts:
    """Files after whose last extent the real stream may have a TRUNCATE."""

    @pytest.mark.parametrize(
        "commands",
        [
            [update_extent(b"f", 8192, 4096), update_extent(b"f", 0, 4096)],
            [update_extent(b"f", 0, 12288), update_extent(b"f", 4096, 4096)],
            [update_extent(b"f", 8192, 4096), clone(b"f", b"o" * 16, offset=0, length=4096)],
            [clone(b"f", b"o" * 16, offset=4096, length=8192), update_extent(b"f", 0, 1)],
            [clone(b"f", b"o" * 16, offset=0, length=12288), update_extent(b"f", 100, 50)],
        ],
    )
    def test_are_files_whose_last_extent_is_not_the_farthest(self, commands: list[Command]) -> None:
        assert looked_at(*commands).doubts == [Doubt(b"f", 12288, b"f")]

    @pytest.mark.parametrize(
        "commands",
        [
            [],
            [mkfile(b"f"), truncate(b"f", 0)],
            [update_extent(b"f", 0, 4096)],
            [update_extent(b"f", 0, 4096), update_extent(b"f", 8192, 4096)],
            [update_extent(b"f", 8192, 1), clone(b"f", b"o" * 16, offset=8192, length=1)],
            [update_extent(b"f", 8192, 1), update_extent(b"f", 0, 1), truncate(b"f", 8193)],
            [update_extent(b"f", 8192, 4096), update_extent(b"g", 0, 4096)],
        ],
    )
    def test_are_no_others(self, commands: list[Command]) -> None:
        assert looked_at(*commands).doubts == []

    def test_are_told_of_each_file_in_order(self) -> None:
        backwards = [
            extent
            for path in (b"one", b"two", b"three")
            for extent in (update_extent(path, 99, 1), update_extent(path, 0, 1))
        ]
        size = looked_at(*backwards)
        assert size.doubts == [
            Doubt(b"one", 100, b"one"),
            Doubt(b"two", 100, b"two"),
            Doubt(b"three", 100, b"three"),
        ]

    def test_are_not_settled_by_a_truncate_of_another_file(self) -> None:
        backwards = [update_extent(b"f", 99, 1), update_extent(b"f", 0, 1)]
        assert looked_at(*backwards, truncate(b"g", 5)).doubts == [Doubt(b"f", 100, b"f")]

    def test_are_of_files_of_the_parent(self) -> None:
        backwards = [update_extent(b"b/f", 99, 1), update_extent(b"b/f", 0, 1)]
        assert looked_at(rename(b"a", b"b"), *backwards).doubts == [Doubt(b"b/f", 100, b"a/f")]
        assert looked_at(mkfile(b"b/f"), *backwards).doubts == []

    def test_are_told_once(self) -> None:
        size = looked_at(update_extent(b"f", 99, 1), update_extent(b"f", 0, 1))
        size.result()
        assert len(size.doubts) == 1

    def test_do_not_change_the_length(self) -> None:
        commands = [FIRST, update_extent(b"f", 99, 1), update_extent(b"f", 0, 1), end()]
        real = [FIRST, *with_data(b"f", 99, 1), *with_data(b"f", 0, 1), end()]
        assert size_of(encode(commands)) == len(encode(real))

    def test_have_the_length_of_the_command(self) -> None:
        path = b"d/" * 50 + b"f"
        assert Doubt(path, 7, path).length == len(encode_command(truncate(path, 7)))


class TestSurplus:
    """A TRUNCATE that the real stream may lack."""

    def test_is_told_of_one_where_the_last_extent_ends(self) -> None:
        size = looked_at(update_extent(b"f", 0, 4096), truncate(b"f", 4096))
        assert (size.surplus, size.doubts) == ([Doubt(b"f", 4096, b"f")], [])

    @pytest.mark.parametrize(
        "commands",
        [
            [truncate(b"f", 0)],
            [update_extent(b"f", 0, 4096), truncate(b"g", 4096)],
            [update_extent(b"f", 0, 4096), truncate(b"f", 4095)],
            [update_extent(b"f", 8192, 1), update_extent(b"f", 0, 1), truncate(b"f", 8193)],
        ],
    )
    def test_is_not_told_of_others(self, commands: list[Command]) -> None:
        assert looked_at(*commands).surplus == []


class TestOwnerChanges:
    """After each a CHMOD may be put in."""

    def test_are_told_in_order(self) -> None:
        size = looked_at(chown(b"a", 1, 2), mkfile(b"x"), chown(b"d/b", 2**32 - 1, 0))
        assert size.owner_changes == [
            OwnerChange(b"a", 1, 2, b"a"),
            OwnerChange(b"d/b", 2**32 - 1, 0, b"d/b"),
        ]

    def test_are_told_of_as_what_they_are_in_the_parent(self) -> None:
        moves = rename(b"a", b"b"), mkfile(b"o300-7-0", 300), rename(b"o300-7-0", b"f")
        size = looked_at(*moves, chown(b"f", 1, 2), chown(b"b/c", 3, 4))
        assert size.owner_changes == [OwnerChange(b"b/c", 3, 4, b"a/c")]

    def test_count_as_they_are(self) -> None:
        stream = encode([FIRST, chown(b"a", 1, 2), end()])
        assert size_of(stream) == len(stream)

    def test_have_the_length_of_the_command(self) -> None:
        path = b"d/" * 50 + b"f"
        assert OwnerChange(path, 1, 2, path).length == len(encode_command(chmod(path, 0o4755)))
