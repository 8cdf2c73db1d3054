"""
Each S3 server of the tests does what its traits say, so that tests may rely on them.

What a server does not do is tested as well: a newer one that does it has to have its trait changed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from tests.support import serving
from tests.support.cuttingproxy import CuttingProxy
from tests.support.s3servers import START, Bucket, Client, Server
from tests.support.serving import ServerError, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartedServer

PART = bytes(range(256)) * (5 << 12)  # 5 MiB, the least that a part may have
LAST = b"the last part may be short"


@pytest.fixture
def client(s3: Bucket) -> Iterator[Client]:
    with closing(s3.server.client()) as made:
        yield made


@contextmanager
def refused(*codes: str, when: bool = True) -> Iterator[None]:
    """Expect the block to be refused with one of these codes, or if not `when`, to be accepted."""
    if not when:
        yield
        return
    with pytest.raises(ClientError) as raised:
        yield
    assert raised.value.response["Error"]["Code"] in codes


def crc32c(data: bytes) -> str:
    """Return the checksum as the headers have it."""
    return base64.b64encode(struct.pack(">I", google_crc32c.value(data))).decode()


def start_upload(client: Client, s3: Bucket, key: str = "key", **more: str) -> dict[str, str]:
    """Return the words that say which upload it is."""
    created = client.create_multipart_upload(Bucket=s3.name, Key=key, **more)
    return {"Bucket": s3.name, "Key": key, "UploadId": created["UploadId"]}


def upload_parts(client: Client, upload: dict[str, str], *parts: bytes) -> dict[str, Any]:
    """Return the list that completes the upload."""
    done = []
    for number, part in enumerate(parts, start=1):
        answer = client.upload_part(**upload, PartNumber=number, Body=part)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    return {"Parts": done}


def test_an_upload_in_parts_is_the_object(client: Client, s3: Bucket) -> None:
    upload = start_upload(client, s3)
    parts = upload_parts(client, upload, PART, LAST)
    assert s3.keys() == []
    assert s3.uploads() == [("key", upload["UploadId"])]
    listed = client.list_parts(**upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, len(PART)), (2, 26)]
    client.complete_multipart_upload(**upload, MultipartUpload=parts)
    assert s3.keys() == ["key"]
    assert s3.uploads() == []
    assert client.get_object(Bucket=s3.name, Key="key")["Body"].read() == PART + LAST


def test_small_parts(client: Client, s3: Bucket) -> None:
    upload = start_upload(client, s3)
    parts = upload_parts(client, upload, b"too short", LAST)
    with refused("EntityTooSmall", when=s3.server.traits.refuses_small_parts):
        client.complete_multipart_upload(**upload, MultipartUpload=parts)


def test_a_wrong_checksum_of_a_part(client: Client, s3: Bucket) -> None:
    upload = start_upload(client, s3, ChecksumAlgorithm="CRC32C")
    words = {**upload, "PartNumber": 1, "Body": PART, "ChecksumAlgorithm": "CRC32C"}
    with refused("BadDigest", "InvalidRequest", when=s3.server.traits.verifies_checksums):
        client.upload_part(**words, ChecksumCRC32C=crc32c(LAST))
    answer = client.upload_part(**words, ChecksumCRC32C=crc32c(PART))
    if s3.server.traits.verifies_checksums:
        assert answer["ChecksumCRC32C"] == crc32c(PART)
        (part,) = client.list_parts(**upload)["Parts"]
        assert part["ChecksumCRC32C"] == crc32c(PART)


def test_a_wrong_checksum_of_an_object(client: Client, s3: Bucket) -> None:
    words = {"Bucket": s3.name, "Key": "key", "Body": PART, "ChecksumAlgorithm": "CRC32C"}
    with refused("BadDigest", "InvalidRequest", when=s3.server.traits.verifies_checksums):
        client.put_object(**words, ChecksumCRC32C=crc32c(LAST))
    assert s3.keys() == ([] if s3.server.traits.verifies_checksums else ["key"])
    client.put_object(**words, ChecksumCRC32C=crc32c(PART))


def test_a_wrong_content_md5(client: Client, s3: Bucket) -> None:
    upload = start_upload(client, s3)
    wrong = base64.b64encode(hashlib.md5(LAST).digest()).decode()
    codes = ("BadDigest", "InvalidDigest")
    with refused(*codes, when=s3.server.traits.verifies_content_md5):
        client.upload_part(**upload, PartNumber=1, Body=PART, ContentMD5=wrong)


def test_a_wrong_secret(s3: Bucket) -> None:
    liar = replace(s3.server, secret_key="not-the-secret")
    with (
        closing(liar.client()) as client,
        refused("SignatureDoesNotMatch", when=s3.server.traits.verifies_signatures),
    ):
        client.put_object(Bucket=s3.name, Key="key", Body=b"")


def test_an_unknown_user(s3: Bucket) -> None:
    stranger = replace(s3.server, access_key="AKNOBODY")
    with (
        closing(stranger.client()) as client,
        refused("InvalidAccessKeyId", when=s3.server.traits.verifies_signatures),
    ):
        client.put_object(Bucket=s3.name, Key="key", Body=b"")


def test_a_second_object_where_none_may_be(client: Client, s3: Bucket) -> None:
    honours = s3.server.traits.honours_conditions
    client.put_object(Bucket=s3.name, Key="key", Body=b"first", IfNoneMatch="*")
    with refused("PreconditionFailed", when=honours):
        client.put_object(Bucket=s3.name, Key="key", Body=b"second", IfNoneMatch="*")
    left = client.get_object(Bucket=s3.name, Key="key")["Body"].read()
    assert left == (b"first" if honours else b"second")


def test_an_upload_that_completes_where_an_object_may_not_be(client: Client, s3: Bucket) -> None:
    client.put_object(Bucket=s3.name, Key="key", Body=b"first")
    upload = start_upload(client, s3)
    parts = upload_parts(client, upload, PART, LAST)
    with refused("PreconditionFailed", when=s3.server.traits.honours_conditions):
        client.complete_multipart_upload(**upload, MultipartUpload=parts, IfNoneMatch="*")


@pytest.mark.parametrize("wanted", [range(10, 20), range(len(PART) - 7, len(PART))])
def test_a_ranged_read(client: Client, s3: Bucket, wanted: range) -> None:
    client.put_object(Bucket=s3.name, Key="key", Body=PART)
    spoken = f"bytes={wanted.start}-{wanted.stop - 1}"
    answer = client.get_object(Bucket=s3.name, Key="key", Range=spoken)
    assert answer["Body"].read() == PART[wanted.start : wanted.stop]
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    assert status == (206 if s3.server.traits.partial_content else 200)


def test_a_copy_of_a_part(client: Client, s3: Bucket) -> None:
    client.put_object(Bucket=s3.name, Key="from", Body=PART)
    upload = start_upload(client, s3, "to")
    source = {"Bucket": s3.name, "Key": "from"}
    if not s3.server.traits.copies_parts:
        answer = client.upload_part_copy(**upload, PartNumber=1, CopySource=source)
        assert "ETag" not in answer.get("CopyPartResult", {})
        return
    answer = client.upload_part_copy(**upload, PartNumber=1, CopySource=source)
    part = {"PartNumber": 1, "ETag": answer["CopyPartResult"]["ETag"]}
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    assert client.get_object(Bucket=s3.name, Key="to")["Body"].read() == PART


def test_metadata(client: Client, s3: Bucket) -> None:
    client.put_object(Bucket=s3.name, Key="key", Body=b"", Metadata={"some-name": "Value"})
    read = client.head_object(Bucket=s3.name, Key="key")["Metadata"]
    if s3.server.traits.keeps_metadata_case:
        assert read == {"some-name": "Value"}
    else:
        assert read != {"some-name": "Value"}
        assert {name.lower(): value for name, value in read.items()}["some-name"] == "Value"


def test_a_listing_in_pages(client: Client, s3: Bucket) -> None:
    names = [f"many/{number}" for number in range(5)]
    for name in (*names, "more"):
        client.put_object(Bucket=s3.name, Key=name, Body=b"")
    listing = client.get_paginator("list_objects_v2")
    pages = listing.paginate(Bucket=s3.name, Prefix="many/", PaginationConfig={"PageSize": 2})
    assert [[each["Key"] for each in page["Contents"]] for page in pages] == [
        names[:2],
        names[2:4],
        names[4:],
    ]
    assert s3.keys() == [*names, "more"]
    assert s3.keys("many/") == names


def test_uploads_where_there_never_was_one(client: Client, s3: Bucket) -> None:
    with refused("NoSuchUpload", when=not s3.server.traits.lists_no_uploads):
        client.list_multipart_uploads(Bucket=s3.name)
    assert s3.uploads() == []


def test_removing_a_bucket(s3_server: Server) -> None:
    bucket = s3_server.bucket("removed")
    with closing(s3_server.client()) as client:
        client.put_object(Bucket="removed", Key="a/b", Body=b"")
        upload_parts(client, start_upload(client, bucket, "unfinished"), PART)
        bucket.remove()
        assert "removed" not in [each["Name"] for each in client.list_buckets()["Buckets"]]


def test_a_guest_may_do_what_the_policy_says(client: Client, s3: Bucket) -> None:
    if s3.server.guest is None:
        with pytest.raises(AssertionError):
            s3.server.as_guest()
        return
    client.put_object(Bucket=s3.name, Key="key", Body=b"read me")
    with closing(s3.server.as_guest().client()) as guest:
        with refused("AccessDenied"):
            guest.get_object(Bucket=s3.name, Key="key")
        s3.let_guest("s3:GetObject", "s3:ListBucket")
        assert guest.get_object(Bucket=s3.name, Key="key")["Body"].read() == b"read me"
        assert [each["Key"] for each in guest.list_objects_v2(Bucket=s3.name)["Contents"]]
        with refused("AccessDenied"):
            guest.put_object(Bucket=s3.name, Key="key", Body=b"")
        with refused("AccessDenied"):
            guest.delete_object(Bucket=s3.name, Key="key")


def test_a_command_finds_the_server_by_its_environment(s3: Bucket) -> None:
    program = f"""
import botocore.session
client = botocore.session.Session().create_client("s3")
client.put_object(Bucket="{s3.name}", Key="key", Body=b"")
"""
    environment = {**os.environ, **s3.server.environment()}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert s3.keys() == ["key"]


def test_a_paused_server_answers_nothing_until_it_is_resumed(s3: Bucket) -> None:
    client = s3.server.client(Config(read_timeout=0.3))
    with closing(client):
        s3.server.pause()
        try:
            with pytest.raises(HTTPClientError):
                client.list_objects_v2(Bucket=s3.name)
        finally:
            s3.server.resume()
        assert "Contents" not in client.list_objects_v2(Bucket=s3.name)


def test_an_upload_that_is_cut_keeps_its_finished_parts(s3: Bucket) -> None:
    with CuttingProxy(s3.server.endpoint) as proxy:
        through = replace(s3.server, endpoint=proxy.endpoint)
        with closing(through.client()) as client:
            upload = start_upload(client, s3)
            first = client.upload_part(**upload, PartNumber=1, Body=PART)
            proxy.cut_after(len(PART) // 2, then_refuse=True)
            with pytest.raises(HTTPClientError):
                client.upload_part(**upload, PartNumber=2, Body=PART)
            proxy.accept()
            (part,) = client.list_parts(**upload)["Parts"]
            assert part["ETag"] == first["ETag"]


def test_nothing_is_left_of_a_server_even_if_it_was_paused(
    s3_server: Server, tmp_path: Path
) -> None:
    """It is a second one; the first goes on."""
    with START[s3_server.name](tmp_path) as second:
        second.bucket("lost")
        second.pause()
    with pytest.raises(ProcessLookupError):
        os.killpg(second.pid, 0)
    with open("/proc/self/mountinfo") as mounts:
        assert os.fspath(tmp_path) not in mounts.read()
    with closing(s3_server.client()) as client:
        assert "lost" not in [each["Name"] for each in client.list_buckets()["Buckets"]]


def test_servers_start_once(s3_server: Server, s3_servers: StartedServer) -> None:
    assert s3_servers(s3_server.name) is s3_server


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo no such disk >&2; exit 3")
    with (
        running(*command, log=tmp_path / "disk.log", environment={}) as server,
        pytest.raises(ServerError, match=r"disk: ended with status 3(.|\n)*no such disk"),
    ):
        server.wait_until_answers(free_port())


def test_a_server_that_does_not_answer_is_late(tmp_path: Path) -> None:
    with (
        running("sleep", "100", log=tmp_path / "sleeper.log", environment={}) as server,
        pytest.raises(ServerError, match="no answer on port"),
    ):
        server.wait_until_answers(free_port(), seconds=0.1)


def test_a_server_that_does_not_want_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "END_SECONDS", 0.2)
    command = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    log = tmp_path / "stubborn.log"
    with running(*command, log=log, environment={}) as server:
        while not log.read_text():
            time.sleep(0.01)
    assert server.process.returncode == -signal.SIGKILL


def test_a_server_dies_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, signal
from tests.support.s3servers import rclone
with rclone(pathlib.Path({os.fspath(tmp_path)!r})) as server:
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    pid = int(killed.stdout)
    deadline = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Tell whether a process does more than wait for its parent to take notice."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
