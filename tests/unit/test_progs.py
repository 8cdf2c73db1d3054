"""Which btrfs-progs take compressed data well."""

from __future__ import annotations

import pytest

from buttersink.stores.btrfs.progs import progs_version, receivable_version


@pytest.mark.parametrize(
    ("progs", "version"),
    [
        ("btrfs-progs v6.2", 2),
        ("btrfs-progs v6.19.1", 2),
        ("btrfs-progs v7.0 \n+ZSTD", 2),
        ("btrfs-progs v10.1", 2),
        ("btrfs-progs v6.0.2", 2),
        ("btrfs-progs v6.1-rc1", 2),
        ("btrfs-progs v6.0.1", 1),
        ("btrfs-progs v6.0", 1),
        ("btrfs-progs v5.19", 1),
        ("btrfs-progs v4.20.2", 1),
        ("Btrfs v3.17", 1),
        ("something else", 1),
        ("", 1),
    ],
)
def test_the_version_of_streams_that_they_take(progs: str, version: int) -> None:
    assert receivable_version(progs) == version


def test_nothing_is_said_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert progs_version() == ""
