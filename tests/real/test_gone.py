"""A snapshot that is deleted between the kernel's stream of it and a look at it is told of."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from buttersink import Mode, Role, open_store, parse_location
from buttersink.catalogue import Diff
from buttersink.errors import SendError
from buttersink.stores.btrfs import store as module
from buttersink.stores.btrfs.sending import sending
from tests.support.loopfs import MIB, CommandError, btrfs, create_subvolume, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from buttersink.stores.base import Store

pytestmark = pytest.mark.root


@pytest.fixture
def store(source: Path) -> Iterator[Store]:
    """A store of two snapshots: data that compress; then files are longer, and another's."""
    live = create_subvolume(source / "live")
    btrfs("property", "set", live, "compression", "zstd")
    (source / "snaps").mkdir()
    for number, name in enumerate(("one", "two")):
        (live / "text").write_bytes(b"text " * (1 + number) * (MIB // 5))
        (live / "short").write_bytes(b"short " * (1 + number) * 1000)
        (live / "program").write_bytes(b"program")
        os.chown(live / "program", number, number)
        (live / "program").chmod(0o4755)
        snapshot(live, source / "snaps" / name)
    place = parse_location(f"{source}/snaps/".encode())
    with open_store(place, Mode.READ, Role.SOURCE) as opened:
        yield opened


@pytest.fixture
def diff(store: Store) -> Diff:
    one, two = store.catalogue().snapshots
    return Diff(two.uuid, one.uuid)


@pytest.fixture(autouse=True)
def gone(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete a snapshot as soon as the kernel has sent it."""

    @contextmanager
    def and_delete(*arguments: Any, **options: Any) -> Iterator[Iterator[memoryview]]:  # noqa: ANN401
        with sending(*arguments, **options) as chunks:
            sent = [memoryview(bytes(chunk)) for chunk in chunks]
        delete(source / "snaps" / "two")
        yield iter(sent)

    monkeypatch.setattr(module, "sending", and_delete)


def delete(path: Path) -> None:
    """Delete a snapshot, which cannot be while it is being sent."""
    for _ in range(200):
        try:
            btrfs("subvolume", "delete", path)
        except CommandError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("it is still being sent")


@pytest.mark.parametrize("version", [1, 2])
def test_by_a_measurement(store: Store, diff: Diff, version: int) -> None:
    store.stream_version = version
    (found,) = store.measure([diff])
    assert "cannot look at the snapshot: two: No such file" in found.problem


def test_by_a_send(store: Store, diff: Diff) -> None:
    with (
        pytest.raises(SendError, match="cannot look at the snapshot: two: No such file"),
        store.send(diff) as chunks,
    ):
        for _chunk in chunks:
            pass
