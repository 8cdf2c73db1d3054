"""UUIDs as bytes and text, and the values that stores are read into."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import (
    Catalogue,
    Diff,
    Exactness,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_from_text,
    uuid_text,
)

TEXT = "00112233-4455-6677-8899-aabbccddeeff"
UUID = Uuid(bytes.fromhex(TEXT.replace("-", "")))

VALUES = [
    Size(1, Exactness.MEASURED),
    Snapshot(UUID, UUID, None, None, 1, 0, b"path"),
    Partial(b"path", UUID, 0),
    Catalogue(),
]


class TestUuid:
    def test_is_written_in_the_order_of_its_bytes(self) -> None:
        assert uuid_text(UUID) == TEXT

    @pytest.mark.parametrize("text", [TEXT, TEXT.upper(), TEXT.replace("-", "")])
    def test_is_read_with_or_without_hyphens(self, text: str) -> None:
        assert uuid_from_text(text) == UUID

    @given(st.binary(min_size=16, max_size=16).map(Uuid))
    def test_comes_back_from_its_text(self, uuid: Uuid) -> None:
        assert uuid_from_text(uuid_text(uuid)) == uuid

    @pytest.mark.parametrize("text", ["", "-", "None", TEXT[:-1], TEXT[:-2], TEXT + "00", "ü" * 32])
    def test_of_another_text_is_a_value_error(self, text: str) -> None:
        with pytest.raises(ValueError, match=r".*"):
            uuid_from_text(text)


class TestValues:
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
    def test_are_frozen(self, value: Size | Snapshot | Partial | Catalogue) -> None:
        for field in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, field.name, None)

    def test_mappings_of_an_empty_catalogue_cannot_be_filled(self) -> None:
        for mapping in (Catalogue().lineage, Catalogue().diffs):
            assert not hasattr(mapping, "__setitem__")

    def test_a_diff_is_equal_by_what_it_makes_from_what(self) -> None:
        some = [Diff(UUID, None), Diff(UUID, None, ()), Diff(UUID, UUID), Diff(UUID, None, (UUID,))]
        assert len(set(some)) == 3

    @pytest.mark.parametrize(
        ("exactness", "word"),
        [
            (Exactness.MEASURED, "measured"),
            (Exactness.STORED, "stored"),
            (Exactness.ESTIMATED, "estimated"),
        ],
    )
    def test_exactness_is_the_word_that_json_has(self, exactness: Exactness, word: str) -> None:
        assert str(exactness) == word
