"""Frames as bytes: what a decoder takes, refuses, and never holds."""

from __future__ import annotations

import pytest

from buttersink.errors import ProtocolError
from buttersink.remote.protocol import (
    HEADER,
    MAGIC,
    MAX_PAYLOAD,
    Decoder,
    ForeignBytesError,
    Kind,
    Versions,
    agree,
    encode,
    header,
    json_bytes,
    parse_json,
)


def started() -> Decoder:
    decoder = Decoder()
    assert list(decoder.feed(MAGIC)) == []
    return decoder


def frames(decoder: Decoder, raw: bytes) -> list[tuple[Kind, bytes]]:
    return [(frame.kind, bytes(frame.payload)) for frame in decoder.feed(raw)]


def test_a_frame_is_kind_length_checksum_and_payload() -> None:
    """By hand; CRC32C of 04 61 62 63 is what any other implementation makes of it."""
    raw = encode(Kind.DATA, b"abc")
    assert raw[:5] == b"\x04\x03\x00\x00\x00"
    assert raw[9:] == b"abc"
    assert raw[5:9] == reference_crc32c(b"\x04abc").to_bytes(4, "little")


def reference_crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _bit in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_long_payload_has_one_checksum() -> None:
    payload = bytes(range(256)) * 2000
    _kind, length, checksum = HEADER.unpack(header(Kind.DATA, memoryview(payload)))
    assert (length, checksum) == (len(payload), reference_crc32c(b"\x04" + payload))


class TestDecoder:
    @pytest.mark.parametrize("size", [0, 1, 100, MAX_PAYLOAD - 1, MAX_PAYLOAD])
    def test_gives_back_what_was_encoded(self, size: int) -> None:
        payload = (b"0123456789" * (size // 10 + 1))[:size]
        assert frames(started(), encode(Kind.DATA, payload)) == [(Kind.DATA, payload)]

    def test_byte_by_byte_at_once_and_with_more_behind(self) -> None:
        raw = encode(Kind.HELLO, b"{}") + encode(Kind.ALIVE) * 2 + encode(Kind.DATA, b"x" * 50)
        expected = [(Kind.HELLO, b"{}"), (Kind.ALIVE, b""), (Kind.ALIVE, b"")]
        expected.append((Kind.DATA, b"x" * 50))
        assert frames(started(), raw) == expected
        decoder = started()
        single = [found for byte in raw for found in frames(decoder, bytes((byte,)))]
        assert single == expected
        decoder = started()
        assert frames(decoder, raw + b"\x04\x05") == expected
        assert decoder.held == 2

    def test_has_no_room_for_more_than_a_frame_and_a_header(self) -> None:
        decoder = started()
        assert len(decoder.room()) == HEADER.size
        list(decoder.feed(encode(Kind.DATA, b"x" * 100)[: HEADER.size]))
        assert len(decoder.room()) == 100 + HEADER.size

    @pytest.mark.parametrize("kind", [0, 10, 255])
    def test_refuses_a_kind_that_there_is_not(self, kind: int) -> None:
        with pytest.raises(ProtocolError, match=f"there is no kind {kind}"):
            frames(started(), HEADER.pack(kind, 0, 0))

    @pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 2**31, 2**32 - 1])
    def test_refuses_a_length_before_it_has_more_than_the_header(self, length: int) -> None:
        with pytest.raises(ProtocolError, match=f"it claims to have {length:,} bytes"):
            frames(started(), HEADER.pack(Kind.DATA, length, 0))

    @pytest.mark.parametrize("place", [0, 5, 8, 9, 11])
    def test_finds_a_changed_byte(self, place: int) -> None:
        raw = bytearray(encode(Kind.DATA, b"abc"))
        raw[place] ^= 1
        with pytest.raises(ProtocolError):
            frames(started(), bytes(raw) + bytes(20))

    @pytest.mark.parametrize(
        "banner",
        [b"Welcome!\n", b"\n", b"buttersink-protocol\r\n", b"\0", MAGIC[1:], b"buttersunk"],
    )
    def test_tells_a_banner_from_the_program(self, banner: bytes) -> None:
        with pytest.raises(ForeignBytesError) as found:
            frames(Decoder(), banner + MAGIC)
        assert found.value.seen
        assert (banner + MAGIC).startswith(found.value.seen)


def test_what_is_too_long_for_a_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"1,048,577 bytes"):
        encode(Kind.DATA, bytes(MAX_PAYLOAD + 1))


class TestJson:
    def test_is_read_as_it_was_written(self) -> None:
        document = {"path": "a\udcff\n", "number": 2**63}
        raw = json_bytes(document)
        assert raw.isascii()
        assert parse_json(memoryview(raw)) == document

    @pytest.mark.parametrize(
        "raw",
        [
            *(b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff"),
            pytest.param(b"[" * 100_000, id="deep list"),
            pytest.param(b'{"a":' * 100_000, id="deep object"),
            pytest.param(b'{"a": ' + b"9" * 5000 + b"}", id="long number"),
        ],
    )
    def test_that_is_none_is_refused(self, raw: bytes) -> None:
        with pytest.raises(ProtocolError, match="damaged message"):
            parse_json(memoryview(raw))


class TestVersions:
    @pytest.mark.parametrize(
        ("mine", "theirs", "agreed"),
        [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 9), (4, 4), 4)],
    )
    def test_the_last_that_both_speak(
        self, mine: tuple[int, int], theirs: tuple[int, int], agreed: int
    ) -> None:
        assert agree(Versions(*mine), Versions(*theirs), "ssh://h/p/") == agreed

    @pytest.mark.parametrize(
        ("mine", "theirs", "upgrade"),
        [((1, 1), (2, 3), "here"), ((4, 5), (1, 3), "there")],
    )
    def test_too_far_apart_is_one_sentence(
        self, mine: tuple[int, int], theirs: tuple[int, int], upgrade: str
    ) -> None:
        with pytest.raises(ProtocolError) as refusal:
            agree(Versions(*mine), Versions(*theirs), "ssh://h/p/")
        assert str(refusal.value).startswith(
            "the versions of buttersink are too far apart: ssh://h"
        )
        assert refusal.value.hint == f"Upgrade buttersink {upgrade}."
