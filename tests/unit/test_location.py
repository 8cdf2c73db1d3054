"""What the words of the command line name."""

from __future__ import annotations

import pytest

from buttersink.errors import UsageError
from buttersink.location import Location, S3Location, parse_location


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
    location = parse_location(text)
    assert isinstance(location, Location)
    assert location.split() == (above, name)


@pytest.mark.parametrize(
    ("text", "location", "shown"),
    [
        (b"s3://b/p/", S3Location("b", "p", all_below=True), "s3://b/p/"),
        (b"s3://b/p/q", S3Location("b", "p/q", all_below=False), "s3://b/p/q"),
        (b"S3://b//p/q//", S3Location("b", "p/q", all_below=True), "s3://b/p/q/"),
        (b"s3://b/", S3Location("b", "", all_below=True), "s3://b/"),
        (b"s3://b", S3Location("b", "", all_below=True), "s3://b/"),
        (b"s3://b/p/\xff", S3Location("b", "p/\udcff", all_below=False), r"s3://b/p/\xff"),
        ("s3://my.bucket-1/ä b".encode(), S3Location("my.bucket-1", "ä b", all_below=False), None),
    ],
)
def test_a_bucket_and_prefix(text: bytes, location: S3Location, shown: str | None) -> None:
    assert parse_location(text) == location
    assert shown in (None, str(location))


@pytest.mark.parametrize(
    "text", [b"s3://", b"s3:///x", b"s3://\xff/", b"s3://b/\xff/", b"s3://b/\xff/x"]
)
def test_what_no_bucket_or_key_can_be_is_bad_usage(text: bytes) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix/"):
        parse_location(text)
