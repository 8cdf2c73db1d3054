"""What lies below a prefix: diffs, records, unfinished uploads. One request for 1,000 keys."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError as Refusal

from buttersink.errors import LocationError
from buttersink.stores.s3.connection import NO_S3, code_of, translating
from buttersink.stores.s3.keys import SIZES, TRASH, DiffKey, parse_key, path_of, under

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from buttersink.catalogue import Diff
    from buttersink.stores.s3.connection import Client

_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_NONE = {"NotImplemented", "MethodNotAllowed", "501", "405", "AccessDenied", "NoSuchUpload"}


@dataclass(frozen=True, slots=True)
class StoredDiff:
    """
    A diff in the bucket.

    Attributes:
        key: Of the object.
        path: Of the snapshot, relative to the location.
        size: Bytes.
        etag: Entity tag, quoted as the server gave it.
        archived: Why it cannot be read now, and what to do; empty if it can.
        modified: When it was written, in nanoseconds since the epoch.
        records: Keys of its records: none for what 0.6 wrote, several if several runs tried.
        generation: Of the snapshot, 0 if nobody noted it.
        created: When the snapshot was made, in nanoseconds since the epoch, 0 if nobody noted it.

    """

    key: str
    path: bytes
    size: int
    etag: str
    archived: str
    modified: int
    records: tuple[str, ...] = ()
    generation: int = 0
    created: int = 0


class Begun(NamedTuple):
    """An unfinished upload: its id, and when it was begun, in nanoseconds since the epoch."""

    upload_id: str
    initiated: int


@dataclass(slots=True)
class Listing:
    """
    Everything below a prefix.

    Attributes:
        diffs: Those stored; several keys can hold the same one.
        begun: Unfinished uploads of diffs, by key.
        paths: Of the snapshots that those are of, by key.
        foreign: Keys of other objects.

    """

    diffs: dict[Diff, list[StoredDiff]] = field(default_factory=dict)
    begun: dict[str, list[Begun]] = field(default_factory=dict)
    paths: dict[str, tuple[Diff, bytes]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


def read_listing(client: Client, bucket: str, prefix: str) -> Listing:
    """Read all there is below a prefix; `LocationError` if that cannot be."""
    listing = Listing()
    records: dict[str, list[tuple[str, DiffKey]]] = defaultdict(list)
    diffs: list[tuple[DiffKey, dict[str, Any]]] = []
    begin = under(prefix)
    for found in _objects(client, bucket, begin):
        key = found["Key"]
        parsed = parse_key(key[len(begin) :])
        if key.startswith(TRASH) or key.endswith(SIZES):
            continue
        if parsed is None:
            listing.foreign.append(key)
        elif parsed.generation is None:
            diffs.append((parsed, found))
        else:
            records[key.rsplit(".", 4)[0]].append((key, parsed))
    for parsed, found in diffs:
        stored = _stored(parsed, found, records[found["Key"]])
        listing.diffs.setdefault(parsed.diff, []).append(stored)
    for key, begun in _uploads(client, bucket, begin):
        parsed = parse_key(key[len(begin) :])
        if parsed is not None and parsed.generation is None and not key.startswith(TRASH):
            listing.begun.setdefault(key, []).append(begun)
            listing.paths[key] = parsed.diff, path_of(parsed.path, recorded=True)
    return listing


def _stored(
    parsed: DiffKey, found: Mapping[str, Any], records: list[tuple[str, DiffKey]]
) -> StoredDiff:
    noted = records[0][1] if records else parsed
    return StoredDiff(
        key=found["Key"],
        path=path_of(parsed.path, recorded=bool(records)),
        size=found["Size"],
        etag=found["ETag"],
        archived=_archived(found),
        modified=_nanoseconds(found["LastModified"]),
        records=tuple(key for key, _noted in records),
        generation=noted.generation or 0,
        created=noted.created or 0,
    )


def _archived(found: Mapping[str, Any]) -> str:
    """Return why an object in an archive class cannot be read, unless it has been restored."""
    kept_in, restore = found.get("StorageClass", ""), found.get("RestoreStatus", {})
    if kept_in not in _ARCHIVES or restore.get("RestoreExpiryDate"):
        return ""
    if restore.get("IsRestoreInProgress"):
        return f"its diff is archived ({kept_in}) and being restored: run again in some hours"
    return f"its diff is archived ({kept_in}): restore it first, by aws s3api restore-object"


def _objects(client: Client, bucket: str, begin: str) -> Iterator[dict[str, Any]]:
    with translating(LocationError, "cannot list the bucket", f"s3://{bucket}/{begin}"):
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=begin, OptionalObjectAttributes=["RestoreStatus"]
        )
        for page in pages:
            if "Name" not in page:  # else any web page would be an empty bucket
                why, hint = NO_S3
                what = "cannot list the bucket"
                raise LocationError(what, where=f"s3://{bucket}/{begin}", why=why, hint=hint)
            yield from page.get("Contents", ())


def _uploads(client: Client, bucket: str, begin: str) -> Iterator[tuple[str, Begun]]:
    """Yield the key of each unfinished upload; none where they may not or cannot be listed."""
    with translating(LocationError, "cannot list unfinished uploads", f"s3://{bucket}/{begin}"):
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=begin)
        try:
            for page in pages:
                for each in page.get("Uploads", ()):
                    if each["Key"].startswith(begin):
                        begun = Begun(each["UploadId"], _nanoseconds(each["Initiated"]))
                        yield each["Key"], begun
        except Refusal as error:
            if code_of(error) not in _NONE:
                raise


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 10**9)
