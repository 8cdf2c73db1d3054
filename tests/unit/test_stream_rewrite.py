"""A stream's new identity, and everything that is not a whole stream, at every cut of its bytes."""

from __future__ import annotations

import pytest

from buttersink.catalogue import Uuid
from buttersink.errors import StreamError
from buttersink.stream import Identity, Rewriter
from tests.support.streams import (
    CHOWN,
    CLONE,
    CLONE_CTRANSID,
    CLONE_UUID,
    COMMAND_BYTES,
    CTRANSID,
    HEADER_BYTES,
    KERNEL_STREAM,
    KERNEL_STREAM_V2,
    MAGIC,
    PATH,
    SNAPSHOT,
    SUBVOL,
    UUID,
    WRITE,
    Command,
    chmod,
    chown,
    clone,
    decode,
    encode,
    encode_command,
    end,
    mkfile,
    rename,
    seal,
    snapshot,
    subvol,
    write,
)

KIB = 1 << 10
ITSELF, PARENT, OTHER, NEW, NEW_PARENT, NEW_OTHER = (Uuid(bytes([n]) * 16) for n in range(1, 7))

FIRST = snapshot(b"monday", ITSELF, 11, PARENT, 10)
COMMANDS = [
    FIRST,
    mkfile(b"o257-7-0"),
    write(b"o257-7-0", 0, b"hello"),
    clone(b"o257-7-0", ITSELF),
    clone(b"o257-7-0", PARENT),
    clone(b"o257-7-0", OTHER),
    end(),
]
ALL_NEW = Identity(
    uuid=NEW,
    generation=77,
    name=b".a much longer name.part",
    parent=NEW_PARENT,
    parent_generation=76,
    clones={ITSELF: NEW, PARENT: NEW_PARENT},
)


def rewritten(
    stream: bytes, identity: Identity, *cuts: int, restore_mode: Modes | None = None
) -> bytes:
    """Return what comes out when the stream is fed in pieces that end at these offsets."""
    rewriter = Rewriter(identity, restore_mode)
    out = b""
    for start, stop in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        out += b"".join(rewriter.feed(memoryview(stream[start:stop])))
    rewriter.finish()
    return out


class Modes:
    """Permissions to restore by path, and what was asked for."""

    def __init__(self, **modes: int) -> None:
        self.modes = modes
        self.asked: list[tuple[bytes, int, int]] = []

    def __call__(self, path: bytes, owner: int, group: int) -> int | None:
        self.asked.append((path, owner, group))
        return self.modes.get(path.decode())


def first_of(stream: bytes) -> Command:
    return decode(stream)[1][0]


def refuse(stream: bytes, identity: Identity | None = None) -> str:
    """Return what the error says that feeding or finishing this must raise."""
    with pytest.raises(StreamError) as refusal:
        rewritten(stream, identity or Identity())
    return str(refusal.value)


class TestNewIdentity:
    def test_without_one_a_kernels_stream_passes_unchanged(self) -> None:
        assert rewritten(KERNEL_STREAM, Identity()) == KERNEL_STREAM
        assert rewritten(KERNEL_STREAM_V2, Identity()) == KERNEL_STREAM_V2

    @pytest.mark.parametrize("version", [1, 2])
    def test_changes_the_named_fields_and_nothing_else(self, version: int) -> None:
        expected = [
            snapshot(b".a much longer name.part", NEW, 77, NEW_PARENT, 76),
            *COMMANDS[1:3],
            clone(b"o257-7-0", NEW),
            clone(b"o257-7-0", NEW_PARENT),
            clone(b"o257-7-0", OTHER),
            end(),
        ]
        out = rewritten(encode(COMMANDS, version), ALL_NEW)
        assert out == encode(expected, version)

    @pytest.mark.parametrize(
        ("identity", "changes"),
        [
            (Identity(uuid=NEW), {UUID: NEW}),
            (Identity(generation=2**64 - 1), {CTRANSID: b"\xff" * 8}),
            (Identity(generation=0), {CTRANSID: bytes(8)}),
            (Identity(name=b"\n \xff"), {PATH: b"\n \xff"}),
            (Identity(name=b""), {PATH: b""}),
            (Identity(parent=NEW), {CLONE_UUID: NEW}),
            (Identity(parent_generation=3), {CLONE_CTRANSID: b"\3" + bytes(7)}),
        ],
    )
    def test_each_field_alone(self, identity: Identity, changes: dict[int, bytes]) -> None:
        out = rewritten(encode(COMMANDS), identity)
        assert out == encode([FIRST.changed(changes), *COMMANDS[1:]])

    def test_of_a_full_stream_has_no_parent_to_change(self) -> None:
        stream = encode([subvol(b"monday", ITSELF, 11), end()])
        expected = [subvol(b".a much longer name.part", NEW, 77), end()]
        assert rewritten(stream, ALL_NEW) == encode(expected)

    def test_keeps_attributes_that_it_does_not_know(self) -> None:
        first = Command(SUBVOL, ((99, b"later"), *FIRST.attributes, (98, b"")))
        out = rewritten(encode([first, end()]), Identity(uuid=NEW))
        assert first_of(out) == first.changed({UUID: NEW})

    def test_does_not_touch_the_mapping_it_was_given(self) -> None:
        clones = {bytes(ITSELF): bytes(NEW)}
        rewritten(encode(COMMANDS), Identity(clones=clones))
        assert clones == {ITSELF: NEW}


class TestCloneSources:
    def test_without_names_for_them_pass_with_whatever_is_in_them(self) -> None:
        odd = Command(CLONE, ((CLONE_UUID, b"short"), (PATH, b"x" * 20 * KIB)))
        stream = encode([FIRST, odd, end()])
        assert rewritten(stream, Identity(uuid=NEW)) == encode(
            [FIRST.changed({UUID: NEW}), odd, end()]
        )

    def test_are_swapped_not_followed_from_name_to_name(self) -> None:
        stream = encode([FIRST, clone(b"f", ITSELF), clone(b"f", PARENT), end()])
        swap = Identity(clones={ITSELF: PARENT, PARENT: ITSELF})
        expected = [FIRST, clone(b"f", PARENT), clone(b"f", ITSELF), end()]
        assert rewritten(stream, swap) == encode(expected)

    def test_are_renamed_by_uuid_not_by_a_path_that_looks_like_one(self) -> None:
        stream = encode([FIRST, clone(ITSELF, OTHER, source=ITSELF), end()])
        assert rewritten(stream, Identity(clones={ITSELF: NEW})) == stream

    def test_with_the_longest_paths_there_are(self) -> None:
        longest = clone(b"p" * 4095, ITSELF, source=b"s" * 4095)
        stream = encode([FIRST, longest, end()])
        out = rewritten(stream, Identity(clones={ITSELF: NEW}))
        assert out == encode([FIRST, longest.changed({CLONE_UUID: NEW}), end()])

    def test_with_a_wrong_checksum_are_refused_where_they_are_renamed(self) -> None:
        stream = bytearray(encode([FIRST, clone(b"f", ITSELF), end()]))
        stream[-COMMAND_BYTES - 1] ^= 1
        assert "wrong checksum in command 16" in refuse(bytes(stream), ALL_NEW)

    def test_may_not_claim_more_than_they_can_be(self) -> None:
        stream = encode([FIRST, Command(CLONE, ((PATH, b"x" * 20 * KIB),)), end()])
        assert "command 16 claims" in refuse(stream, ALL_NEW)


class TestModes:
    """Permissions are set again after a change of owner, which takes some of them away."""

    @pytest.mark.parametrize("version", [1, 2])
    def test_are_set_after_the_owner(self, version: int) -> None:
        commands = [FIRST, chown(b"a", 1, 2), mkfile(b"x"), chown(b"b", 3, 4), end()]
        expected = [*commands[:2], chmod(b"a", 0o4755), *commands[2:4], chmod(b"b", 0), end()]
        out = rewritten(encode(commands, version), Identity(), restore_mode=Modes(a=0o4755, b=0))
        assert out == encode(expected, version)

    def test_are_asked_for_by_path_and_new_owner(self) -> None:
        modes = Modes()
        stream = encode([FIRST, chown(b"a", 1, 2), chown(b"b", 2**32 - 1, 0), end()])
        rewritten(stream, Identity(), restore_mode=modes)
        assert modes.asked == [(b"a", 1, 2), (b"b", 2**32 - 1, 0)]

    def test_are_asked_for_by_the_path_in_the_parent(self) -> None:
        moves = rename(b"a", b"b"), mkfile(b"o300-7-0", 300), rename(b"o300-7-0", b"f")
        stream = encode([FIRST, *moves, chown(b"f", 1, 2), chown(b"b/c", 3, 4), end()])
        for cuts in ((), range(1, len(stream))):
            modes = Modes()
            assert rewritten(stream, Identity(), *cuts, restore_mode=modes) == stream
            assert modes.asked == [(b"a/c", 3, 4)]

    def test_are_left_alone_where_none_is_told(self) -> None:
        stream = encode([FIRST, chown(b"a", 1, 2), chmod(b"a", 7), chown(b"b", 1, 2), end()])
        assert rewritten(stream, Identity(), restore_mode=Modes(c=1)) == stream

    def test_are_left_alone_where_nobody_is_asked(self) -> None:
        stream = encode([FIRST, Command(CHOWN, ((PATH, b"x" * 20 * KIB),)), end()])
        assert rewritten(stream, Identity()) == stream

    def test_do_not_depend_on_the_cuts(self) -> None:
        stream = encode([FIRST, chown(b"a", 1, 2), clone(b"f", ITSELF), chown(b"b", 3, 4), end()])
        whole = rewritten(stream, ALL_NEW, restore_mode=Modes(a=1, b=2))
        for cut in range(len(stream)):
            assert rewritten(stream, ALL_NEW, cut, restore_mode=Modes(a=1, b=2)) == whole

    def test_are_not_asked_for_twice_where_a_command_is_cut(self) -> None:
        stream = encode([FIRST, chown(b"a", 1, 2), end()])
        modes = Modes()
        rewritten(stream, Identity(), *range(1, len(stream)), restore_mode=modes)
        assert len(modes.asked) == 1

    def test_after_a_change_of_owner_with_a_wrong_checksum_are_refused(self) -> None:
        stream = bytearray(encode([FIRST, chown(b"a", 1, 2), end()]))
        stream[-COMMAND_BYTES - 1] ^= 1
        with pytest.raises(StreamError, match="wrong checksum in command 19"):
            rewritten(bytes(stream), Identity(), restore_mode=Modes(a=1))


class TestChunks:
    @pytest.mark.parametrize("version", [1, 2])
    def test_cut_anywhere_in_two_give_the_same(self, version: int) -> None:
        stream = encode(COMMANDS, version)
        whole = rewritten(stream, ALL_NEW)
        for cut in range(len(stream) + 1):
            assert rewritten(stream, ALL_NEW, cut) == whole, cut

    @pytest.mark.parametrize("version", [1, 2])
    def test_of_one_byte_give_the_same(self, version: int) -> None:
        stream = encode(COMMANDS, version)
        assert rewritten(stream, ALL_NEW, *range(1, len(stream))) == rewritten(stream, ALL_NEW)

    def test_of_no_bytes_change_nothing(self) -> None:
        stream = encode(COMMANDS)
        cuts = [cut for cut in range(len(stream)) for _ in range(3)]
        assert rewritten(stream, ALL_NEW, *cuts) == rewritten(stream, ALL_NEW)

    def test_of_a_big_command_pass_at_once_and_uncopied(self) -> None:
        big = encode_command(write(b"f", 0, b"x" * 40 * KIB))
        rewriter = Rewriter(ALL_NEW)
        rewriter.feed(memoryview(encode([FIRST]) + big[:1000]))
        chunk = memoryview(big[1000 : 30 * KIB])
        (part,) = rewriter.feed(chunk)
        assert isinstance(part, memoryview)
        assert part.obj is chunk.obj
        assert part == chunk

    def test_may_hold_many_commands_around_a_renamed_one(self) -> None:
        many = [mkfile(b"%d" % number) for number in range(1000)]
        stream = encode([FIRST, *many, clone(b"f", ITSELF), *many, end()])
        expected = [FIRST, *many, clone(b"f", NEW), *many, end()]
        assert rewritten(stream, Identity(clones={ITSELF: NEW})) == encode(expected)

    def test_are_counted_as_they_come_in(self) -> None:
        rewriter = Rewriter(ALL_NEW)
        rewriter.feed(memoryview(encode(COMMANDS)[:100]))
        assert rewriter.consumed == 100

    def test_give_back_every_command_as_soon_as_it_is_whole(self) -> None:
        rewriter, stream = Rewriter(ALL_NEW), encode([FIRST, clone(b"f", ITSELF)])
        out = b"".join(rewriter.feed(memoryview(stream)))
        assert [command.number for command in decode(out)[1]] == [SNAPSHOT, CLONE]

    def test_that_were_handed_on_do_not_change_with_later_ones(self) -> None:
        stream = encode(COMMANDS)
        rewriter = Rewriter(ALL_NEW)
        parts = [part for byte in stream for part in rewriter.feed(memoryview(bytes([byte])))]
        assert b"".join(parts) == rewritten(stream, ALL_NEW)


class TestRefusal:
    @pytest.mark.parametrize("identity", [Identity(), ALL_NEW])
    def test_of_a_stream_cut_anywhere(self, identity: Identity) -> None:
        stream = encode(COMMANDS)
        for length in range(len(stream)):
            assert f"stops after {length} bytes" in refuse(stream[:length], identity)

    @pytest.mark.parametrize("more", [b"\0", encode_command(end()), encode(COMMANDS)])
    def test_of_bytes_after_the_end(self, more: bytes) -> None:
        assert "bytes after its end" in refuse(encode(COMMANDS) + more)

    def test_of_bytes_that_come_later_than_the_end(self) -> None:
        rewriter = Rewriter(Identity())
        rewriter.feed(memoryview(encode(COMMANDS)))
        with pytest.raises(StreamError, match="bytes after its end"):
            rewriter.feed(memoryview(b"\0"))

    def test_of_a_first_command_with_any_bit_wrong(self) -> None:
        stream = encode(COMMANDS)
        first = range(HEADER_BYTES, HEADER_BYTES + len(encode_command(FIRST)))
        for position in first:
            for bit in range(8):
                damaged = bytearray(stream)
                damaged[position] ^= 1 << bit
                assert refuse(bytes(damaged))

    def test_names_the_command_whose_checksum_is_wrong(self) -> None:
        stream = bytearray(encode(COMMANDS))
        stream[HEADER_BYTES + COMMAND_BYTES + 5] ^= 1
        assert refuse(bytes(stream)).endswith(f"wrong checksum in command {SNAPSHOT}")

    def test_of_what_does_not_begin_as_a_stream(self) -> None:
        assert "not a btrfs send stream" in refuse(b"Welcome to backup.example.org!\n" * 10)

    @pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
    def test_of_a_version_that_is_not_known(self, version: int) -> None:
        assert f"version {version}" in refuse(encode(COMMANDS, version=version))

    @pytest.mark.parametrize("first", [mkfile(b"f"), end(), clone(b"f", ITSELF), Command(0)])
    def test_of_a_stream_that_does_not_begin_with_a_subvolume(self, first: Command) -> None:
        assert "does not begin with a subvolume" in refuse(encode([first, *COMMANDS]))

    @pytest.mark.parametrize("body", [b"\x0f", b"\x0f\0\1", b"\x0f\0\5\0abcd"])
    def test_of_an_attribute_that_is_longer_than_its_command(self, body: bytes) -> None:
        assert "cut attribute in command 1" in refuse(encode([]) + seal(SUBVOL, body))

    def test_of_nothing_at_all(self) -> None:
        assert "stops after 0 bytes" in refuse(b"")

    def test_of_an_end_that_claims_a_body_it_does_not_have(self) -> None:
        claiming = bytearray(encode([FIRST, end()]))
        claiming[-COMMAND_BYTES] = 1
        assert "stops after" in refuse(bytes(claiming))


class TestMemory:
    """No length that a stream claims makes the rewriter hold more than a few pages."""

    def test_a_command_of_four_gigabytes_passes_by_its_length(self) -> None:
        head = (2**32 - 1).to_bytes(4, "little") + WRITE.to_bytes(2, "little") + bytes(4)
        rewriter = Rewriter(ALL_NEW)
        rewriter.feed(memoryview(encode([FIRST]) + head))
        for _ in range(100):
            assert sum(map(len, rewriter.feed(memoryview(bytes(KIB))))) == KIB
        with pytest.raises(StreamError):
            rewriter.finish()

    @pytest.mark.parametrize("number", [SUBVOL, SNAPSHOT])
    def test_a_first_command_that_claims_too_much_is_refused_at_once(self, number: int) -> None:
        head = (2**32 - 1).to_bytes(4, "little") + number.to_bytes(2, "little") + bytes(4)
        assert f"command {number} claims 4,294,967,295 bytes" in refuse(
            MAGIC + b"\1\0\0\0" + head, Identity()
        )

    def test_a_clone_that_claims_too_much_is_refused_at_once(self) -> None:
        head = (2**32 - 1).to_bytes(4, "little") + CLONE.to_bytes(2, "little") + bytes(4)
        assert "claims 4,294,967,295 bytes" in refuse(encode([FIRST]) + head, ALL_NEW)
