"""
The S3 store: diffs under a prefix of a bucket.

Strategy: one listing tells everything (see `keys`), so there is nothing to measure and no index to
keep right. A diff is sent as the parts of an upload, and has its key only when all of them are
there; what is interrupted stays unfinished and is gone on with. Nothing is ever overwritten, and
what is deleted goes to `trash/`. Imported only when a bucket is named.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from buttersink.catalogue import Catalogue, Diff, Exactness, Partial, Size, Snapshot
from buttersink.errors import DeleteError, LocationError, ReceiveError, SendError, StreamError
from buttersink.planner.costs import Weights
from buttersink.stores.base import STREAM_VERSION, Comparison, Mode, Role, Store, Traits, Uploads
from buttersink.stores.s3.connection import connect, translating
from buttersink.stores.s3.downloading import Source, download, read_whole
from buttersink.stores.s3.keys import diff_key, path_text, record_key
from buttersink.stores.s3.listing import Listing, StoredDiff, read_listing
from buttersink.stores.s3.record import (
    Record,
    checksum_of,
    checksums,
    composite_etag,
    content_md5,
    parse_record,
    telling_etag,
)
from buttersink.stores.s3.trash import move_to_trash
from buttersink.stores.s3.uploading import Unfinished, Upload, part_bytes, unfinished_parts
from buttersink.stream import StreamCheck, rest_of
from buttersink.stream.segments import another_stream
from buttersink.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from buttersink.catalogue import Measurement, Uuid
    from buttersink.location import S3Location
    from buttersink.planner.plan import Step
    from buttersink.stores.base import Sink
    from buttersink.stream import Checkpoint

_THREADS = 16  # connections: transfers and checks use fewer
_LEAST_BILLED = 128 * 1024  # bytes, in classes for what is seldom read (S3 pricing)
_SELDOM_READ = {"STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"}


class S3Store(Store):
    """Diffs below one prefix of a bucket, or those that a single snapshot there is made of."""

    def __init__(
        self, location: S3Location, mode: Mode, role: Role, uploads: Uploads | None = None
    ) -> None:
        super().__init__(str(location), mode)
        self._uploads = uploads or Uploads()
        self.traits = Traits(
            measures=False,
            receives=STREAM_VERSION,
            verifies=True,
            weights=Weights(
                keeps_diffs=True,
                part_bytes=self._uploads.part_bytes,
                least_stored=(_LEAST_BILLED if self._uploads.storage_class in _SELDOM_READ else 0),
            ),
        )
        self._bucket, self._prefix = location.bucket, location.prefix
        self._single: bytes | None = None
        if role is Role.SOURCE and not location.all_below:
            self._step_out()
        self._client = connect(location.bucket, _THREADS)
        self._listing = Listing()
        self._role = role

    def _step_out(self) -> None:
        """Take the last part of the prefix for the name of the single snapshot that is meant."""
        self._prefix, _slash, name = self._prefix.rpartition("/")
        self._single = name.encode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def catalogue(self) -> Catalogue:
        """List the prefix; a location that turns out to be a snapshot is that single one."""
        self._listing = self._read_listing()
        if self._role is Role.LISTING and self._single is None and self._is_a_snapshot():
            self._step_out()
            self._listing = self._read_listing()
        if count := len(self._listing.foreign):
            example = self._listing.foreign[0]
            self._uploads.tell(f"{count} other objects are left alone, such as {example}")
        snapshots = sorted(self._snapshots(), key=lambda snapshot: snapshot.path)
        inside = [s for s in snapshots if self._single in (None, s.path)]
        if self._single is not None and not inside:
            raise LocationError(
                "no such snapshot",
                where=self.location,
                why="there is no diff that makes it",
                hint="For every snapshot below it, write it with a slash at its end.",
            )
        return Catalogue(
            snapshots=tuple(inside),
            outside=tuple(s for s in snapshots if self._single not in (None, s.path)),
            diffs={
                diff: Size(stored[0].size, Exactness.STORED)
                for diff, stored in self._listing.diffs.items()
            },
            unreadable={
                diff: stored[0].archived
                for diff, stored in self._listing.diffs.items()
                if stored[0].archived
            },
            partials=tuple(self._partials()),
        )

    def _read_listing(self) -> Listing:
        try:
            self._prefix.encode("utf-8")
        except UnicodeEncodeError as error:
            if self._role is Role.DESTINATION:
                why = "keys in a bucket are UTF-8"
                raise LocationError("bad prefix", where=self.location, why=why) from error
            return Listing()  # there is nothing below the name of a snapshot
        return read_listing(self._client, self._bucket, self._prefix)

    def _is_a_snapshot(self) -> bool:
        """Return whether what was listed is one snapshot, or nothing as keys have it otherwise."""
        name = self._prefix.rpartition("/")[2]
        if not self._listing.diffs:
            return path_text(name.encode("utf-8", "surrogateescape")) != name
        return bool(name) and any(not stored.path for stored in self._stored())

    def _stored(self) -> Iterator[StoredDiff]:
        for stored in self._listing.diffs.values():
            yield from stored

    def _snapshots(self) -> Iterator[Snapshot]:
        """Yield one for each UUID: noted things from whichever of its diffs has a record."""
        by_uuid: dict[Uuid, list[tuple[Diff, StoredDiff]]] = {}
        for diff, stored in self._listing.diffs.items():
            by_uuid.setdefault(diff.to, []).extend((diff, each) for each in stored)
        for uuid, diffs in by_uuid.items():
            first = min((stored for _diff, stored in diffs), key=lambda s: (not s.records, s.path))
            full = [stored.size for diff, stored in diffs if diff.parent is None]
            yield Snapshot(
                uuid=uuid,
                own_uuid=uuid,
                parent_uuid=None,
                received_uuid=None,
                generation=first.generation,
                created=first.created or first.modified,
                path=first.path,
                size=Size(full[0], Exactness.STORED) if full else None,
            )

    def _partials(self) -> Iterator[Partial]:
        for key, begun in self._listing.begun.items():
            diff, path = self._listing.paths[key]
            with translating(LocationError, "cannot list an unfinished upload", key):
                found = [self._unfinished(key, each.upload_id) for each in begun]
            size = sum(part.size for each in found if each for part in each.parts.values())
            yield Partial(path, diff.to, max(each.initiated for each in begun), size=size)

    def _unfinished(self, key: str, upload_id: str) -> Unfinished | None:
        return unfinished_parts(self._client, self._target(key), upload_id)

    def _target(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": key}

    def measure(
        self,
        diffs: Sequence[Diff],
        limits: Mapping[Diff, int] | None = None,  # noqa: ARG002  for stores that measure
    ) -> Iterator[Measurement]:
        """Refuse: the diffs that there are have their sizes, and there can be no others."""
        raise SendError(
            "cannot measure", where=self.location, why=f"{len(diffs)} are no diffs here"
        )

    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """Refuse, as `measure` does."""
        raise SendError("cannot guess", where=self.location, why=f"{len(diffs)} are no diffs here")

    @contextmanager
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> Iterator[Iterator[memoryview]]:
        """
        Read a stored diff; at its end `SendError` unless it is what was recorded.

        Of one without a record its own checksums tell.

        After a checkpoint only the rest is read, where there is a record to compare both with.
        """
        stored = self._listing.diffs[diff][0]
        if stored.archived:
            raise SendError("cannot read the diff", where=stored.key, why=stored.archived)
        source = Source(self._bucket, stored.key, stored.size, stored.etag)
        if checkpoint is None or checkpoint.crc32c is None or not stored.records:
            begin = 0
        else:
            begin = checkpoint.bytes
        with download(self._client, source, begin) as chunks:
            records = self._records(stored)
            if checkpoint is None and not records:
                yield _sound(chunks, stored)
            elif checkpoint is None:
                yield _checked(chunks, stored, {record.sha256 for record in records})
            elif not begin:
                yield rest_of(chunks, checkpoint)
            else:
                yield _continued(chunks, checkpoint, {record.crc32c for record in records})

    def _records(self, stored: StoredDiff) -> list[Record]:
        """Return the records of a diff: several if several runs have tried to write it."""
        return [self._read_record(key) for key in stored.records]

    def _read_record(self, key: str) -> Record:
        with translating(SendError, "cannot read the record of the diff", key):
            raw = read_whole(self._client, self._target(key))
        try:
            return parse_record(raw)
        except StreamError as error:
            raise SendError(error.what, where=key, why=error.why) from error

    def check(self, diff: Diff) -> Comparison:
        """Compare size and checksum of a diff with its record, in every place it lies in."""
        found = [self._check(stored) for stored in self._listing.diffs[diff]]
        return next((each for each in found if each.wrong), found[0])

    def _check(self, stored: StoredDiff) -> Comparison:
        records = self._records(stored)
        if not records:
            return Comparison(note="nothing was recorded when it was sent, by whatever sent it")
        with translating(SendError, "cannot look at the diff", stored.key):
            head = self._client.head_object(**self._target(stored.key), ChecksumMode="ENABLED")
        outcomes = [_compare(head, record) for record in records]
        return next((each for each in outcomes if not each.wrong), outcomes[-1])

    @contextmanager
    def receive(
        self,
        step: Step,
        checkpoint: Checkpoint | None = None,  # noqa: ARG002  for stores that make some
    ) -> Iterator[Sink]:
        """Upload a diff; what is there of it from an earlier run is not sent again."""
        self.require(Mode.APPEND)
        snapshot = step.made
        key = diff_key(self._prefix, step.path, step.sent)
        upload = Upload(
            self._client,
            self._target(key),
            create=self._create(),
            part=part_bytes(step.size.bytes if step.size else None, self._uploads.part_bytes),
            unfinished=self._to_go_on_with(key),
            tell=self._uploads.tell,
        )
        try:
            yield upload
            upload.finish(step.path, lambda record: self._write_record(key, snapshot, record))
        finally:
            upload.abandon()
        self._abort_others(key, upload.upload_id)

    def _create(self) -> dict[str, Any]:
        chosen = self._uploads.storage_class
        return {
            "ContentType": "application/octet-stream",
            **({"StorageClass": chosen} if chosen else {}),
        }

    def _to_go_on_with(self, key: str) -> Unfinished | None:
        """
        Return the unfinished upload of a key that has most; None where none has a whole part.

        Such a part may be on its way still: rclone takes no shorter or longer one in its place.
        """
        with translating(ReceiveError, "cannot list an unfinished upload", key):
            found = [
                unfinished
                for begun in self._listing.begun.get(key, ())
                if (unfinished := self._unfinished(key, begun.upload_id)) and unfinished.part_bytes
            ]
        return max(
            found, key=lambda each: sum(part.size for part in each.parts.values()), default=None
        )

    def _abort_others(self, key: str, completed: str) -> None:
        """Abort what was begun of a diff that is there now, if that is allowed."""
        for begun in self._listing.begun.pop(key, ()):
            if begun.upload_id != completed:
                with suppress(BotoCoreError, ClientError):
                    self._client.abort_multipart_upload(
                        **self._target(key), UploadId=begun.upload_id
                    )

    def _write_record(self, key: str, snapshot: Snapshot, record: Record) -> None:
        body = record.to_json()
        target = self._target(record_key(key, snapshot.generation, snapshot.created, body))
        digest = hashlib.md5(body, usedforsecurity=False)
        target["ContentMD5"] = content_md5(digest)  # needed under a retention
        with translating(ReceiveError, "cannot write the record of the diff", key):
            self._client.put_object(**target, Body=body, ContentType="application/json")

    def copy(self, step: Step) -> None:
        """Refuse: nothing here is outside of the location."""
        raise ReceiveError("cannot copy", where=step.path, why="a bucket holds no snapshots")

    def delete(self, step: Step) -> None:
        """Move a diff to the trash, and its record."""
        self.require(Mode.WRITE)
        if step.diff is None or step.diff not in self._listing.diffs:
            raise DeleteError("cannot delete", where=step.path, why="there is no such diff")
        for stored in self._listing.diffs.pop(step.diff):
            move_to_trash(self._client, self._bucket, stored.key)
            for record in stored.records:
                move_to_trash(self._client, self._bucket, record)

    def discard(self, partial: Partial) -> None:
        """Abort the unfinished uploads that make a snapshot at a path."""
        self.require(Mode.WRITE)
        for key, (diff, path) in self._listing.paths.items():
            if (diff.to, path) != (partial.uuid, partial.path):
                continue
            with translating(DeleteError, "cannot abort the upload", key):
                for begun in self._listing.begun.pop(key, ()):
                    target = {**self._target(key), "UploadId": begun.upload_id}
                    with suppress(self._client.exceptions.NoSuchUpload):  # it has ended meanwhile
                        self._client.abort_multipart_upload(**target)

    def flush(self) -> None:
        """Do nothing: what has a key is durable."""


def _compare(head: Mapping[str, Any], record: Record) -> Comparison:
    """Compare what a server says of an object with one of its records."""
    if head["ContentLength"] != record.size:
        size = head["ContentLength"]
        return Comparison(f"it has {size:,} bytes, and was sent with {record.size:,}")
    # Without a type it can be the checksum of anything.
    checksum = head.get("ChecksumCRC32C") if head.get("ChecksumType") else None
    if checksum and checksum not in checksums(record):
        return Comparison("the server has another checksum than what was sent")
    tag, expected = telling_etag(head), composite_etag(record.parts)
    if tag and expected and tag != expected:
        return Comparison("the server has another entity tag than what was sent")
    if not checksum and not (tag and expected):
        return Comparison(note="the server tells no checksum: only the size was compared")
    return Comparison()


def _checked(
    chunks: Iterator[memoryview], stored: StoredDiff, digests: set[bytes]
) -> Iterator[memoryview]:
    """
    Yield a diff; raise `SendError` at its end if none of the digests recorded is its own.

    A chunk is digested while it is used.
    """
    digest, hashing = hashlib.sha256(), Workers(1, "sha256")
    try:
        for chunk in chunks:
            hashed = hashing.submit(digest.update, chunk)
            yield chunk
            hashed.result()
    finally:
        hashing.stop()
    if digests and digest.digest() not in digests:
        raise SendError(
            "the diff is damaged",
            where=stored.key,
            why="its SHA-256 is not the one that was recorded when it was sent",
            hint="Look for what else is wrong with --verify full.",
        )


def _sound(chunks: Iterator[memoryview], stored: StoredDiff) -> Iterator[memoryview]:
    """Yield a diff of which nothing was recorded; `SendError` where it shows that it is damaged."""
    check = StreamCheck()
    try:
        for chunk in chunks:
            check.feed(chunk)
            yield chunk
        check.finish()
    except StreamError as error:
        raise SendError(error.what, where=stored.key, why=error.why, hint=error.hint) from error


def _continued(
    chunks: Iterator[memoryview], checkpoint: Checkpoint, sent: set[int]
) -> Iterator[memoryview]:
    """Yield the rest of a diff; at its end `ResumeError` if the CRC32C of all is none of `sent`."""
    crc32c = checkpoint.crc32c or 0
    for chunk in chunks:
        crc32c = checksum_of(bytes(chunk), crc32c)
        yield chunk
    if crc32c not in sent:
        raise another_stream()
