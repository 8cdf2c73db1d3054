"""The command between btrfs and S3 where it is hard: killed, at once with another, by bad names."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import (
    assert_nothing_arrived,
    assert_same,
    command_line,
    paths,
)
from tests.support.history import HOSTILE_NAMES
from tests.support.loopfs import MIB, btrfs, create_subvolume, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeFilesystem
    from tests.support.s3servers import Bucket

from tests.real.test_s3 import Remote

pytestmark = [pytest.mark.root, pytest.mark.waits]

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)  # the last leaves a partial


@pytest.fixture
def remote(s3: Bucket) -> Remote:
    return Remote(s3)


@pytest.fixture
def big(source: Path) -> Path:
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(Random(1).randbytes(64 * MIB))
    (source / "snaps").mkdir()
    return snapshot(live, source / "snaps" / "big")


def start(remote: Remote, *arguments: str | os.PathLike[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_line(*arguments),
        env={**os.environ, **remote.bucket.server.environment()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], number: int) -> str:
    """Signal a command, which has to end soon and as it should; return what it said."""
    asked = time.monotonic()
    process.send_signal(number)
    _out, said = process.communicate(timeout=20)
    assert time.monotonic() - asked < 4
    if process.returncode != 0:  # else it was about to end
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in said
    assert "Exception" not in said
    return said


def threads_of(process: subprocess.Popen[str]) -> int:
    """Return how many a command has: those that send parts, and a few."""
    try:
        return len(os.listdir(f"/proc/{process.pid}/task"))
    except FileNotFoundError:
        return 0


def until(condition: Any, seconds: float = 20) -> None:  # noqa: ANN401  whatever can be called
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.waits
def test_a_signal_in_an_upload(big: Path, remote: Remote, destination: Path) -> None:
    random, held = Random(5), 0
    for number in NUMBERS:
        process = start(remote, "--part-size", "5", f"{big.parent}/", remote.location)
        until(lambda: threads_of(process) > 3 or process.poll() is not None)  # noqa: B023
        time.sleep(random.random() * 0.3)
        end(process, number)
        found = remote.document(remote.location)
        if found["snapshots"]:
            break
        assert [each["path"] for each in found["partials"]] == ["big"]
        assert found["partials"][0]["size"] >= held
        held = found["partials"][0]["size"]
    document = remote.document(f"{big.parent}/", remote.location)
    for step in document["result"]["steps"]:
        assert (step["resumed_from"] or 0) >= held
    assert remote.bucket.uploads() == []
    remote.run(remote.location, destination)
    assert_same(big, destination / "big")


@pytest.mark.waits
def test_a_signal_in_a_restore(big: Path, remote: Remote, destination: Path) -> None:
    remote.run(f"{big.parent}/", remote.location)
    random = Random(6)
    for number in NUMBERS:
        process = start(remote, remote.location, destination)
        until(lambda: os.listdir(destination) or process.poll() is not None)  # noqa: B023
        time.sleep(random.random() * 0.1)
        end(process, number)
        if paths(destination):
            btrfs("subvolume", "delete", destination / "big")
        if number != signal.SIGKILL:
            assert_nothing_arrived(destination)
    remote.run(remote.location, destination)
    assert_same(big, destination / "big")


@pytest.fixture
def silent(remote: Remote) -> Iterator[None]:
    yield
    remote.bucket.server.resume()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.waits
def test_a_signal_while_the_server_is_silent(
    big: Path, remote: Remote, destination: Path, number: int
) -> None:
    """It ends at once all the same, and not when nobody waits for an answer any more."""
    process = start(remote, "--part-size", "5", f"{big.parent}/", remote.location)
    until(lambda: remote.bucket.uploads() or process.poll() is not None)
    remote.bucket.server.pause()
    time.sleep(0.3)
    end(process, number)
    remote.bucket.server.resume()
    remote.run(f"{big.parent}/", remote.location)
    process = start(remote, remote.location, destination)
    until(lambda: os.listdir(destination) or process.poll() is not None)
    remote.bucket.server.pause()
    end(process, number)
    remote.bucket.server.resume()


@pytest.mark.waits
def test_two_runs_at_once(big: Path, remote: Remote, destination: Path) -> None:
    runs = [
        start(remote, "--part-size", part, f"{big.parent}/", remote.location)
        for part in ("5", "5", "7")
    ]
    said = []
    for process in runs:
        said.append(process.communicate(timeout=120)[1])
        assert process.returncode in {0, 1}
        assert "Traceback" not in said[-1]
        assert "internal error" not in said[-1]
    if not any(process.returncode == 0 for process in runs):
        remote.run(f"{big.parent}/", remote.location)
    assert len(remote.objects()) == 1, said
    assert "all sound" in remote.run("--verify", "checksums", remote.location).out
    assert "all sound" in remote.run("--verify", "full", remote.location).out
    remote.run(remote.location, destination)
    assert_same(big, destination / "big")


@pytest.fixture
def series(source: Path) -> Path:
    """Make snapshots, each from the one before it; return their directory."""
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    for name in ("a1", "a2", "b1", "b2", "b3"):
        (live / name).write_bytes(Random(name).randbytes(MIB // 2))
        snapshot(live, source / "snaps" / name)
    return source / "snaps"


def test_hostile_names(
    source: Path, remote: Remote, destination: Path, make_filesystem: MakeFilesystem
) -> None:
    live = create_subvolume(source / "live")
    directory = os.fsencode(source / "snaps")
    os.mkdir(directory)
    names = [name for name in (*HOSTILE_NAMES, b"100%", b"%41") if len(name) < 100]
    if remote.bucket.server.name != "rclone":  # keys are names of files there
        names += [b"n" * 255, b"\xff" * 255]
    for name in names:
        (live / "file").write_bytes(name * 100)
        snapshot(live, Path(os.fsdecode(os.path.join(directory, name))))
    remote.run(f"{source}/snaps/", remote.location)
    listed = remote.document(remote.location)["snapshots"]
    assert sorted(os.fsencode(each["path"]) for each in listed) == sorted(names)
    assert remote.run(f"{source}/snaps/", remote.location).out.startswith("Nothing to do")
    remote.run(remote.location, destination)
    assert sorted(os.listdir(os.fsencode(destination))) == sorted(names)
    for name in names:
        text = os.fsdecode(name)
        assert (destination / text / "file").read_bytes() == name * 100
    single = make_filesystem("single").mountpoint
    remote.run(os.fsencode(remote.location) + b"new\nline", single)
    assert os.listdir(single) == ["new\nline"]


def everything(remote: Remote) -> list[Any]:
    with closing(remote.bucket.server.client()) as client:
        found = client.list_objects_v2(Bucket=remote.bucket.name).get("Contents", ())
    return [*((each["Key"], each["ETag"]) for each in found), *remote.bucket.uploads()]


def test_a_dry_run_changes_nothing(series: Path, remote: Remote, destination: Path) -> None:
    nothing = remote.document("-n", f"{series}/", remote.location)
    assert nothing["result"] is None
    assert everything(remote) == []
    remote.run("--exclude", "^b3$", f"{series}/", remote.location)
    btrfs("subvolume", "delete", series / "a1")
    with closing(remote.bucket.server.client()) as client:
        key = next(iter(remote.objects())).replace("a1", "b3")
        client.create_multipart_upload(Bucket=remote.bucket.name, Key=key)
    before = everything(remote)
    elsewhere = Remote(remote.bucket, "elsewhere")
    remote.document("-n", "--delete", f"{series}/", remote.location)
    remote.document("-n", remote.location, elsewhere.location)
    remote.document("-n", remote.location, destination)
    remote.document("-n", "--delete", remote.location)
    remote.document("--verify", "full", remote.location)
    assert everything(remote) == before
    assert os.listdir(destination) == []


def test_what_is_excluded_is_left_alone(series: Path, remote: Remote, destination: Path) -> None:
    remote.run("--exclude", "^a", f"{series}/", remote.location)
    assert [each["path"] for each in remote.document(remote.location)["snapshots"]] == [
        *("b1", "b2", "b3"),
    ]
    remote.run("--exclude", "^b[12]", remote.location, destination)
    assert paths(destination) == ["b3"]
    assert_same(series / "b3", destination / "b3")
    for name in ("b1", "b2"):
        btrfs("subvolume", "delete", series / name)
    remote.run("--delete", "--exclude", "^b1", f"{series}/", remote.location)
    left = [each["path"] for each in remote.document(remote.location)["snapshots"]]
    assert "b1" in left
    assert {"a1", "a2", "b3"} <= set(left)
    assert "all sound" in remote.run("--verify", "full", remote.location).out


def test_a_single_snapshot_and_short_chains(
    series: Path, remote: Remote, destination: Path
) -> None:
    remote.run(series / "b1", remote.location)
    assert [each["path"] for each in remote.document(remote.location)["snapshots"]] == ["b1"]
    document = remote.document("--max-chain", "2", f"{series}/", remote.location)
    assert all(each["depth"] <= 2 for each in document["plan"]["steps"])
    other = Remote(remote.bucket, "other")
    assert other.document(remote.location + "b3", other.location)["result"]["sent_bytes"]
    other.run(other.location + "b3", destination)
    assert paths(destination) == ["b3"]
    assert_same(series / "b3", destination / "b3")


def test_what_may_not_be_deleted_stays(series: Path, remote: Remote, destination: Path) -> None:
    if remote.bucket.server.guest is None:
        return
    remote.run(f"{series}/", remote.location)
    btrfs("subvolume", "delete", series / "b3")
    remote.bucket.let_guest(
        *("s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"),
        *("s3:GetObject", "s3:PutObject"),
    )
    guest = Remote(replace(remote.bucket, server=remote.bucket.server.as_guest()))
    said = guest.run("--delete", f"{series}/", guest.location, status=1)
    assert said.err.count("buttersink: error: ") == 1
    assert "do not allow" in said.err
    listed = [each["path"] for each in guest.document(guest.location)["snapshots"]]
    assert listed == ["a1", "a2", "b1", "b2", "b3"]
    guest.run(guest.location, destination)
    assert paths(destination) == listed
