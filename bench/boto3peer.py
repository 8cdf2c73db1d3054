"""
What people write who put a stream into a bucket with boto3, as a program of its own.

    python -m bench.boto3peer upload|read|fetch|list BUCKET KEY PART_BYTES THREADS

`upload` takes the object from stdin; `read` writes it to stdout as one request brings it, and
`fetch` in ranges, several at once; `list` counts the keys that begin with KEY. ButterSink does not
use boto3.
"""

from __future__ import annotations

import sys

import boto3
from boto3.s3.transfer import TransferConfig

READ_BYTES = 1 << 20


def main() -> None:
    """Do one of them."""
    what, bucket, key, part_bytes, threads = sys.argv[1:]
    part = int(part_bytes)
    config = TransferConfig(
        multipart_threshold=part, multipart_chunksize=part, max_concurrency=int(threads)
    )
    client = boto3.client("s3")
    if what == "upload":
        client.upload_fileobj(sys.stdin.buffer, bucket, key, Config=config)
    elif what == "read":
        body = client.get_object(Bucket=bucket, Key=key)["Body"]
        while chunk := body.read(READ_BYTES):
            sys.stdout.buffer.write(chunk)
    elif what == "fetch":
        client.download_fileobj(bucket, key, sys.stdout.buffer, Config=config)
    elif what == "list":
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        print(sum(page["KeyCount"] for page in pages))
    else:
        sys.exit(f"{what}: upload, read, fetch or list")


if __name__ == "__main__":
    main()
