"""What the words of the command line name."""

from __future__ import annotations

import pytest

from buttersink.errors import UsageError
from buttersink.location import Location, S3Location, SshLocation, parse_location


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
        (b"scp://host/dir/", "scp"),
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


class TestSsh:
    @pytest.mark.parametrize(
        ("text", "location", "shown"),
        [
            (b"ssh://h/p/", SshLocation("", "h", None, b"/p", all_below=True), "ssh://h/p/"),
            (b"ssh://h/p/q", SshLocation("", "h", None, b"/p/q", all_below=False), "ssh://h/p/q"),
            (b"ssh://h/", SshLocation("", "h", None, b"/", all_below=True), "ssh://h/"),
            (b"ssh://h//", SshLocation("", "h", None, b"/", all_below=True), "ssh://h/"),
            (b"SSH://h/p//", SshLocation("", "h", None, b"/p", all_below=True), "ssh://h/p/"),
            (
                b"ssh://me@h.example:2222/p/",
                SshLocation("me", "h.example", 2222, b"/p", all_below=True),
                "ssh://me@h.example:2222/p/",
            ),
            (
                b"ssh://me@dom@h/p/",
                SshLocation("me@dom", "h", None, b"/p", all_below=True),
                "ssh://me@dom@h/p/",
            ),
            (
                b"ssh://[fe80::1%eth0]:22/p",
                SshLocation("", "fe80::1%eth0", 22, b"/p", all_below=False),
                "ssh://[fe80::1%eth0]:22/p",
            ),
            (
                b"ssh://h/a b%20\n\xff/",
                SshLocation("", "h", None, b"/a b%20\n\xff", all_below=True),
                r"ssh://h/a b%20\n\xff/",
            ),
            (b"ssh://h/-n", SshLocation("", "h", None, b"/-n", all_below=False), "ssh://h/-n"),
        ],
    )
    def test_names_a_directory_there(self, text: bytes, location: SshLocation, shown: str) -> None:
        assert parse_location(text) == location
        assert str(location) == shown

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (b"ssh://", "no host"),
            (b"ssh:///p/", "no host"),
            (b"ssh://h", "no directory"),
            (b"ssh://me@h:22", "no directory"),
            (b"ssh://h/\0", "no directory"),
            (b"ssh://-oProxyCommand=x/p/", "no host"),
            (b"ssh://-l@h/p/", "no host"),
            (b"ssh://@h/p/", "no host"),
            (b"ssh://a b/p/", "no host"),
            (b"ssh://h;id/p/", "no host"),
            (b"ssh://$(id)/p/", "no host"),
            (b"ssh://h\n/p/", "no host"),
            (b"ssh://\xff/p/", "no host"),
            (b"ssh://h:/p/", "no host with a port"),
            (b"ssh://h:x/p/", "no host with a port"),
            (b"ssh://h:0/p/", "from 1 to 65535"),
            (b"ssh://h:65536/p/", "from 1 to 65535"),
            (b"ssh://h:123456/p/", "no host with a port"),
            (b"ssh://fe80::1/p/", "no host with a port"),
            (b"ssh://[fe80::1/p/", "no host with a port"),
            (b"ssh://[-x]/p/", "no host"),
        ],
    )
    def test_what_is_none_is_bad_usage(self, text: bytes, why: str) -> None:
        with pytest.raises(UsageError, match=why) as refusal:
            parse_location(text)
        assert "ssh://user@host:port/directory/" in refusal.value.hint

    @pytest.mark.parametrize(
        ("text", "above", "name"),
        [
            (b"ssh://h/a/b", b"/a", b"b"),
            (b"ssh://h/b", b"/", b"b"),
            (b"ssh://h/a//b", b"/a/", b"b"),
        ],
    )
    def test_a_single_snapshot_lies_in_a_directory(
        self, text: bytes, above: bytes, name: bytes
    ) -> None:
        location = parse_location(text)
        assert isinstance(location, SshLocation)
        assert location.split() == (above, name)
