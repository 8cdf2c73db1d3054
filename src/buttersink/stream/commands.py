"""
Numbers and layouts of the send stream, and building one command. Sources: fs/btrfs/send.h.

Only what ButterSink has to look into is named here; everything else passes by its length.
"""

from __future__ import annotations

import struct

import google_crc32c

from buttersink.errors import StreamError

MAGIC = b"btrfs-stream\0"
STREAM_HEADER = struct.Struct("<13sI")  # magic, version
COMMAND_HEADER = struct.Struct("<IHI")  # length of the body, command, CRC32C
ATTRIBUTE_HEADER = struct.Struct("<HH")  # type, length of the data

VERSIONS = (1, 2)

SUBVOL = 1  # enum btrfs_send_cmd
SNAPSHOT = 2
MKFILE = 3
MKDIR = 4
RENAME = 9
LINK = 10
SET_XATTR = 13
WRITE = 15
CLONE = 16
TRUNCATE = 17
CHMOD = 18
CHOWN = 19
UTIMES = 20
END = 21
UPDATE_EXTENT = 22
ENCODED_WRITE = 25

UUID = 1  # the attributes, enum of BTRFS_SEND_A_*
CTRANSID = 2
MODE = 5
UID = 6
GID = 7
PATH = 15
PATH_TO = 16
PATH_LINK = 17
DATA = 19
CLONE_UUID = 20
CLONE_CTRANSID = 21
CLONE_PATH = 22

LONGEST_COMMANDS = {1: 64 * 1024, 2: 1024 * 1024}
"""
Bytes of a command's body that no sender exceeds, by version.

The kernel builds each command in a buffer: BTRFS_SEND_BUF_SIZE_V1 is 64 KiB, which old receivers
take for granted, and BTRFS_SEND_BUF_SIZE_V2 144 KiB, more where pages are large; nothing in the
format sets a limit, so that of version 2 leaves room.
"""

MAX_OPENED_COMMAND = 16 * 1024
"""Bytes that commands taken apart here cannot reach: two paths of 4,096 and some numbers."""


def command_crc(header_without_crc: bytes, body: bytes) -> int:
    """
    Return a command's checksum: CRC32C over the header with its CRC zero, then the body.

    The stream starts from 0 and does not invert at the end; the library does both, so both are
    undone here.
    """
    crc = google_crc32c.extend(0xFFFFFFFF, header_without_crc)
    return int(google_crc32c.extend(crc, body)) ^ 0xFFFFFFFF


def build_command(command: int, attributes: list[tuple[int, bytes]]) -> bytes:
    """Return a whole command, header and checksum included."""
    body = b"".join(ATTRIBUTE_HEADER.pack(kind, len(data)) + data for kind, data in attributes)
    crc = command_crc(COMMAND_HEADER.pack(len(body), command, 0), body)
    return COMMAND_HEADER.pack(len(body), command, crc) + body


def parse_attributes(raw: bytes) -> list[tuple[int, bytes]]:
    """Return the attributes of a whole command in order, after checking its CRC."""
    length, command, crc = COMMAND_HEADER.unpack_from(raw)
    body = raw[COMMAND_HEADER.size :]
    if command_crc(COMMAND_HEADER.pack(length, command, 0), body) != crc:
        raise StreamError("damaged send stream", why=f"wrong checksum in command {command}")
    return split_attributes(command, body)


def split_attributes(command: int, body: bytes) -> list[tuple[int, bytes]]:
    """Return the attributes in a command's body in order; of version 2 without file data only."""
    attributes, position = [], 0
    while position < len(body):
        if position + ATTRIBUTE_HEADER.size > len(body):
            raise StreamError("damaged send stream", why=f"cut attribute in command {command}")
        kind, size = ATTRIBUTE_HEADER.unpack_from(body, position)
        position += ATTRIBUTE_HEADER.size
        if position + size > len(body):
            raise StreamError("damaged send stream", why=f"cut attribute in command {command}")
        attributes.append((kind, body[position : position + size]))
        position += size
    return attributes


def check_stream_header(raw: bytes) -> int:
    """Return the version in a stream header; `StreamError` if it is none or not known here."""
    magic, version = STREAM_HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise StreamError("not a btrfs send stream", why="wrong first bytes")
    if version not in VERSIONS:
        raise StreamError(
            "unknown send stream", why=f"version {version}", hint="Upgrade buttersink."
        )
    return int(version)


def stream_version(head: bytes) -> int | None:
    """Return the version in what may be a stream header, None if it is none."""
    if len(head) < STREAM_HEADER.size:
        return None
    magic, version = STREAM_HEADER.unpack_from(head)
    return int(version) if magic == MAGIC else None


def number(value: int) -> bytes:
    """Return the data of an attribute that is a number."""
    return value.to_bytes(8, "little")


def number_command_length(path: bytes) -> int:
    """Return the length of a command with path and number, such as TRUNCATE or CHMOD."""
    return COMMAND_HEADER.size + ATTRIBUTE_HEADER.size + len(path) + ATTRIBUTE_HEADER.size + 8
