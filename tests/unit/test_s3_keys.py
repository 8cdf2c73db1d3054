"""What keys and records in a bucket say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import Diff, Uuid, uuid_text
from buttersink.errors import ReceiveError, StreamError
from buttersink.stores.s3.keys import diff_key, parse_key, path_of, path_text, record_key
from buttersink.stores.s3.record import (
    Part,
    Record,
    checksum_of,
    checksum_text,
    checksums,
    composite_etag,
    parse_record,
)

TO, PARENT = Uuid(bytes(range(16))), Uuid(bytes(range(16, 32)))
TO_TEXT, PARENT_TEXT = uuid_text(TO), uuid_text(PARENT)

names = st.binary(min_size=1, max_size=20).filter(lambda n: b"/" not in n and b"\0" not in n)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
diffs = st.sampled_from([Diff(TO, None), Diff(TO, PARENT)])


class TestKeys:
    def test_are_those_that_0_6_wrote(self) -> None:
        assert diff_key("pre/fix", b"home/monday", Diff(TO, PARENT)) == (
            f"pre/fix/home/monday/{TO_TEXT}_{PARENT_TEXT}"
        )
        assert diff_key("", b"home", Diff(TO, None)) == f"home/{TO_TEXT}_None"

    @given(paths, diffs)
    def test_give_back_path_and_diff(self, path: bytes, diff: Diff) -> None:
        key = diff_key("pre", path, diff)
        parsed = parse_key(key.removeprefix("pre/"))
        assert parsed is not None
        assert (parsed.diff, parsed.generation) == (diff, None)
        assert path_of(parsed.path, recorded=True) == path

    @given(paths, diffs, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    def test_of_records_give_back_what_is_noted(
        self, path: bytes, diff: Diff, generation: int, created: int
    ) -> None:
        parsed = parse_key(record_key(diff_key("", path, diff), generation, created, b""))
        assert parsed is not None
        assert (parsed.diff, parsed.generation, parsed.created) == (diff, generation, created)

    @given(paths)
    def test_are_text_without_control_characters(self, path: bytes) -> None:
        text = path_text(path)
        assert text.encode("utf-8")
        assert not any(ord(character) < 32 or ord(character) == 127 for character in text)

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (b"home/monday", "home/monday"),
            ("söndag 1".encode(), "söndag 1"),
            (b"100%", "100%25"),
            (b"new\nline", "new%0Aline"),
            (b"\xff", "%FF"),
        ],
    )
    def test_hold_a_path_as_it_is_where_they_can(self, path: bytes, text: str) -> None:
        assert path_text(path) == text

    def test_without_a_record_mean_what_they_say(self) -> None:
        assert path_of("100%41", recorded=False) == b"100%41"

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "home",
            "home.bs",
            f"home/{TO_TEXT}",
            f"home/{TO_TEXT}_",
            f"home/{TO_TEXT}_none",
            f"home/{TO_TEXT}_{PARENT_TEXT}x",
            f"home/{TO_TEXT}_{PARENT_TEXT}.1.json",
            f"home/{TO_TEXT}_{PARENT_TEXT}/more",
            f"home/x{TO_TEXT}_{PARENT_TEXT}",
        ],
    )
    def test_of_other_objects_say_nothing(self, key: str) -> None:
        assert parse_key(key) is None

    @given(st.text())
    def test_of_any_kind_are_no_trouble(self, key: str) -> None:
        parse_key(key)

    def test_that_would_lie_in_the_trash_are_refused(self) -> None:
        with pytest.raises(ReceiveError, match="deleted diffs"):
            diff_key("", b"trash/home", Diff(TO, None))
        assert diff_key("pre", b"trash/home", Diff(TO, None))

    def test_that_are_too_long_are_refused(self) -> None:
        assert diff_key("", b"x" * 800, Diff(TO, PARENT))
        with pytest.raises(ReceiveError, match="longer than 1024 bytes"):
            diff_key("", "ä".encode() * 500, Diff(TO, PARENT))


class TestRecords:
    PARTS = (Part(5, checksum_of(b"hello"), "5d41402abc4b2a76b9719d911017c592"), Part(1, 7, "x"))
    RECORD = Record(b"home/\xff\n", 6, bytes(32), 9, PARTS)

    def test_come_back(self) -> None:
        raw = self.RECORD.to_json()
        assert raw.isascii()
        assert parse_record(raw) == self.RECORD

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"[]",
            b"1",
            b"\xff",
            b'{"buttersink": 1}',
            RECORD.to_json().replace(b'"sha256": "00', b'"sha256": "zz'),
            RECORD.to_json().replace(b'"size": 6', b'"size": "many"'),
            json.dumps({**json.loads(RECORD.to_json()), "parts": [[1, "!", "x"]]}).encode(),
            json.dumps({**json.loads(RECORD.to_json()), "parts": [[1]]}).encode(),
        ],
    )
    def test_that_are_damaged_are_told(self, raw: bytes) -> None:
        with pytest.raises(StreamError, match="damaged record"):
            parse_record(raw)

    def test_of_a_later_format_ask_for_an_upgrade(self) -> None:
        with pytest.raises(StreamError, match=r"format 2.*Upgrade"):
            parse_record(b'{"buttersink": 2}')

    def test_tell_what_the_server_says_of_the_whole(self) -> None:
        composite, whole, single = checksums(self.RECORD)
        assert composite.endswith("-2")
        assert (whole, single) == (checksum_text(9), checksum_text(9) + "-1")
        assert composite_etag(self.PARTS) is None
        assert composite_etag(self.PARTS[:1] * 2) == "616b22817b80eed9f65c3aa38cd29054-2"


def test_a_checksum_is_big_endian_in_base64() -> None:
    assert checksum_text(checksum_of(b"hello")) == "mnG7TA=="
