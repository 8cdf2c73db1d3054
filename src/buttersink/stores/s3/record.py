"""
The record of a diff: what was sent, so that it can be told later whether that is still there.

It is one JSON object; docs/S3-FORMAT.md describes it. It is written before the diff gets its key,
so what has a key but no record was written by something else. No I/O here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c

from buttersink.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 1


class Part(NamedTuple):
    """A part of an upload: its bytes, their CRC32C, and the entity tag that the server gave it."""

    size: int
    crc32c: int
    etag: str


@dataclass(frozen=True, slots=True)
class Record:
    """
    What was sent.

    Attributes:
        path: Of the snapshot, relative to the location it was sent to.
        size: Bytes of the whole stream.
        sha256: Of the whole stream.
        crc32c: Of the whole stream.
        parts: In order.
        version: Of the stream; None where it is not known.

    """

    path: bytes
    size: int
    sha256: bytes
    crc32c: int
    parts: tuple[Part, ...]
    version: int | None = None

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        document = {
            "buttersink": FORMAT,
            "path": self.path.decode("utf-8", "surrogateescape"),
            "version": self.version,
            "size": self.size,
            "sha256": self.sha256.hex(),
            "crc32c": checksum_text(self.crc32c),
            "parts": [[part.size, checksum_text(part.crc32c), part.etag] for part in self.parts],
        }
        return (json.dumps(document) + "\n").encode("ascii")


def parse_record(raw: bytes) -> Record:
    """Return a stored record; `StreamError` if it is none or of a later format."""
    try:
        document = json.loads(raw)
        if document["buttersink"] != FORMAT:
            why, hint = f"format {document['buttersink']}", "Upgrade buttersink."
            raise StreamError("unknown record of a diff", why=why, hint=hint)
        return Record(
            document["path"].encode("utf-8", "surrogateescape"),
            int(document["size"]),
            bytes.fromhex(document["sha256"]),
            checksum_from_text(document["crc32c"]),
            tuple(
                Part(int(size), checksum_from_text(crc), str(etag))
                for size, crc, etag in document["parts"]
            ),
            None if document.get("version") is None else int(document["version"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreamError("damaged record of a diff", why=str(error)) from error


def checksum_text(crc: int) -> str:
    """Return a CRC32C as S3 writes it: big endian, base64."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode("ascii")


def checksum_from_text(text: str) -> int:
    """Return the CRC32C that `checksum_text` wrote; `ValueError`."""
    return int.from_bytes(base64.b64decode(text, validate=True), "big")


def checksum_of(data: bytes, before: int = 0) -> int:
    """Return the CRC32C of bytes, or of what has the checksum `before` and these after it."""
    return int(google_crc32c.extend(before, data))


def content_md5(digest: hashlib._Hash) -> str:
    """Return an MD5 as the header Content-MD5 has it (RFC 1864)."""
    return base64.b64encode(digest.digest()).decode("ascii")


def checksums(record: Record) -> tuple[str, ...]:
    """
    Return what a server can say the CRC32C of the object is.

    That is what S3 calls the composite checksum (of its parts' checksums), or that of the whole,
    which of a single part Ceph writes like a composite one.
    """
    together = b"".join(part.crc32c.to_bytes(4, "big") for part in record.parts)
    composite, whole = checksum_text(checksum_of(together)), checksum_text(record.crc32c)
    return f"{composite}-{len(record.parts)}", whole, f"{whole}-1"


def telling_etag(head: Mapping[str, Any]) -> str | None:
    """
    Return the entity tag in the answer to HeadObject, if it follows from those of the parts.

    It need not where the server encrypts with keys of a key management service, and does not where
    the object was not sent in parts.
    """
    tag = str(head["ETag"]).strip('"')
    encrypted = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
    return tag if "-" in tag and not encrypted else None


def composite_etag(parts: Sequence[Part]) -> str | None:
    """Return the tag of an object whose parts have MD5s for entity tags; None if they have not."""
    try:
        digests = [bytes.fromhex(part.etag) for part in parts]
    except ValueError:
        return None
    if any(len(digest) != 16 for digest in digests):
        return None
    together = hashlib.md5(b"".join(digests), usedforsecurity=False)
    return f"{together.hexdigest()}-{len(parts)}"
