"""
Synthetic send streams for tests, built and taken apart by other code than the program's own.

A stream is a version and a list of commands, each a number and its attributes; `encode` writes it
as bytes with lengths and checksums, `decode` reads it back and checks every one of them. In version
2 the attribute DATA has no length and goes to the end of its command. The streams at the end are a
kernel's own (6.18), so that a mistake made here as well as in the program does not go unseen.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import google_crc32c

MAGIC = b"btrfs-stream\0"
HEADER_BYTES = 17  # of the stream
COMMAND_BYTES = 10  # of the header of each command

SUBVOL, SNAPSHOT, MKFILE, MKDIR, RENAME, LINK = 1, 2, 3, 4, 9, 10
SET_XATTR, WRITE, CLONE, TRUNCATE = 13, 15, 16, 17
CHMOD, CHOWN, UTIMES, END, UPDATE_EXTENT, ENCODED_WRITE = 18, 19, 20, 21, 22, 25
UUID, CTRANSID, INO, SIZE, MODE, UID, GID, MTIME = 1, 2, 3, 4, 5, 6, 7, 10
XATTR_NAME, XATTR_DATA, PATH, PATH_TO, PATH_LINK, OFFSET, DATA = 13, 14, 15, 16, 17, 18, 19
CLONE_UUID, CLONE_CTRANSID, CLONE_PATH, CLONE_OFFSET, CLONE_LENGTH = 20, 21, 22, 23, 24
UNENCODED, COMPRESSION, ENCRYPTION = (27, 28, 29), 30, 31  # UNENCODED_FILE_LEN, _LEN, _OFFSET


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its number, and its attributes in order."""

    number: int
    attributes: tuple[tuple[int, bytes], ...] = ()

    def value(self, attribute: int) -> bytes:
        """Return the first attribute of this number."""
        return next(value for number, value in self.attributes if number == attribute)

    def changed(self, values: dict[int, bytes]) -> Command:
        """Return the command with the values of these attributes, where it has them."""
        pairs = ((number, values.get(number, value)) for number, value in self.attributes)
        return Command(self.number, tuple(pairs))


def subvol(path: bytes, uuid: bytes, generation: int) -> Command:
    """Begin a full stream."""
    return Command(SUBVOL, ((PATH, path), (UUID, uuid), (CTRANSID, _u64(generation))))


def snapshot(
    path: bytes, uuid: bytes, generation: int, parent: bytes, parent_generation: int
) -> Command:
    """Begin an incremental stream."""
    return Command(
        SNAPSHOT,
        (
            (PATH, path),
            (UUID, uuid),
            (CTRANSID, _u64(generation)),
            (CLONE_UUID, parent),
            (CLONE_CTRANSID, _u64(parent_generation)),
        ),
    )


def mkfile(path: bytes, inode: int = 257) -> Command:
    """Make an empty file."""
    return Command(MKFILE, ((PATH, path), (INO, _u64(inode))))


def mkdir(path: bytes, inode: int = 257) -> Command:
    """Make an empty directory."""
    return Command(MKDIR, ((PATH, path), (INO, _u64(inode))))


def rename(path: bytes, to: bytes) -> Command:
    """Move a file or directory."""
    return Command(RENAME, ((PATH, path), (PATH_TO, to)))


def link(path: bytes, target: bytes) -> Command:
    """Give a file another name."""
    return Command(LINK, ((PATH, path), (PATH_LINK, target)))


def write(path: bytes, offset: int, data: bytes) -> Command:
    """Write into a file."""
    return Command(WRITE, ((PATH, path), (OFFSET, _u64(offset)), (DATA, data)))


def encoded_write(path: bytes, offset: int, data: bytes, *, inline: bool = False) -> Command:
    """Write compressed data into a file, as the kernel does (version 2)."""
    numbers = ((each, _u64(4096)) for each in UNENCODED)
    encryption = () if inline else ((ENCRYPTION, bytes(4)),)
    attributes = ((PATH, path), (OFFSET, _u64(offset)), *numbers, (COMPRESSION, bytes(4)))
    return Command(ENCODED_WRITE, (*attributes, *encryption, (DATA, data)))


def clone(
    path: bytes, uuid: bytes, *, source: bytes = b"source", offset: int = 0, length: int = 4096
) -> Command:
    """Clone a stretch of a file of the snapshot `uuid`."""
    return Command(
        CLONE,
        (
            (OFFSET, _u64(offset)),
            (CLONE_LENGTH, _u64(length)),
            (PATH, path),
            (CLONE_UUID, uuid),
            (CLONE_CTRANSID, _u64(7)),
            (CLONE_PATH, source),
            (CLONE_OFFSET, _u64(8192)),
        ),
    )


def truncate(path: bytes, size: int) -> Command:
    """Cut or lengthen a file."""
    return Command(TRUNCATE, ((PATH, path), (SIZE, _u64(size))))


def chmod(path: bytes, mode: int) -> Command:
    """Change permissions."""
    return Command(CHMOD, ((PATH, path), (MODE, _u64(mode))))


def chown(path: bytes, owner: int, group: int) -> Command:
    """Change owner and group."""
    return Command(CHOWN, ((PATH, path), (UID, _u64(owner)), (GID, _u64(group))))


def set_xattr(path: bytes, name: bytes, value: bytes) -> Command:
    """Set an extended attribute."""
    return Command(SET_XATTR, ((PATH, path), (XATTR_NAME, name), (XATTR_DATA, value)))


def utimes(path: bytes) -> Command:
    """Set times, which the kernel does last of all."""
    return Command(UTIMES, ((PATH, path), (MTIME, bytes(12))))


def update_extent(path: bytes, offset: int, size: int) -> Command:
    """Stand for `size` bytes written, in a stream without data."""
    return Command(UPDATE_EXTENT, ((PATH, path), (OFFSET, _u64(offset)), (SIZE, _u64(size))))


def end() -> Command:
    """End the stream."""
    return Command(END)


def encode(commands: list[Command], version: int = 1) -> bytes:
    """Return a stream of these commands."""
    encoded = (encode_command(command, version) for command in commands)
    return MAGIC + struct.pack("<I", version) + b"".join(encoded)


def encode_command(command: Command, version: int = 1) -> bytes:
    """Return one command with its length and checksum."""
    body = bytearray()
    for attribute, value in command.attributes:
        rest = version > 1 and attribute == DATA
        body += struct.pack("<H", attribute) if rest else struct.pack("<HH", attribute, len(value))
        body += value
    return seal(command.number, bytes(body))


def seal(number: int, body: bytes) -> bytes:
    """Return a command with this body, whatever is in it, and the right length and checksum."""
    head = struct.pack("<IH", len(body), number)
    return head + struct.pack("<I", _checksum(head + bytes(4) + body)) + body


def decode(stream: bytes) -> tuple[int, list[Command]]:
    """Return version and commands; `ValueError` unless every length and checksum is right."""
    version = int.from_bytes(stream[len(MAGIC) : HEADER_BYTES], "little")
    if stream[:HEADER_BYTES] != MAGIC + struct.pack("<I", version):
        raise ValueError("stream header")
    commands, position = list[Command](), HEADER_BYTES
    while position < len(stream):
        length, number, checksum = struct.unpack_from("<IHI", stream, position)
        after = position + COMMAND_BYTES + length
        raw = bytearray(stream[position:after])
        raw[6:10] = bytes(4)
        if after > len(stream) or _checksum(bytes(raw)) != checksum:
            raise ValueError(f"command {number} at {position}")
        commands.append(Command(number, _attributes(bytes(raw[COMMAND_BYTES:]), version)))
        position = after
    return version, commands


def _attributes(body: bytes, version: int) -> tuple[tuple[int, bytes], ...]:
    attributes = list[tuple[int, bytes]]()
    while body:
        attribute, size, start = int.from_bytes(body[:2], "little"), len(body) - 2, 2
        if version == 1 or attribute != DATA:
            size, start = int.from_bytes(body[2:4], "little"), 4
        if start + size > len(body):
            raise ValueError(f"attribute {attribute}")
        attributes.append((attribute, body[start : start + size]))
        body = body[start + size :]
    return tuple(attributes)


def _checksum(raw: bytes) -> int:
    """CRC32C that starts from 0 and is not inverted at the end."""
    return int(google_crc32c.extend(0xFFFFFFFF, raw)) ^ 0xFFFFFFFF


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


_KERNEL_BEGINS = """
    45000000 02007e8bd1bc 0f00 0100 73 0100 1000 573e718827d8bf44a7100b4a5972929b
    0200 0800 0800000000000000 1400 1000 2327dfbafc5ddf46b342a6a6e6ab79b0 1500 0800 0700000000000000
    18000000 03008198dc02 0f00 0800 6f3235372d382d30 0300 0800 0101000000000000
    11000000 0900386d929e 0f00 0800 6f3235372d382d30 1000 0100 66
"""
_KERNEL_CHMODS = """
    1d000000 13009f4611d1 0f00 0100 66 0600 0800 0000000000000000 0700 0800 0000000000000000
    11000000 1200b7cb5863 0f00 0100 66 0500 0800 a401000000000000
"""
_KERNEL_ENDS = """
    35000000 1400c2f20ef8 0f00 0100 66 0b00 0c00 00bd046b0000000029f1db0f
    0a00 0c00 00bd046b000000002cf7f00f 0900 0c00 00bd046b000000002cf7f00f
    34000000 1400606d1c94 0f00 0000 0b00 0c00 00bd046b00000000c724690f
    0a00 0c00 00bd046b0000000029f1db0f 0900 0c00 00bd046b0000000029f1db0f
    00000000 1500506cc99d
"""
_KERNEL_V1 = MAGIC.hex() + "01000000"

KERNEL_STREAM = bytes.fromhex(
    f"""{_KERNEL_V1} {_KERNEL_BEGINS}
    18000000 0f00ab5d44f3 0f00 0100 66 1200 0800 0000000000000000 1300 0300 68690a
    {_KERNEL_CHMODS} {_KERNEL_ENDS}"""
)
"""What `btrfs send -p e s` wrote, where `s` has one new file `f` with three bytes."""

KERNEL_STREAM_WITHOUT_DATA = bytes.fromhex(
    f"""{_KERNEL_V1} {_KERNEL_BEGINS}
    1d000000 1600a8905798 0f00 0100 66 1200 0800 0000000000000000 0400 0800 0300000000000000
    {_KERNEL_CHMODS} {_KERNEL_ENDS}"""
)
"""The same with `--no-data`."""

KERNEL_STREAM_V2 = bytes.fromhex(
    f"""{MAGIC.hex()} 02000000 {_KERNEL_BEGINS}
    16000000 0f0017746eb4 0f00 0100 66 1200 0800 0000000000000000 1300 68690a
    {_KERNEL_CHMODS}
    45000000 14001377d991 0f00 0100 66 0b00 0c00 00bd046b0000000029f1db0f
    0a00 0c00 00bd046b000000002cf7f00f 0900 0c00 00bd046b000000002cf7f00f
    0c00 0c00 00bd046b0000000029f1db0f
    44000000 1400931a1d09 0f00 0000 0b00 0c00 00bd046b00000000c724690f
    0a00 0c00 00bd046b0000000029f1db0f 0900 0c00 00bd046b0000000029f1db0f
    0c00 0c00 00bd046b00000000c724690f
    00000000 1500506cc99d"""
)
"""The same with `--proto 2`."""
