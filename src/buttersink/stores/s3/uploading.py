"""
One diff into a bucket: parts as the stream flows, several at once, and the key when all are there.

Each part carries its CRC32C, which the server verifies. What an interrupted run has sent is not
sent again: the stream is made anew, cut where the parts of the unfinished upload end, and a part
that has the same bytes (size, CRC32C, and MD5 where the server tells it) is left as it is.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError as Refusal

from buttersink.errors import ConflictError, ReceiveError
from buttersink.stores.s3.body import PartBody
from buttersink.stores.s3.connection import code_of, translating
from buttersink.stores.s3.record import (
    Part,
    Record,
    checksum_from_text,
    checksum_of,
    checksum_text,
    composite_etag,
    content_md5,
    telling_etag,
)
from buttersink.stream.commands import STREAM_HEADER, stream_version
from buttersink.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from buttersink.stores.s3.connection import Client

MIB = 1024 * 1024
MAX_PARTS = 10_000
"""Parts that an upload may have (S3 user guide, "Amazon S3 multipart upload limits")."""

THREADS = 4
"""Parts under way at once: more have gained nothing (docs/BENCHMARKS.md)."""

_MIN_PART = 5 * MIB  # bytes of every part but the last
_MAX_PART = 5 * 1024 * MIB
_SPARE = 1000  # last parts, which get longer and longer: for streams longer than was known
_DOUBLE = 100  # of those, after which they are twice as long
_UNSUPPORTED = {"NotImplemented", "InvalidArgument", "501"}


class Unfinished(NamedTuple):
    """An upload that was begun: its id, and the parts that the server has, by number from 1."""

    upload_id: str
    parts: Mapping[int, Part]

    @property
    def part_bytes(self) -> int:
        """Bytes of each of its parts; 0 where none is there that tells, which the last may not."""
        longest = max((p.size for n, p in self.parts.items() if n <= MAX_PARTS - _SPARE), default=0)
        return longest if longest >= _MIN_PART else 0


def part_bytes(size: int | None, wanted: int) -> int:
    """Return how long parts have to be so that a stream of `size` bytes has few enough of them."""
    least = -(-(size or 0) // MAX_PARTS)
    return max(wanted, -(-least // MIB) * MIB)


def length_of_part(before: int, usual: int) -> int:
    """Return how long the part after so many others is: the last ones get longer and longer."""
    over = before - (MAX_PARTS - _SPARE)
    return min(_MAX_PART, usual << max(0, over // _DOUBLE + 1))


class Upload:
    """
    A sink for one diff; `finish` it, or leave the upload unfinished with `abandon`.

    At most `THREADS` + 2 parts are held in memory.

    Args:
        client: Of the server.
        target: The `Bucket` and `Key` of the object.
        create: What else goes into a request that begins an upload.
        part: Bytes of each part.
        unfinished: An upload of this key to go on with, in parts as long as its own.
        tell: Is told what a server cannot do.

    Attributes:
        upload_id: Of the upload; empty until it is begun.
        resumed: Bytes that were there from an earlier run.

    """

    def __init__(
        self,
        client: Client,
        target: Mapping[str, str],
        *,
        create: Mapping[str, Any],
        part: int,
        unfinished: Unfinished | None,
        tell: Callable[[str], None],
    ) -> None:
        self._client, self._target, self._create, self._tell = client, target, create, tell
        self._there = unfinished.parts if unfinished else {}
        self._part = unfinished.part_bytes if unfinished else part
        self.upload_id = unfinished.upload_id if unfinished else ""
        self._pieces: list[bytes] = []  # of the next part, and their length and CRC32C together
        self._filled, self._checksum = 0, 0
        self._parts: list[Future[Part] | Part] = []
        self._flying: set[Future[Part]] = set()
        self._threads = Workers(THREADS, "upload")
        self._sha256, self._crc32c = hashlib.sha256(), 0
        self._size, self._head = 0, b""
        self._knows_crc32c, self._needs_md5 = True, False
        self.resumed = 0

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes; `ReceiveError` if an earlier part could not be sent."""
        self._sha256.update(chunk)
        if self._size < STREAM_HEADER.size:
            self._head += bytes(chunk[: STREAM_HEADER.size - self._size])
        self._size += len(chunk)
        while chunk:
            room = self._length_of_next() - self._filled
            self._take(bytes(chunk[:room]))
            chunk = chunk[room:]
            if self._filled == self._length_of_next():
                self._send_part()

    def _take(self, piece: bytes) -> None:
        """Add a piece to the next part; its checksums are made while it is in the CPU's cache."""
        self._pieces.append(piece)
        self._filled += len(piece)
        self._checksum = checksum_of(piece, self._checksum)
        self._crc32c = checksum_of(piece, self._crc32c)

    def _length_of_next(self) -> int:
        there = self._there.get(len(self._parts) + 1)
        if there is not None and there.size >= _MIN_PART:  # a shorter one can only be the last
            return there.size
        return length_of_part(len(self._parts), self._part)

    def _send_part(self) -> None:
        """Hand the next part to the threads, which are let have one that waits, not more."""
        self._wait_for_room()
        number, body, checksum = len(self._parts) + 1, PartBody(self._pieces), self._checksum
        self._pieces, self._filled, self._checksum = [], 0, 0
        there = self._there.get(number)
        if there is not None and _same(there, body, checksum):
            self._parts.append(there._replace(crc32c=checksum))
            self.resumed += len(body)
            return
        future = self._threads.submit(self._upload_part, self._begun(), number, body, checksum)
        self._flying.add(future)
        self._parts.append(future)

    def _wait_for_room(self) -> None:
        """Wait until no more than `THREADS` parts are under way: the next one is there twice."""
        while len(self._flying) > THREADS:
            ended, self._flying = wait(self._flying, return_when=FIRST_COMPLETED)
            for each in ended:
                each.result()

    def _begun(self) -> str:
        """Return the id of the upload, which is begun with its first part."""
        if not self.upload_id:
            with translating(ReceiveError, "cannot begin the upload", self._target["Key"]):
                answer = self._client.create_multipart_upload(
                    **self._target, **self._create, ChecksumAlgorithm="CRC32C"
                )
            self.upload_id = answer["UploadId"]
        return self.upload_id

    def _upload_part(self, upload_id: str, number: int, body: PartBody, checksum: int) -> Part:
        with translating(ReceiveError, f"cannot send part {number}", self._target["Key"]):
            try:
                answer = self._verified(upload_id, number, body, checksum_text(checksum))
            except Refusal as error:
                # One that is not listed can be there in part, at a server that writes on arrival.
                if number not in self._there and code_of(error) != "NotImplemented":
                    raise
                raise self._of_another_stream() from error
        return Part(len(body), checksum, answer["ETag"].strip('"'))

    def _verified(
        self, upload_id: str, number: int, body: PartBody, checksum: str
    ) -> Mapping[str, Any]:
        """
        Send a part so that it is verified; return the server's answer.

        A server that verifies the CRC32C says so in its answer. Of one that does not, an entity tag
        that is the MD5 of the part is as good. Where it is not, the part is sent once more with
        Content-MD5, and those after it at once.
        """
        request = {
            **self._target,
            "UploadId": upload_id,
            "PartNumber": number,
            "Body": body,
            "ChecksumAlgorithm": "CRC32C",
            "ChecksumCRC32C": checksum,
        }
        if not self._needs_md5:
            answer: Mapping[str, Any] = self._client.upload_part(**request)
            if answer.get("ChecksumCRC32C") == checksum:
                return answer
            if self._knows_crc32c:
                self._knows_crc32c = False
                self._tell("the server does not verify CRC32C: parts are verified by their MD5")
            if answer["ETag"].strip('"') == body.md5().hexdigest():
                return answer
            self._needs_md5 = True
        return dict(self._client.upload_part(**request, ContentMD5=content_md5(body.md5())))

    def _of_another_stream(self) -> ReceiveError:
        """Abort an upload of which the server takes no other part for one that it has."""
        self._client.abort_multipart_upload(**self._target, UploadId=self.upload_id)
        return ReceiveError(
            "cannot go on with the unfinished upload",
            where=self._target["Key"],
            why="it is of another stream",
            hint="It is discarded: run again.",
        )

    def finish(self, path: bytes, write_record: Callable[[Record], None]) -> None:
        """
        Send the rest, have the record written, give the object its key, and see that it is right.

        `ConflictError` if the key was taken meanwhile.
        """
        if self._pieces or not self._parts:
            self._send_part()
        parts = tuple(part if isinstance(part, Part) else part.result() for part in self._parts)
        record = Record(
            path,
            self._size,
            self._sha256.digest(),
            self._crc32c,
            parts,
            stream_version(self._head),
        )
        write_record(record)
        self._complete(record)

    def _complete(self, record: Record) -> None:
        key = self._target["Key"]
        numbered = [
            {
                "PartNumber": n,
                "ETag": f'"{part.etag}"',
                "ChecksumCRC32C": checksum_text(part.crc32c),
            }
            for n, part in enumerate(record.parts, start=1)
        ]
        request = {
            **self._target,
            "UploadId": self.upload_id,
            "MultipartUpload": {"Parts": numbered},
        }
        with translating(ReceiveError, "cannot complete the upload", key):
            try:
                tag = self._complete_once(request)
            except Refusal as error:
                if code_of(error) == "InvalidPart" and self._has_other_parts(len(record.parts)):
                    self._discard()
                # A repeated request may find that the first, of which no answer came, was heard.
                if code_of(error) not in {"NoSuchUpload", "NoSuchKey", "PreconditionFailed", "404"}:
                    raise
                if code_of(error) == "PreconditionFailed":
                    self._discard()
                if self._is_there(record):
                    return
                if code_of(error) == "PreconditionFailed":
                    why = "another run has written it meanwhile"
                    raise ConflictError("cannot complete the upload", where=key, why=why) from error
                raise
            # The tag of the parts tells all; else the object is looked at, which rclone reads for.
            if tag != composite_etag(record.parts) and not self._is_there(record):
                why = "the object is not what was sent"
                raise ReceiveError("cannot complete the upload", where=key, why=why)

    def _has_other_parts(self, last: int) -> bool:
        """Return whether there are parts after the last: with those Ceph never completes it."""
        found = unfinished_parts(self._client, self._target, self.upload_id)
        return found is not None and max(found.parts, default=0) > last

    def _discard(self) -> None:
        """Abort an upload that can never be completed; if it has become the object, it is gone."""
        with suppress(Refusal):
            self._client.abort_multipart_upload(**self._target, UploadId=self.upload_id)

    def _complete_once(self, request: Mapping[str, Any]) -> str:
        """
        Complete, provided that there is no such key; return the object's entity tag.

        Some servers cannot see to that.
        """
        try:
            answer = self._client.complete_multipart_upload(**request, IfNoneMatch="*")
        except Refusal as error:
            if code_of(error) not in _UNSUPPORTED:
                raise
            self._tell("the server does not keep two runs from writing one key")
            answer = self._client.complete_multipart_upload(**request)
        return str(answer.get("ETag", "")).strip('"')

    def _is_there(self, record: Record) -> bool:
        """Return whether the key has the size and, where that says something, the tag."""
        try:
            head = self._client.head_object(**self._target)
        except Refusal as error:
            if code_of(error) in {"404", "NoSuchKey", "NotFound"}:
                return False
            raise
        tag, expected = telling_etag(head), composite_etag(record.parts)
        return bool(
            head["ContentLength"] == record.size and (None in (tag, expected) or tag == expected)
        )

    def abandon(self) -> None:
        """Stop, and leave what is there unfinished, to go on with later."""
        self._threads.stop()


def _same(part: Part, body: PartBody, checksum: int) -> bool:
    """Return whether a part that the server has holds these bytes."""
    if part.size != len(body) or part.crc32c not in (checksum, -1):
        return False
    # The entity tag is not the MD5 where the server encrypts with keys of a key management service.
    return part.etag == body.md5().hexdigest() or part.crc32c == checksum


def unfinished_parts(
    client: Client, target: Mapping[str, str], upload_id: str
) -> Unfinished | None:
    """Return what the server has of an upload; None if that has ended, or may not be asked."""
    parts: dict[int, Part] = {}
    try:
        for page in client.get_paginator("list_parts").paginate(**target, UploadId=upload_id):
            for each in page.get("Parts", ()):
                text = each.get("ChecksumCRC32C")
                crc = -1 if text is None else checksum_from_text(text)
                parts[each["PartNumber"]] = Part(each["Size"], crc, each["ETag"].strip('"'))
    except Refusal as error:
        if code_of(error) not in {"NoSuchUpload", "NoSuchKey", "AccessDenied"}:
            raise
        return None
    return Unfinished(upload_id, parts)
