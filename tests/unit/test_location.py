"""What the words of the command line name."""

from __future__ import annotations

import pytest

from buttersink.errors import UsageError
from buttersink.location import Location, parse_location


@pytest.mark.parametrize(
    ("text", "directory", "all_below"),
    [
        (b"/mnt/snapshots/", b"/mnt/snapshots", True),
        (b"/mnt/snapshots", b"/mnt/snapshots", False),
        (b"/mnt/snapshots///", b"/mnt/snapshots", True),
        (b"//mnt//snapshots", b"//mnt//snapshots", False),
        (b"/", b"/", True),
        (b"///", b"/", True),
        (b".", b".", False),
        (b"./", b".", True),
        (b"../x", b"../x", False),
        (b"monday", b"monday", False),
        (b" ", b" ", False),
        (b"-n/", b"-n", True),
        (b"new\nline \xff/", b"new\nline \xff", True),
        (b"a:b/", b"a:b", True),
        (b"user@host:/x", b"user@host:/x", False),
        (b"./s3://x", b"./s3://x", False),
        (b"/s3://x/", b"/s3://x", True),
        (b"://x", b"://x", False),
        (b"3s://x", b"3s://x", False),
    ],
)
def test_a_path_names_a_directory(text: bytes, directory: bytes, all_below: bool) -> None:  # noqa: FBT001
    assert parse_location(text) == Location(directory, all_below=all_below)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        (b"s3://bucket/prefix", "s3"),
        (b"s3://bucket/", "s3"),
        (b"S3://", "s3"),
        (b"ssh://host/dir/", "ssh"),
        (b"btrfs:///mnt/", "btrfs"),
        (b"x-y+z.1://\xff\n", "x-y+z.1"),
    ],
)
def test_an_unknown_scheme_is_bad_usage(text: bytes, scheme: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_location(text)
    assert refusal.value.where == text
    assert f"{scheme}:// is not one of those this version has" in str(refusal.value)
    assert "Name a directory" in refusal.value.hint


@pytest.mark.parametrize("text", [b"", b"\0", b"/mnt/\0/"])
def test_what_no_path_can_be_is_bad_usage(text: bytes) -> None:
    with pytest.raises(UsageError, match="Name a directory"):
        parse_location(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"/mnt/a/", "/mnt/a/"),
        (b"/mnt/a", "/mnt/a"),
        (b"/mnt/a///", "/mnt/a/"),
        (b"/", "/"),
        (b"a b\n\xff/", r"a b\n\xff/"),
    ],
)
def test_is_shown_as_given_on_one_line(text: bytes, shown: str) -> None:
    assert str(parse_location(text)) == shown


@pytest.mark.parametrize(
    ("text", "above", "name"),
    [
        (b"/mnt/snapshots/monday", b"/mnt/snapshots", b"monday"),
        (b"/monday", b"/", b"monday"),
        (b"monday", b".", b"monday"),
        (b"a/b\n\xff", b"a", b"b\n\xff"),
        (b"./monday", b".", b"monday"),
        (b"/", b"/", b""),
    ],
)
def test_a_single_snapshot_lies_in_a_directory(text: bytes, above: bytes, name: bytes) -> None:
    assert parse_location(text).split() == (above, name)
