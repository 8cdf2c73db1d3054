"""Real snapshots to real S3 servers and back: whole, singly, interrupted, damaged, by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.command import (
    Completed,
    assert_same,
    buttersink,
    command_line,
    paths,
)
from tests.support.cuttingproxy import CuttingProxy
from tests.support.history import History, make_history
from tests.support.loopfs import MIB, btrfs, create_subvolume, delete_subvolume, snapshot

if TYPE_CHECKING:
    from tests.conftest import MakeFilesystem
    from tests.support.s3servers import Bucket

pytestmark = [pytest.mark.root, pytest.mark.waits]

README = Path(__file__).parents[2] / "README.md"
AWS = Path(sys.executable).parent / "aws"


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=8, count=8, base_bytes=6 * MIB, change_bytes=MIB // 2)


class Remote:
    """A prefix in a bucket, and the command that reaches it."""

    def __init__(self, bucket: Bucket, prefix: str = "backups/host") -> None:
        self.bucket = bucket
        self.location = f"s3://{bucket.name}/{prefix}/"
        self.prefix = prefix

    def run(self, *arguments: str | bytes | os.PathLike[str], status: int = 0) -> Completed:
        return buttersink(*arguments, status=status, environment=self.bucket.server.environment())

    def document(self, *arguments: str | os.PathLike[str]) -> Any:  # noqa: ANN401  JSON
        return self.run("--json", *arguments).document

    def objects(self) -> dict[str, int]:
        """Return the bytes of each diff, by key."""
        with closing(self.bucket.server.client()) as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket.name, Prefix=f"{self.prefix}/"
            )
            found = [entry for page in pages for entry in page.get("Contents", ())]
        return {each["Key"]: each["Size"] for each in found if not each["Key"].endswith(".json")}

    def read(self, key: str) -> bytes:
        with closing(self.bucket.server.client()) as client:
            return bytes(client.get_object(Bucket=self.bucket.name, Key=key)["Body"].read())

    def write(self, key: str, data: bytes) -> None:
        with closing(self.bucket.server.client()) as client:
            client.put_object(Bucket=self.bucket.name, Key=key, Body=data)

    def remove(self, key: str) -> None:
        with closing(self.bucket.server.client()) as client:
            client.delete_object(Bucket=self.bucket.name, Key=key)


@pytest.fixture
def remote(s3: Bucket) -> Remote:
    return Remote(s3)


def assert_all_same(history: History, directory: Path) -> None:
    for made in history.snapshots:
        assert_same(made.path, directory / made.path.name)


def test_a_history_goes_up_is_verified_comes_back_and_goes_on(
    history: History, remote: Remote, destination: Path, make_filesystem: MakeFilesystem
) -> None:
    document = remote.document(f"{history.directory}/", remote.location)
    planned = document["plan"]["send_bytes"]
    assert document["result"]["sent_bytes"] == planned == sum(remote.objects().values())
    assert document["plan"]["cost_bytes"] <= 1.01 * document["plan"]["cost_bound_bytes"]
    again = remote.run(f"{history.directory}/", remote.location)
    assert again.out.startswith("Nothing to do")

    listed = remote.document(remote.location)
    names = [os.fsdecode(made.path.name) for made in history.snapshots]
    assert sorted(each["path"] for each in listed["snapshots"]) == sorted(names)
    assert listed["total_size"] == planned
    for depth in ("chains", "checksums", "full"):
        assert "all sound" in remote.run("--verify", depth, remote.location).out

    remote.run(remote.location, destination)
    assert_all_same(history, destination)
    single = make_filesystem("single").mountpoint
    last = history.snapshots[-1].path
    remote.run(remote.location + last.name, single)
    assert os.listdir(single) == [last.name]
    assert_same(last, single / last.name)

    live = Path(os.fsdecode(destination)) / "live"
    btrfs("subvolume", "snapshot", destination / last.name, live)
    (live / "more").write_bytes(b"more")
    snapshot(live, destination / "next")
    document = remote.document(f"{destination}/", remote.location)
    (step,) = [each for each in document["plan"]["steps"] if each["action"] == "send"]
    assert step["path"] == "next"
    assert step["from"]
    assert document["result"]["sent_bytes"] < 100_000
    remote.run(f"{remote.location}next", single)
    assert sorted(os.listdir(single)) == sorted([last.name, "next"])
    assert_same(destination / "next", single / "next")


def test_one_bucket_to_another_and_back(
    history: History, remote: Remote, destination: Path
) -> None:
    other = Remote(remote.bucket, "elsewhere")
    remote.run(f"{history.directory}/", remote.location)
    remote.run(remote.location, other.location)
    assert {key.partition("/")[2] for key in other.objects()} == {
        key.removeprefix("backups/host/") for key in remote.objects()
    }
    assert "all sound" in remote.run("--verify", "full", other.location).out
    remote.run(other.location, destination)
    assert_all_same(history, destination)


def test_delete_keeps_what_is_needed(history: History, remote: Remote, destination: Path) -> None:
    remote.run(f"{history.directory}/", remote.location)
    gone = history.snapshots[1:7:2]
    for made in gone:
        delete_subvolume(made.path)
    plan = remote.run("-n", "--delete", f"{history.directory}/", remote.location)
    assert "delete" in plan.out
    before = remote.objects()
    remote.run("--delete", f"{history.directory}/", remote.location)
    assert "all sound" in remote.run("--verify", "checksums", remote.location).out
    trash = [key for key in remote.bucket.keys("trash/") if not key.endswith(".json")]
    after = remote.objects()
    assert {key.removeprefix("trash/") for key in trash} == before.keys() - after.keys()
    remote.run(remote.location, destination)
    left = sorted(os.fsdecode(each.path.name) for each in history.snapshots if each not in gone)
    assert set(left) <= set(paths(destination))  # others stay where those that are left need them
    for made in history.snapshots:
        if made not in gone:
            assert_same(made.path, destination / made.path.name)


@pytest.mark.waits
def test_restore_by_hand(history: History, remote: Remote, destination: Path) -> None:
    """As docs/S3-FORMAT.md says: `aws s3 cp` and `btrfs receive`."""
    remote.run(f"{history.directory}/", remote.location)
    left = {key: key.rsplit("/", 1)[1].split("_") for key in remote.objects()}
    there = {"None"}
    environment = {**os.environ, **remote.bucket.server.environment()}
    environment |= {
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    while left:
        key = next(key for key, (_to, parent) in left.items() if parent in there)
        there.add(left.pop(key)[0])
        copy: list[str | Path] = [
            AWS,
            "s3",
            "cp",
            "--quiet",
            f"s3://{remote.bucket.name}/{key}",
            "-",
        ]
        with subprocess.Popen(copy, stdout=subprocess.PIPE, env=environment) as sender:
            receive: list[str | Path] = ["btrfs", "receive", "--quiet", destination]
            subprocess.run(receive, stdin=sender.stdout, check=True)
        assert sender.returncode == 0
    assert_all_same(history, destination)


def big_history(source: Path, size: int) -> Path:
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(Random(1).randbytes(size))
    (source / "snaps").mkdir()
    return snapshot(live, source / "snaps" / "big")


@pytest.mark.waits
def test_an_upload_killed_at_ten_points_goes_on(
    source: Path, remote: Remote, destination: Path
) -> None:
    big = big_history(source, 64 * MIB)
    command = command_line("--part-size", "5", f"{big.parent}/", remote.location)
    environment = {**os.environ, **remote.bucket.server.environment()}
    random = Random(3)
    most = 0
    for _ in range(10):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(0.4 + random.random() * 0.5)
            process.kill()
        found = remote.document(remote.location)
        assert len(found["partials"]) <= 1
        for partial in found["partials"]:
            assert partial["size"] >= most
            most = partial["size"]
        if found["snapshots"]:
            break
    document = remote.document("--part-size", "7", f"{big.parent}/", remote.location)
    if document["result"]["steps"]:
        (step,) = document["result"]["steps"]
        assert step["bytes"] + (step["resumed_from"] or 0) == sum(remote.objects().values())
        assert (step["resumed_from"] or 0) >= most
    assert remote.bucket.uploads() == []
    assert "all sound" in remote.run("--verify", "full", remote.location).out
    remote.run(remote.location, destination)
    assert_same(big, destination / "big")


@pytest.mark.waits
def test_a_broken_network_is_ridden_out_or_gone_on_after(
    source: Path, remote: Remote, destination: Path
) -> None:
    """Connections are cut again and again, up and down; nothing is asked for from the start."""
    big = big_history(source, 48 * MIB)
    with CuttingProxy(remote.bucket.server.endpoint) as proxy:
        near = replace(remote.bucket.server, endpoint=proxy.endpoint)
        broken = Remote(replace(remote.bucket, server=near))
        proxy.cut_after(20 * MIB)
        broken.run("--part-size", "5", f"{big.parent}/", broken.location)
        proxy.cut_after(20 * MIB)
        before = proxy.passed
        broken.run(broken.location, destination)
        assert proxy.passed - before < 70 * MIB
    assert_same(big, destination / "big")


class TestDamage:
    @pytest.fixture
    def stored(self, source: Path, remote: Remote) -> Remote:
        """Three snapshots, each from the one before it."""
        live = create_subvolume(source / "live")
        (source / "snaps").mkdir()
        for name in ("one", "two", "three"):
            (live / name).write_bytes(os.urandom(MIB))
            snapshot(live, source / "snaps" / name)
        remote.run(f"{source}/snaps/", remote.location)
        return remote

    def key(self, remote: Remote, name: str) -> str:
        (key,) = (key for key in remote.objects() if f"/{name}/" in key)
        return key

    def restored(self, remote: Remote, destination: Path) -> tuple[list[str], str]:
        """Return what is restored, and what is said of the rest."""
        done = remote.run(remote.location, destination, status=1)
        assert "Traceback" not in done.err
        return paths(destination), done.err + done.out

    def verified(self, remote: Remote, depth: str) -> str:
        done = remote.run("--verify", depth, remote.location, status=1)
        return done.out + done.err

    def test_one_flipped_byte(self, stored: Remote, destination: Path) -> None:
        key = self.key(stored, "two")
        data = bytearray(stored.read(key))
        data[len(data) // 2] ^= 1
        stored.write(key, bytes(data))
        assert "all sound" in stored.run("--verify", "chains", stored.location).out
        assert "two" in self.verified(stored, "full")
        there, said = self.restored(stored, destination)
        assert "two" not in there
        assert "SHA-256" in said or "checksum" in said or "crc32" in said.lower()

    def test_a_truncated_object(self, stored: Remote, destination: Path) -> None:
        key = self.key(stored, "two")
        stored.write(key, stored.read(key)[:-100])
        assert "bytes" in self.verified(stored, "checksums")
        assert "two" in self.verified(stored, "full")
        assert "two" not in self.restored(stored, destination)[0]

    def test_a_missing_link(self, stored: Remote, destination: Path) -> None:
        keys = stored.objects()
        (full,) = (key for key in keys if key.endswith("_None"))
        stored.remove(full)
        said = self.verified(stored, "chains")
        assert all(name in said for name in ("one", "two", "three") if f"/{name}/" not in full)
        there, said = self.restored(stored, destination)
        assert there == []
        assert "starts from a snapshot that nothing leads to" in said

    def test_a_foreign_object_and_files_of_0_6(self, stored: Remote, destination: Path) -> None:
        stored.write(f"{stored.prefix}/photo.jpg", b"x")
        stored.write(f"{stored.prefix}/one.bs", b"x\tNone\t1\n")
        assert "all sound" in stored.run("--verify", "full", stored.location).out
        stored.run(stored.location, destination)
        assert sorted(paths(destination)) == ["one", "three", "two"]

    def test_what_is_no_stream(self, stored: Remote, destination: Path) -> None:
        key = self.key(stored, "three")
        stored.write(key, b"this is no stream at all" * 100)
        assert "three" in self.verified(stored, "full")
        assert "three" not in self.restored(stored, destination)[0]


def test_what_0_6_wrote_is_restored(source: Path, remote: Remote, destination: Path) -> None:
    """A raw send stream under the same key, and no record."""
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    made = []
    for name in ("one", "two"):
        (live / name).write_bytes(os.urandom(MIB))
        made.append(snapshot(live, source / "snaps" / name))
    found = buttersink("--json", "-e", f"{source}/snaps/").document["snapshots"]
    one, two = (each["uuid"] for each in found)
    for key, arguments in (
        (f"one/{one}_None", [made[0]]),
        (f"two/{two}_{one}", ["-p", made[0], made[1]]),
    ):
        stream = subprocess.check_output(["btrfs", "send", "--quiet", *arguments])
        remote.write(f"{remote.prefix}/{key}", stream)
    said = remote.run("--verify", "full", remote.location)
    assert "all sound" in said.out
    assert "nothing was recorded" in remote.run("--verify", "checksums", remote.location).err
    remote.run(remote.location, destination)
    for each in made:
        assert_same(each, destination / each.name)
    listed = buttersink("--json", "-e", f"{destination}/").document["snapshots"]
    assert [each["uuid"] for each in listed] == [one, two]
    assert listed[0]["generation"] < listed[1]["generation"]


def policy_of_the_readme(bucket: str) -> str:
    (text,) = re.findall(r"```json\n(\{\n  \"Version\".*?)```", README.read_text(), re.DOTALL)
    document = json.loads(text.replace("BUCKET", bucket))
    for statement in document["Statement"]:
        statement["Principal"] = {"AWS": ["arn:aws:iam:::user/guest"]}
    return json.dumps(document)


def test_the_policy_of_the_readme_is_enough_and_no_more(
    history: History, s3: Bucket, destination: Path
) -> None:
    if s3.server.guest is None:
        return  # it has one user, who may do everything
    with closing(s3.server.client()) as client:
        client.put_bucket_policy(Bucket=s3.name, Policy=policy_of_the_readme(s3.name))
    remote = Remote(replace(s3, server=s3.server.as_guest()), "laptop")
    remote.run(f"{history.directory}/", remote.location)
    delete_subvolume(history.snapshots[-1].path)
    remote.run("--delete", f"{history.directory}/", remote.location)
    assert "all sound" in remote.run("--verify", "full", remote.location).out
    remote.run(remote.location, destination)
    elsewhere = Remote(remote.bucket, "other")
    said = elsewhere.run(f"{history.directory}/", elsewhere.location, status=1)
    assert "these credentials do not allow it" in said.err
    with closing(remote.bucket.server.client()) as client:
        for key in s3.keys("trash/")[:1]:
            with pytest.raises(ClientError, match="AccessDenied"):
                client.delete_object(Bucket=s3.name, Key=key)
