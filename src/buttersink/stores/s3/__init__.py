"""Diffs in an S3 bucket as a store of snapshots."""

from buttersink.stores.s3.store import S3Store

__all__ = ["S3Store"]
