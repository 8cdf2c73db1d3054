"""What a listing's pages mean, where no server for tests answers like Amazon's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from buttersink.catalogue import Diff, Uuid, uuid_text
from buttersink.stores.s3.listing import read_listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UUID = Uuid(bytes(range(16)))


class Pages:
    """Answers as the client does, from what it is made with."""

    def __init__(self, *objects: Mapping[str, Any]) -> None:
        self._pages: dict[str, list[Any]] = {
            "list_objects_v2": [{"Name": "bucket", "Contents": objects}],
            "list_multipart_uploads": [{}],
        }
        self.asked: list[Mapping[str, Any]] = []
        self._name = ""

    def get_paginator(self, name: str) -> Pages:
        self._name = name
        return self

    def paginate(self, **arguments: object) -> Iterator[Mapping[str, Any]]:
        self.asked.append(arguments)
        yield from self._pages[self._name]


def stored(**more: object) -> dict[str, object]:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    key = f"pre/home/{uuid_text(UUID)}_None"
    return {"Key": key, "Size": 5, "ETag": '"x"', "LastModified": moment, **more}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"StorageClass": "STANDARD_IA"}, ""),
        ({"StorageClass": "GLACIER_IR"}, ""),
        ({"StorageClass": "GLACIER"}, "restore it first"),
        ({"StorageClass": "DEEP_ARCHIVE"}, "restore it first"),
        (
            {"StorageClass": "GLACIER", "RestoreStatus": {"IsRestoreInProgress": True}},
            "being restored",
        ),
        (
            {
                "StorageClass": "GLACIER",
                "RestoreStatus": {
                    "IsRestoreInProgress": False,
                    "RestoreExpiryDate": datetime(2026, 2, 1, tzinfo=UTC),
                },
            },
            "",
        ),
    ],
)
def test_an_archived_object_is_read_when_it_has_been_restored(
    more: dict[str, object], said: str
) -> None:
    pages = Pages(stored(**more))
    (found,) = read_listing(pages, "bucket", "pre").diffs[Diff(UUID, None)]
    assert (found.archived != "", said in found.archived) == (said != "", True)
    assert pages.asked[0]["OptionalObjectAttributes"] == ["RestoreStatus"]
