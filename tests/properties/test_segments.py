"""Streams cut into segments: the same whatever the chunks, whole to a receiver, known again."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from buttersink.catalogue import Uuid
from buttersink.errors import ResumeError, StreamError
from buttersink.stream import Checkpoint, Identity, Rewriter, Segments, rest_of
from buttersink.stream.segments import ENDING, opening
from tests.properties.test_stream import (
    CLONES,
    COMMANDS,
    FIRSTS,
    GARBAGE,
    OTHERS,
    PATHS,
    VERSIONS,
    WRITES,
    pieces,
)
from tests.support.streams import (
    CLONE,
    CLONE_UUID,
    ENCODED_WRITE,
    END,
    HEADER_BYTES,
    PATH,
    SET_XATTR,
    SNAPSHOT,
    UTIMES,
    UUID,
    WRITE,
    XATTR_NAME,
    Command,
    decode,
    encode,
    encode_command,
    end,
    set_xattr,
    utimes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLOSING = (UTIMES, WRITE, CLONE, ENCODED_WRITE)
CAPABILITY = b"security.capability"
XATTRS = st.builds(
    set_xattr, PATHS, st.sampled_from([b"user.x", CAPABILITY]), st.binary(max_size=30)
)
LONG = st.builds(
    lambda first, rest: [first, *rest, end()],
    FIRSTS,
    st.lists(st.one_of(OTHERS, WRITES, CLONES, XATTRS, st.builds(utimes, PATHS)), max_size=30),
)
LEAST = st.integers(1, 600)


def cut(chunks: Iterable[memoryview], least: int) -> list[bytes]:
    """Return the segments of a stream, as they are in it."""
    segments, found = Segments(least), [b""]
    for chunk in chunks:
        for piece in segments.feed(chunk):
            if piece is None:
                found.append(b"")
            else:
                found[-1] += piece
    return found


def all_of(stream: bytes) -> Iterator[memoryview]:
    yield memoryview(stream)


def checkpoints(
    stream: bytes, least: int, *, size: int | None = None, checksum: bool = True
) -> list[Checkpoint]:
    segments = Segments(least, size=size, checksum=checksum)
    return [segments.checkpoint() for piece in segments.feed(memoryview(stream)) if piece is None]


def received(segment: bytes, number: int, last: int, own: bytes, version: int) -> list[Command]:
    """Return what a receiver is given of a segment, as commands of a whole stream."""
    uuid, before = (Uuid(bytes([200 + n]) * 16) for n in (number, number - 1))
    identity = Identity(uuid=uuid, name=b"%d" % number, clones={own: uuid})
    if number:
        identity = replace(identity, parent=before)
    rewriter = Rewriter(identity)
    raw = (opening(version) if number else b"") + segment + (ENDING if number < last else b"")
    out = b"".join(bytes(part) for part in rewriter.feed(memoryview(raw)))
    rewriter.finish()
    found, commands = decode(out)
    assert found == version
    assert commands[0].value(UUID) == uuid
    assert commands[0].value(PATH) == b"%d" % number
    if number:
        assert commands[0].number == SNAPSHOT
        assert commands[0].value(CLONE_UUID) == before
    assert commands[-1].number == END
    for command in commands:
        if command.number == CLONE:
            assert command.value(CLONE_UUID) == uuid or own != command.value(CLONE_UUID)
    return [
        command.changed({CLONE_UUID: own})
        if command.number == CLONE and command.value(CLONE_UUID) == uuid
        else command
        for command in commands[1:-1]
    ]


@given(LONG, VERSIONS, LEAST, st.data())
def test_segments_do_not_depend_on_the_chunks(
    commands: list[Command], version: int, least: int, data: st.DataObject
) -> None:
    stream = encode(commands, version)
    found = cut(pieces(data, stream), least)
    assert found == cut(all_of(stream), least)
    assert b"".join(found) == stream
    assert all(len(segment) >= least for segment in found[:-1])


@given(LONG, VERSIONS, LEAST)
def test_no_segment_ends_where_little_is_left(
    commands: list[Command], version: int, least: int
) -> None:
    stream = encode(commands, version)
    anywhere, worth = checkpoints(stream, least), len(stream) - least // 16
    expected = [found for found in anywhere if found.bytes <= worth]
    assert checkpoints(stream, least, size=len(stream)) == expected
    for held in expected:
        rest = Segments(least, held, size=len(stream))
        after = [
            rest.checkpoint().bytes
            for piece in rest.feed(memoryview(stream)[held.bytes :])
            if piece is None
        ]
        assert after == [found.bytes for found in expected if found.bytes > held.bytes]


@given(LONG, VERSIONS, LEAST)
def test_a_stream_that_is_longer_than_was_said_is_cut_all_the_same(
    commands: list[Command], version: int, least: int
) -> None:
    stream = encode(commands, version)
    assert checkpoints(stream, least, size=1) == checkpoints(stream, least)


@given(LONG, VERSIONS, LEAST)
def test_receivers_are_given_all_commands_in_order(
    commands: list[Command], version: int, least: int
) -> None:
    own = commands[0].value(UUID)
    segments = cut(all_of(encode(commands, version)), least)
    seen = [
        command
        for number, segment in enumerate(segments)
        for command in received(segment, number, len(segments) - 1, own, version)
    ]
    assert seen == commands[1:-1]


@given(LONG, VERSIONS, LEAST)
def test_cuts_are_where_nothing_is_open(commands: list[Command], version: int, least: int) -> None:
    allowed, position, together = set(), HEADER_BYTES, False
    for command, after in pairwise(commands):
        position += len(encode_command(command, version))
        if command.number == SET_XATTR and CAPABILITY in command.value(XATTR_NAME):
            together = True
        if command.number == UTIMES:
            together = False
        if command.number in CLOSING and not together and after.number != END:
            allowed.add(position)
    expected = [0]
    for place in sorted(allowed):
        if place - expected[-1] >= least:
            expected.append(place)
    segments = cut(all_of(encode(commands, version)), least)[:-1]
    assert [0, *accumulate(map(len, segments))] == expected


@given(LONG, VERSIONS, LEAST, st.data())
def test_a_least_that_is_lowered_goes_for_the_segment_under_way(
    commands: list[Command], version: int, least: int, data: st.DataObject
) -> None:
    stream = memoryview(encode(commands, version))
    when = data.draw(st.integers(0, len(stream)), label="when")
    segments, found = Segments(len(stream)), [b""]
    for part in (stream[:when], stream[when:]):
        for piece in segments.feed(part):
            if piece is None:
                found.append(b"")
            else:
                found[-1] += piece
        segments.least = least
    assert b"".join(found) == stream
    assert all(len(segment) >= least for segment in found[:-1])
    anywhere = accumulate(map(len, cut([stream], 1)[:-1]))
    late = [place for place in anywhere if place >= max(when, least)]
    assert len(found[0]) <= (late[0] if late else len(stream))


@given(LONG, VERSIONS, LEAST, st.data())
def test_the_rest_of_the_same_stream_follows(
    commands: list[Command], version: int, least: int, data: st.DataObject
) -> None:
    """Gone on with again and again, as by one run after the other."""
    stream = encode(commands, version)
    checksum = data.draw(st.booleans(), label="checksum")
    found = checkpoints(stream, least, checksum=checksum)
    assume(found)
    checkpoint = data.draw(st.sampled_from(found))
    for _run in range(3):
        assert (checkpoint.crc32c is not None) == checksum
        rest = b"".join(map(bytes, rest_of(pieces(data, stream), checkpoint)))
        assert rest == stream[checkpoint.bytes :]
        segments = Segments(least, checkpoint)
        later = [segments.checkpoint() for p in segments.feed(memoryview(rest)) if p is None]
        if not later:
            break
        checkpoint = later[0]


@given(LONG, VERSIONS, LEAST, st.data())
def test_another_stream_is_refused_before_its_first_byte(
    commands: list[Command], version: int, least: int, data: st.DataObject
) -> None:
    stream = encode(commands, version)
    found = checkpoints(stream, least)
    assume(found)
    checkpoint = data.draw(st.sampled_from(found))
    changed = bytearray(stream)
    place = data.draw(st.integers(HEADER_BYTES, checkpoint.bytes - 1), label="place")
    changed[place] ^= data.draw(st.integers(1, 255), label="change")
    for other in (bytes(changed), stream[: checkpoint.bytes - 1]):
        given_back = rest_of(pieces(data, other), checkpoint)
        with pytest.raises(ResumeError):
            next(given_back)


@given(LONG, VERSIONS, LEAST, st.data())
def test_without_a_checksum_another_command_shows_all_the_same(
    commands: list[Command], version: int, least: int, data: st.DataObject
) -> None:
    found = checkpoints(encode(commands, version), least, checksum=False)
    assume(found)
    place = data.draw(st.integers(0, len(commands) - 2), label="place")
    other = [*commands[: place + 1], utimes(b"another"), *commands[place + 1 :]]
    begin = len(encode(commands[: place + 1], version))
    for checkpoint in found:
        if checkpoint.bytes <= begin:
            continue
        with pytest.raises(ResumeError):
            next(rest_of(pieces(data, encode(other, version)), checkpoint))


@given(GARBAGE, LEAST, st.data())
def test_garbage_raises_nothing_else(garbage: bytes, least: int, data: st.DataObject) -> None:
    try:
        found = cut(pieces(data, garbage), least)
    except StreamError:
        return
    assert garbage.startswith(b"".join(found))


@given(COMMANDS, VERSIONS)
def test_a_short_stream_is_one_segment(commands: list[Command], version: int) -> None:
    stream = encode(commands, version)
    assert cut(all_of(stream), len(stream)) == [stream]
