"""
Deleted diffs go to `trash/` in the same bucket: copied, compared, and only then deleted.

What a lifecycle rule for that prefix does with them is the user's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buttersink.errors import DeleteError
from buttersink.stores.s3.connection import translating
from buttersink.stores.s3.keys import MAX_KEY, TRASH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from buttersink.stores.s3.connection import Client

_COPY = 5 * 1024**3  # bytes that one CopyObject request can copy
_PART = 1024**3  # bytes copied by one request where it takes several; not twice as many parts fit


def move_to_trash(client: Client, bucket: str, key: str) -> None:
    """Move an object to the trash; `DeleteError` if it stays where it is."""
    aside = f"{TRASH}{key}"[:MAX_KEY]
    with translating(DeleteError, "cannot move to the trash", key):
        head = client.head_object(Bucket=bucket, Key=key)
        if head["ContentLength"] > _COPY:
            _copy_in_parts(client, bucket, key, aside, head)
        else:
            client.copy_object(
                Bucket=bucket,
                Key=aside,
                CopySource={"Bucket": bucket, "Key": key},
                **_storage_class(head),
            )
        copied = client.head_object(Bucket=bucket, Key=aside)
        if copied["ContentLength"] != head["ContentLength"]:
            why = "the copy in the trash is not as long as it"
            raise DeleteError("cannot move to the trash", where=key, why=why)
        client.delete_object(Bucket=bucket, Key=key)


def _storage_class(head: Mapping[str, Any]) -> dict[str, str]:
    found = head.get("StorageClass")
    return {"StorageClass": found} if found else {}


def _copy_in_parts(
    client: Client, bucket: str, key: str, aside: str, head: Mapping[str, Any]
) -> None:
    target = {"Bucket": bucket, "Key": aside}
    begun = client.create_multipart_upload(**target, **_storage_class(head))
    upload_id = begun["UploadId"]
    try:
        parts = [
            {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}
            for number, span in enumerate(_spans(head["ContentLength"]), start=1)
            for answer in [
                client.upload_part_copy(
                    **target,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource={"Bucket": bucket, "Key": key},
                    CopySourceRange=span,
                    CopySourceIfMatch=head["ETag"],
                )
            ]
        ]
        client.complete_multipart_upload(
            **target, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )
    except BaseException:
        client.abort_multipart_upload(**target, UploadId=upload_id)
        raise


def _spans(size: int) -> Iterator[str]:
    """Yield the ranges to copy; 5 TiB are 5,120 parts."""
    for start in range(0, size, _PART):
        yield f"bytes={start}-{min(start + _PART, size) - 1}"
