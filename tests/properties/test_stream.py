"""The send stream under random commands, cuts, damage and garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import Uuid
from buttersink.errors import StreamError
from buttersink.stream import Identity, Rewriter, StreamCheck, StreamFacts, StreamSize
from tests.support.streams import (
    CHOWN,
    CLONE,
    CLONE_CTRANSID,
    CLONE_UUID,
    COMMAND_BYTES,
    CTRANSID,
    GID,
    HEADER_BYTES,
    PATH,
    UID,
    UPDATE_EXTENT,
    UUID,
    Command,
    chmod,
    chown,
    clone,
    decode,
    encode,
    encode_command,
    end,
    mkfile,
    snapshot,
    subvol,
    update_extent,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLDS_AT_MOST = HEADER_BYTES + COMMAND_BYTES + 16 * 1024  # bytes: the longest first command
READ_SIZE = 48 * 1024

UUIDS = st.sampled_from([Uuid(bytes([number]) * 16) for number in range(4)])
GENERATIONS = st.integers(0, 2**64 - 1)
PATHS = st.binary(min_size=1, max_size=40)
VERSIONS = st.sampled_from([1, 2])

FIRSTS = st.one_of(
    st.builds(subvol, PATHS, UUIDS, GENERATIONS),
    st.builds(snapshot, PATHS, UUIDS, GENERATIONS, UUIDS, GENERATIONS),
)
UNKNOWN = st.builds(
    Command,
    st.integers(23, 2**16 - 1),
    st.lists(st.tuples(st.integers(40, 2**16 - 1), st.binary(max_size=20)), max_size=3).map(tuple),
)
OWNERS = st.integers(0, 2**32 - 1)
OTHERS = st.one_of(st.builds(mkfile, PATHS), st.builds(chown, PATHS, OWNERS, OWNERS), UNKNOWN)
WRITES = st.builds(write, PATHS, GENERATIONS, st.binary(max_size=200))
CLONES = st.builds(clone, PATHS, UUIDS)
COMMANDS = st.builds(
    lambda first, rest: [first, *rest, end()],
    FIRSTS,
    st.lists(st.one_of(OTHERS, WRITES, CLONES), max_size=12),
)
STREAMS = st.builds(encode, COMMANDS, VERSIONS)
IDENTITIES = st.builds(
    Identity,
    uuid=st.none() | UUIDS,
    generation=st.none() | GENERATIONS,
    name=st.none() | PATHS,
    parent=st.none() | UUIDS,
    parent_generation=st.none() | GENERATIONS,
    clones=st.dictionaries(UUIDS, UUIDS),
)
CLONES_RENAMED = Identity(clones={Uuid(bytes(16)): Uuid(b"n" * 16)})

EXTENTS = st.builds(
    update_extent, st.sampled_from([b"f", b"g"]), st.integers(0, 9), st.integers(0, 200_000)
)
NO_DATA_COMMANDS = st.builds(
    lambda first, rest: [first, *rest, end()],
    FIRSTS,
    st.lists(st.one_of(OTHERS, CLONES, EXTENTS), max_size=10),
)

GARBAGE = st.one_of(
    st.binary(),
    st.binary().map(lambda tail: encode([]) + tail),
    st.builds(lambda first, tail: encode([first]) + tail, FIRSTS, st.binary()),
    st.builds(
        lambda stream, place, tail: stream[:place] + tail + stream[place:],
        STREAMS,
        st.integers(0, 500),
        st.binary(max_size=30),
    ),
)


def cut_short(stream: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(stream) - 1).map(lambda length: stream[:length])


def pieces(data: st.DataObject, whole: bytes) -> Iterator[memoryview]:
    """Cut bytes at random places."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12), label="cuts"))
    for start, stop in zip((0, *cuts), (*cuts, len(whole)), strict=True):
        yield memoryview(whole)[start:stop]


def mode_of(path: bytes, owner: int, group: int) -> int | None:
    """Return permissions for about half of all changes of owner."""
    return len(path) + owner if group % 2 else None


def rewritten(chunks: Iterator[memoryview], identity: Identity) -> bytes:
    rewriter = Rewriter(identity, mode_of)
    out = b"".join(bytes(part) for chunk in chunks for part in rewriter.feed(chunk))
    rewriter.finish()
    return out


def size_of(chunks: Iterator[memoryview]) -> int:
    size = StreamSize()
    for chunk in chunks:
        size.feed(chunk)
    return size.result()


def expected(commands: list[Command], identity: Identity) -> Iterator[Command]:
    """Yield what the commands of a stream are to become."""
    for index, command in enumerate(commands):
        yield named(command, identity, first=not index)
        if command.number == CHOWN:
            owner, group = (int.from_bytes(command.value(kind), "little") for kind in (UID, GID))
            mode = mode_of(command.value(PATH), owner, group)
            if mode is not None:
                yield chmod(command.value(PATH), mode)


def named(command: Command, identity: Identity, *, first: bool) -> Command:
    if command.number == CLONE:
        old = command.value(CLONE_UUID)
        return command.changed({CLONE_UUID: identity.clones.get(old, old)})
    if not first:
        return command
    wanted = {
        UUID: identity.uuid,
        PATH: identity.name,
        CLONE_UUID: identity.parent,
        CTRANSID: _u64(identity.generation),
        CLONE_CTRANSID: _u64(identity.parent_generation),
    }
    return command.changed({kind: value for kind, value in wanted.items() if value is not None})


def _u64(number: int | None) -> bytes | None:
    return None if number is None else number.to_bytes(8, "little")


@given(COMMANDS, VERSIONS, IDENTITIES, st.data())
def test_only_the_named_fields_change(
    commands: list[Command], version: int, identity: Identity, data: st.DataObject
) -> None:
    out = rewritten(pieces(data, encode(commands, version)), identity)
    assert decode(out) == (version, list(expected(commands, identity)))


@given(STREAMS, IDENTITIES, st.data())
def test_the_output_does_not_depend_on_the_cuts(
    stream: bytes, identity: Identity, data: st.DataObject
) -> None:
    at_once = rewritten(iter([memoryview(stream)]), identity)
    assert rewritten(pieces(data, stream), identity) == at_once


@given(STREAMS, IDENTITIES, st.data())
def test_a_stream_cut_short_is_refused(
    stream: bytes, identity: Identity, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, len(stream) - 1), label="length")
    assert refused(pieces(data, stream[:length]), identity)


@given(STREAMS, st.binary(min_size=1), IDENTITIES, st.data())
def test_a_stream_with_more_after_its_end_is_refused(
    stream: bytes, more: bytes, identity: Identity, data: st.DataObject
) -> None:
    assert refused(pieces(data, stream + more), identity)


@given(FIRSTS, STREAMS, IDENTITIES, st.data())
def test_a_first_command_with_a_damaged_byte_is_refused(
    first: Command, rest: bytes, identity: Identity, data: st.DataObject
) -> None:
    last = HEADER_BYTES + len(encode_command(first))
    stream = bytearray(encode([first]) + rest[HEADER_BYTES:])
    place = data.draw(st.integers(HEADER_BYTES, last - 1), label="place")
    stream[place] ^= data.draw(st.integers(1, 255), label="damage")
    assert refused(pieces(data, bytes(stream)), identity)


def refused(chunks: Iterator[memoryview], identity: Identity) -> bool:
    try:
        rewritten(chunks, identity)
    except StreamError:
        return True
    return False


@given(
    GARBAGE,
    st.data(),
)
def test_garbage_raises_nothing_else_and_little_of_it_is_held(
    garbage: bytes, data: st.DataObject
) -> None:
    rewriter, taken, given_back = Rewriter(CLONES_RENAMED), 0, 0
    try:
        for chunk in pieces(data, garbage):
            taken += len(chunk)
            given_back += sum(map(len, rewriter.feed(chunk)))
            assert 0 <= taken - given_back <= HOLDS_AT_MOST
        rewriter.finish()
    except StreamError:
        pass


@given(NO_DATA_COMMANDS, st.data())
def test_the_size_is_that_of_the_stream_with_its_data(
    commands: list[Command], data: st.DataObject
) -> None:
    length = HEADER_BYTES
    for command in commands:
        if command.number == UPDATE_EXTENT:
            length += sum(map(len, written_out(command)))
        else:
            length += len(encode_command(command))
    assert size_of(pieces(data, encode(commands))) == length


@given(NO_DATA_COMMANDS, st.data())
def test_what_is_doubtful_does_not_depend_on_the_cuts(
    commands: list[Command], data: st.DataObject
) -> None:
    at_once, in_pieces = StreamSize(), StreamSize()
    at_once.feed(encode(commands))
    for piece in pieces(data, encode(commands)):
        in_pieces.feed(piece)
    assert at_once.result() == in_pieces.result()
    assert at_once.doubts == in_pieces.doubts
    assert at_once.owner_changes == in_pieces.owner_changes


def written_out(extent: Command) -> Iterator[bytes]:
    """Yield the WRITE commands that a metadata-only stream leaves out."""
    left = int.from_bytes(extent.attributes[-1][1], "little")
    while left:
        piece = min(left, READ_SIZE)
        yield encode_command(write(extent.value(PATH), 0, bytes(piece)))
        left -= piece


@given(st.one_of(st.binary(), st.binary().map(lambda tail: encode([]) + tail)), st.data())
def test_the_size_of_garbage_is_refused(garbage: bytes, data: st.DataObject) -> None:
    try:
        size_of(pieces(data, garbage))
    except StreamError:
        return
    assert garbage[HEADER_BYTES:], "an empty stream has no end"


def facts_of(chunks: Iterator[memoryview]) -> StreamFacts | str:
    """Return what a check tells of a stream, or what it finds wrong."""
    check = StreamCheck()
    try:
        for chunk in chunks:
            check.feed(chunk)
        return check.finish()
    except StreamError as error:
        return str(error)


@given(COMMANDS, VERSIONS, st.data())
def test_the_facts_are_those_of_the_commands_however_they_are_cut(
    commands: list[Command], version: int, data: st.DataObject
) -> None:
    stream = encode(commands, version)
    facts = facts_of(pieces(data, stream))
    assert isinstance(facts, StreamFacts)
    first = dict(commands[0].attributes)
    clones = (command for command in commands if command.number == CLONE)
    assert facts == StreamFacts(
        version=version,
        uuid=Uuid(first[UUID]),
        generation=int.from_bytes(first[CTRANSID], "little"),
        parent=Uuid(first[CLONE_UUID]) if CLONE_UUID in first else None,
        clone_sources=frozenset(Uuid(command.value(CLONE_UUID)) for command in clones),
        commands=len(commands),
        bytes=len(stream),
    )


@given(STREAMS, st.data())
def test_every_flipped_bit_is_found_at_the_same_byte_however_it_is_cut(
    stream: bytes, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, 8 * len(stream) - 1), label="bit")
    damaged = bytearray(stream)
    damaged[bit // 8] ^= 1 << bit % 8
    found = facts_of(pieces(data, bytes(damaged)))
    assert isinstance(found, str)
    assert "at byte" in found
    assert found == facts_of(iter([memoryview(bytes(damaged))]))


@given(st.one_of(GARBAGE, STREAMS.flatmap(cut_short)), st.data())
def test_what_is_wrong_does_not_depend_on_the_cuts(garbage: bytes, data: st.DataObject) -> None:
    assert facts_of(pieces(data, garbage)) == facts_of(iter([memoryview(garbage)]))
