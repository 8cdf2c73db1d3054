"""An interrupted receive goes on from its last checkpoint, and the result is the same."""

from __future__ import annotations

import json
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

from buttersink.kernel import ioctl
from tests.support import command, sharing, streams
from tests.support.command import Argument, assert_same, buttersink, listing, paths, run_raw
from tests.support.cuttingproxy import CuttingProxy
from tests.support.history import History, make_history
from tests.support.loopfs import (
    MIB,
    btrfs,
    create_subvolume,
    is_mounted,
    loop_filesystem,
    mounted,
    run,
    show_subvolume,
    snapshot,
)
from tests.support.smallsegments import SEGMENT_BYTES, killed_after, small_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import MakeFilesystem, StartedServer
    from tests.support.s3servers import Bucket

pytestmark = pytest.mark.root

KILLS = 10
LONGEST_COMMAND = 64 * 1024


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=41, count=4, base_bytes=8 * MIB, change_bytes=2 * MIB)


def segmented(*arguments: Argument, environment: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
    """Run the command with small segments; return its document and what it said."""
    done = run_raw(small_segments("--json", *arguments), environment=environment)
    assert done.returncode == 0, done
    return json.loads(done.stdout), done.stderr.decode()


def assert_copied(snaps: Path, destination: Path) -> None:
    """Fail unless the destination holds every snapshot, as that snapshot, and nothing else."""
    command.assert_copied(snaps, destination)
    assert sorted(os.listdir(destination)) == paths(destination)
    assert not is_mounted(Path("/run/buttersink"))


def held(destination: Path) -> int:
    """Return the bytes in the one checkpoint that a listing shows."""
    (size,) = (each["size"] for each in listing(destination)["partials"] if each["size"])
    return int(size)


def journal(destination: Path) -> Path:
    (found,) = destination.glob(".buttersink-*.journal")
    return found


def test_many_segments_make_the_same(history: History, destination: Path) -> None:
    document, _said = segmented(f"{history.directory}/", destination)
    assert_copied(history.directory, destination)
    assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
    for step in document["plan"]["steps"]:
        assert step["size"] > 3 * SEGMENT_BYTES
        parents = {show_subvolume(path).uuid for path in destination.iterdir()}
        received = show_subvolume(destination / step["path"])
        assert received.parent_uuid not in {None, *parents}  # but made from a checkpoint


def test_a_stream_shorter_than_a_segment_is_received_at_once(
    source: Path, destination: Path
) -> None:
    made = make_history(source, seed=42, count=1, base_bytes=6 * MIB, change_bytes=MIB)
    buttersink(f"{made.directory}/", destination)
    assert show_subvolume(destination / "0000").parent_uuid is None


@pytest.mark.parametrize("make", [sharing.bring_back, sharing.copy_by_reflink])
def test_clones_of_other_snapshots(
    source: Path, destination: Path, make: Callable[[Path], Path]
) -> None:
    """Streams with stand-ins, to where the originals are; interrupted, too."""
    snaps = make(source)
    with (source / "live" / "big").open("wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(3))
    snapshot(source / "live", snaps / "z")
    killed_after(5, f"{snaps}/", destination)
    segmented(f"{snaps}/", destination)
    assert_copied(snaps, destination)
    for name in paths(snaps)[1:]:
        btrfs("subvolume", "delete", snaps / name)
    killed_after(2, f"{destination}/", snaps)
    document, _said = segmented(f"{destination}/", snaps)
    assert "resumed" in {step["status"] for step in document["result"]["steps"]}
    assert_copied(destination, snaps)


class TestGoingOn:
    @pytest.mark.parametrize("checkpoints", [1, 2, 9])
    def test_what_is_held_is_not_sent_again(
        self, history: History, destination: Path, checkpoints: int
    ) -> None:
        killed_after(checkpoints, f"{history.directory}/", destination)
        there = held(destination)
        assert there >= checkpoints * SEGMENT_BYTES
        assert there < checkpoints * (SEGMENT_BYTES + LONGEST_COMMAND)
        document, said = segmented(f"{history.directory}/", destination)
        step, *others = document["result"]["steps"]
        size = document["plan"]["steps"][0]["size"]
        assert (step["status"], step["resumed_from"]) == ("resumed", there)
        assert step["bytes"] == size - there
        assert {each["status"] for each in others} == {"done"}
        assert said == ""
        assert_copied(history.directory, destination)

    def test_again_and_again(self, history: History, destination: Path) -> None:
        before = 0
        for _run in range(4):
            killed_after(3, f"{history.directory}/", destination)
            assert held(destination) >= before + 3 * SEGMENT_BYTES
            before = held(destination)
        document, _said = segmented(f"{history.directory}/", destination)
        assert document["result"]["steps"][0]["resumed_from"] == before
        assert_copied(history.directory, destination)

    def test_with_segments_of_another_length(self, history: History, destination: Path) -> None:
        killed_after(3, f"{history.directory}/", destination)
        there = held(destination)
        document = buttersink("--json", f"{history.directory}/", destination).document
        assert document["result"]["steps"][0]["resumed_from"] == there
        assert_copied(history.directory, destination)

    def test_below_a_directory_made_for_it(self, history: History, destination: Path) -> None:
        killed_after(3, f"{history.directory.parent}/", destination)
        assert sorted(destination.glob("snapshots/.buttersink-*.journal"))
        document, _said = segmented(f"{history.directory.parent}/", destination)
        assert document["result"]["steps"][0]["status"] == "resumed"
        assert_same(history.directory / "0000", destination / "snapshots" / "0000")

    def test_a_signal_leaves_only_the_checkpoint(self, history: History, destination: Path) -> None:
        with subprocess.Popen(
            small_segments(f"{history.directory}/", destination), stdout=subprocess.DEVNULL
        ) as process:
            while not list(destination.glob(".buttersink-*.journal")):
                time.sleep(0.001)
            process.terminate()
        assert process.returncode == 128 + signal.SIGTERM
        assert len(listing(destination)["partials"]) == 1
        assert held(destination)
        document, _said = segmented(f"{history.directory}/", destination)
        assert document["result"]["steps"][0]["status"] == "resumed"
        assert_copied(history.directory, destination)

    def test_ten_kills(self, history: History, make_filesystem: MakeFilesystem) -> None:
        """Each while a segment is on its way, of the first snapshot or the last."""
        destination = make_filesystem("roomy", size_bytes=8192 * MIB).mountpoint
        random, resumed = Random(10), 0
        for number in range(KILLS):
            for path in os.listdir(destination):
                btrfs("subvolume", "delete", destination / path)
            late = random.uniform(0.001, 0.05)
            command = ("-q", f"{history.directory}/", destination)
            run_raw(small_segments(*command, kill_after=1 + 2 * number, seconds_later=late))
            found = listing(destination)
            for each in found["snapshots"]:
                assert_same(history.directory / each["path"], destination / each["path"])
            kept = [each["size"] for each in found["partials"] if each["size"]]
            document, said = segmented(f"{history.directory}/", destination)
            sizes = {step["uuid"]: step["size"] for step in document["plan"]["steps"]}
            steps = document["result"]["steps"]
            starts = [step["resumed_from"] for step in steps if step["status"] == "resumed"]
            assert starts == kept
            for step in steps:
                assert step["bytes"] == sizes[step["uuid"]] - (step["resumed_from"] or 0)
            assert said == ""
            assert_copied(history.directory, destination)
            resumed += len(kept)
        assert resumed >= KILLS // 2


class TestNotGoneOnWith:
    @pytest.fixture
    def left(self, history: History, destination: Path) -> Path:
        """A destination with a checkpoint."""
        killed_after(4, f"{history.directory}/", destination)
        return destination

    def starts_over(self, history: History, left: Path, why: str) -> None:
        document, said = segmented(f"{history.directory}/", left)
        assert [step["status"] for step in document["result"]["steps"]] == ["done"] * 4
        assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
        assert said.startswith("buttersink: note: 0000 is sent from its beginning: ")
        assert why in said
        assert said.count("\n") == 1
        assert_copied(history.directory, left)

    def rewrite(self, left: Path, **changes: object) -> None:
        path = journal(left)
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def test_another_stream(self, history: History, left: Path) -> None:
        ((length, _digest),) = json.loads(journal(left).read_text())["stretches"]
        self.rewrite(left, stretches=[[length, "00" * 32]])
        self.starts_over(history, left, "the source now sends another stream")

    def test_another_checksum(self, history: History, left: Path) -> None:
        self.rewrite(left, crc32c=1)
        self.starts_over(history, left, "the source now sends another stream")

    def test_another_difference(self, history: History, left: Path) -> None:
        self.rewrite(left, **{"from": "00112233-4455-6677-8899-aabbccddeeff"})
        self.starts_over(history, left, "another difference makes this snapshot now")

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"buttersink": 1}'])
    def test_a_damaged_journal(self, history: History, left: Path, raw: bytes) -> None:
        journal(left).write_bytes(raw)
        self.starts_over(history, left, "its journal is damaged")

    def test_a_journal_of_a_later_format(self, history: History, left: Path) -> None:
        self.rewrite(left, buttersink=2)
        self.starts_over(history, left, "its journal has format 2")

    def test_a_link_in_the_place_of_the_journal(
        self, history: History, left: Path, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(journal(left).read_bytes())
        name = journal(left)
        name.unlink()
        name.symlink_to(elsewhere)
        self.starts_over(history, left, "its journal cannot be read")
        assert elsewhere.exists()

    def test_a_fifo_in_the_place_of_the_journal(self, history: History, left: Path) -> None:
        name = journal(left)
        name.unlink()
        os.mkfifo(name)
        self.starts_over(history, left, "its journal is not the file that was left there")

    def test_a_journal_that_others_may_write(self, history: History, left: Path) -> None:
        journal(left).chmod(0o666)
        self.starts_over(history, left, "its journal is not the file that was left there")

    def test_a_journal_that_names_something_else(self, history: History, left: Path) -> None:
        self.rewrite(left, name="../elsewhere")
        self.starts_over(history, left, "its journal names something else")

    def test_a_checkpoint_that_is_gone(self, history: History, left: Path) -> None:
        btrfs("subvolume", "delete", left / json.loads(journal(left).read_text())["name"])
        self.starts_over(history, left, "its checkpoint cannot be opened")

    def test_a_checkpoint_that_was_changed(self, history: History, left: Path) -> None:
        """By means that keep its UUIDs."""
        checkpoint = left / json.loads(journal(left).read_text())["name"]
        fd = os.open(checkpoint, os.O_RDONLY)
        try:
            ioctl.set_read_only(fd, read_only=False)
            (checkpoint / "more").write_bytes(b"more")
            ioctl.set_read_only(fd, read_only=True)
        finally:
            os.close(fd)
        run("sync", "--file-system", left)
        self.starts_over(history, left, "its checkpoint has been changed")

    def test_a_checkpoint_that_is_writable(self, history: History, left: Path) -> None:
        checkpoint = left / json.loads(journal(left).read_text())["name"]
        btrfs("property", "set", "-f", checkpoint, "ro", "false")
        self.starts_over(history, left, "its checkpoint has been changed")

    def test_a_checkpoint_of_which_there_is_a_copy(
        self, history: History, left: Path, destination: Path
    ) -> None:
        checkpoint = left / json.loads(journal(left).read_text())["name"]
        (destination / "other").mkdir()
        copied = snapshot(checkpoint, destination / "other" / "copy")
        document, said = segmented(f"{history.directory}/", left)
        assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
        assert "somebody has copied its checkpoint" in said
        for path in paths(history.directory):
            assert_same(history.directory / path, left / path)
        assert copied.exists()

    def test_the_source_has_it_no_more(self, history: History, left: Path) -> None:
        """Then it is a partial like any other."""
        btrfs("subvolume", "delete", history.directory / "0000")
        segmented(f"{history.directory}/", left)
        kept, before = sorted(listing(left)["partials"], key=lambda each: each["size"] is None)
        assert kept["size"]
        assert before["size"] is None  # the checkpoint before it, which was about to be deleted
        segmented("--delete", f"{history.directory}/", left)
        assert_copied(history.directory, left)

    def test_with_delete_alone_it_is_discarded(self, left: Path) -> None:
        buttersink("--delete", f"{left}/")
        assert os.listdir(left) == []


def test_the_power_fails_after_a_checkpoint(
    history: History, make_filesystem: MakeFilesystem
) -> None:
    """Its image is copied as soon as another journal is there, and mounted afterwards."""
    host = make_filesystem("host", size_bytes=8192 * MIB).mountpoint
    cuts: list[Path] = []
    with loop_filesystem(host, label="disk") as disk:
        command = small_segments("-e", f"{history.directory}/", disk.mountpoint)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            last = 0
            while process.poll() is None:
                try:
                    written = next(disk.mountpoint.glob(".buttersink-*.journal")).stat().st_ino
                except (FileNotFoundError, StopIteration):
                    time.sleep(0.001)
                    continue
                if written != last:
                    last = written
                    cuts.append(host / f"cut{len(cuts)}.img")
                    run("cp", "--reflink=always", disk.image, cuts[-1])
    assert len(cuts) > 20
    resumed = 0
    for cut in cuts[:: len(cuts) // 8]:
        btrfs("device", "scan", "--forget")  # the copies have one and the same identity
        with mounted(cut, host / "after") as after:
            document, said = segmented(f"{history.directory}/", after)
            assert said == ""
            steps = document["result"]["steps"]
            resumed += sum(step["status"] == "resumed" for step in steps)
            assert_copied(history.directory, after)
    assert resumed >= 6


def stored(source: Path, s3_servers: StartedServer, size: int) -> tuple[Bucket, str]:
    """Return a bucket that holds a snapshot with one file of so many bytes, and where in it."""
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    (live / "big").write_bytes(os.urandom(size))
    snapshot(live, source / "snaps" / "one")
    bucket = s3_servers("moto").bucket(f"resume-{os.urandom(8).hex()}")
    location = f"s3://{bucket.name}/host/"
    buttersink(f"{source}/snaps/", location, environment=bucket.server.environment())
    return bucket, location


@pytest.mark.parametrize("recorded", [True, False])
def test_from_a_bucket(
    source: Path, destination: Path, s3_servers: StartedServer, *, recorded: bool
) -> None:
    """By range where there is a record; else all is read again, and only the rest received."""
    bucket, location = stored(source, s3_servers, 30 * MIB)
    environment = bucket.server.environment()
    if not recorded:
        records = [key for key in bucket.keys() if key.endswith(".json")]  # noqa: SIM118  no dict
        with closing(bucket.server.client()) as client:
            for key in records:
                client.delete_object(Bucket=bucket.name, Key=key)
    killed_after(40, location, destination, environment=environment)
    there = held(destination)
    with CuttingProxy(bucket.server.endpoint) as proxy:
        near = replace(bucket.server, endpoint=proxy.endpoint)
        document, said = segmented(location, destination, environment=near.environment())
        passed = proxy.passed
    (step,) = document["result"]["steps"]
    assert (step["status"], step["resumed_from"]) == ("resumed", there)
    assert said == ""
    assert (passed < step["bytes"] + 8 * MIB) == recorded
    assert_same(source / "snaps" / "one", destination / "one")
    assert os.listdir(destination) == ["one"]
    bucket.remove()


def test_a_restore_cut_and_killed_at_ten_points_goes_on(
    source: Path, destination: Path, s3_servers: StartedServer
) -> None:
    """Each run loses its connections once, which it rides out, and is killed later."""
    bucket, location = stored(source, s3_servers, 6 * MIB)
    random = Random(11)
    for _ in range(KILLS):
        with CuttingProxy(bucket.server.endpoint) as proxy:
            near = replace(bucket.server, endpoint=proxy.endpoint).environment()
            proxy.cut_after(random.randrange(6 * MIB))
            checkpoints = random.randrange(1, 12)
            killed_after(checkpoints, location, destination, environment=near)
        there = held(destination)
        with CuttingProxy(bucket.server.endpoint) as proxy:
            near = replace(bucket.server, endpoint=proxy.endpoint).environment()
            document, said = segmented(location, destination, environment=near)
            passed = proxy.passed
        (step,) = document["result"]["steps"]
        assert (step["status"], step["resumed_from"]) == ("resumed", there)
        assert there >= checkpoints * SEGMENT_BYTES
        assert passed < step["bytes"] + MIB
        assert said == ""
        assert_same(source / "snaps" / "one", destination / "one")
        assert os.listdir(destination) == ["one"]
        btrfs("subvolume", "delete", destination / "one")
    bucket.remove()


def test_from_a_bucket_with_another_stream(
    source: Path, destination: Path, s3_servers: StartedServer
) -> None:
    """The checksum of the whole shows at the end that the beginning was another one."""
    bucket, location = stored(source, s3_servers, 6 * MIB)
    environment = bucket.server.environment()
    killed_after(4, location, destination, environment=environment)
    path = journal(destination)
    path.write_text(json.dumps({**json.loads(path.read_text()), "crc32c": 1}))
    document, said = segmented(location, destination, environment=environment)
    (step,) = document["result"]["steps"]
    assert (step["status"], step["bytes"]) == ("done", document["plan"]["send_bytes"])
    assert said.count("one is sent from its beginning: the source now sends another stream") == 1
    assert_same(source / "snaps" / "one", destination / "one")
    assert os.listdir(destination) == ["one"]
    bucket.remove()


def test_from_a_bucket_whose_diff_was_damaged_then(
    source: Path, destination: Path, s3_servers: StartedServer
) -> None:
    """What comes after the checkpoint does not fit it, which is no reason to fail."""
    bucket, location = stored(source, s3_servers, 6 * MIB)
    environment = bucket.server.environment()
    (key,) = (key for key in bucket.keys("host/") if not key.endswith(".json"))
    target = {"Bucket": bucket.name, "Key": key}
    with closing(bucket.server.client()) as client:
        sound = client.get_object(**target)["Body"].read()
        version, commands = streams.decode(sound)
        commands.insert(1, streams.chmod(b"", 0o755))  # one too many
        client.put_object(**target, Body=streams.encode(commands, version))
        killed_after(4, location, destination, environment=environment)
        client.put_object(**target, Body=sound)
    document, said = segmented(location, destination, environment=environment)
    (step,) = document["result"]["steps"]
    assert (step["status"], step["bytes"]) == ("done", document["plan"]["send_bytes"])
    assert said.count("one is sent from its beginning: what comes after what is held") == 1
    assert_same(source / "snaps" / "one", destination / "one")
    assert os.listdir(destination) == ["one"]
    bucket.remove()


def test_what_only_passes_goes_on_too(
    source: Path, destination: Path, s3_servers: StartedServer
) -> None:
    live = create_subvolume(source / "live")
    (source / "snaps").mkdir()
    for name in ("one", "two"):
        (live / name).write_bytes(os.urandom(9 * MIB))
        snapshot(live, source / "snaps" / name)
    bucket = s3_servers("moto").bucket(f"resume-{os.urandom(8).hex()}")
    environment = bucket.server.environment()
    buttersink(f"{source}/snaps/", f"s3://{bucket.name}/host/", environment=environment)
    single = f"s3://{bucket.name}/host/two"
    killed_after(4, single, destination, environment=environment)
    there = held(destination)
    document, _said = segmented(single, destination, environment=environment)
    first, second = document["result"]["steps"]
    assert (first["passing"], first["resumed_from"]) == (True, there)
    assert (second["passing"], second["status"]) == (False, "done")
    assert os.listdir(destination) == ["two"]
    assert_same(source / "snaps" / "two", destination / "two")
    bucket.remove()
