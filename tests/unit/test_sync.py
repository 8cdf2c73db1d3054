"""How far a transfer had come when it failed, as its error says."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest

from buttersink.catalogue import Exactness, Size, Snapshot, Uuid
from buttersink.errors import (
    ConflictError,
    ConnectionLostError,
    Error,
    NoSpaceError,
    ProtocolError,
    ReceiveError,
    SendError,
)
from buttersink.planner.plan import Action, Plan, Step
from buttersink.progress import Reporter
from buttersink.stream import Checkpoint
from buttersink.stream.segments import Stretch
from buttersink.sync import carry_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buttersink.stores.base import Store

MIB = 1024 * 1024
LOST = "the connection is lost"
MADE = Snapshot(
    uuid=Uuid(bytes(16)),
    own_uuid=Uuid(bytes(16)),
    parent_uuid=None,
    received_uuid=None,
    generation=1,
    created=0,
    path=b"monday",
    subvolume_id=256,
)


class Line:
    """A source and a destination; after so many MiB one of them fails."""

    resumed = 0

    def __init__(self, error: Error, *, after: int, of: int = 10, held: int = 0) -> None:
        self._error, self._after, self._of, self._held = error, after, of, held

    def resumable(self, _step: Step) -> Checkpoint | None:
        stretches = (Stretch(self._held * MIB, bytes(32)),)
        return Checkpoint(1, stretches, None) if self._held else None

    @contextmanager
    def send(self, _diff: object, _checkpoint: object) -> Iterator[Iterator[memoryview]]:
        yield self._chunks()

    def _chunks(self) -> Iterator[memoryview]:
        for number in range(self._held, self._of):
            if number == self._after:
                raise self._error
            yield memoryview(bytes(MIB))

    @contextmanager
    def receive(self, _step: object, _checkpoint: object) -> Iterator[Line]:
        yield self
        raise self._error

    def write(self, chunk: memoryview) -> None: ...
    def flush(self) -> None: ...


def said(line: Line, size: Size | None) -> str:
    store = cast("Store", line)
    plan = Plan((Step(Action.SEND, b"monday", MADE, size=size),))
    (step,) = carry_out(plan, store, store, Reporter()).steps
    return str(step.error)


TEN = Size(10 * MIB, Exactness.MEASURED)


@pytest.mark.parametrize(
    ("line", "size", "text"),
    [
        (Line(ConnectionLostError(LOST), after=7), TEN, f"{LOST} at 70 % (7.0 MiB of 10.0 MiB)"),
        (
            Line(ConnectionLostError(LOST, where="ssh://h/d", why="reset", hint="Again."), after=4),
            Size(9 * MIB, Exactness.STORED),
            f"{LOST} at 44 % (4.0 MiB of 9.0 MiB): ssh://h/d: reset. Again.",
        ),
        (Line(ConnectionLostError(LOST), after=7), None, f"{LOST} after 7.0 MiB"),
        (
            Line(ConnectionLostError(LOST), after=7),
            Size(10 * MIB, Exactness.ESTIMATED),
            f"{LOST} after 7.0 MiB",
        ),
        (Line(ConnectionLostError(LOST), after=0), TEN, LOST),
        (Line(ConnectionLostError(LOST), after=99), TEN, f"{LOST} after all 10.0 MiB"),
        (
            Line(ConnectionLostError(LOST), after=5, held=5),
            TEN,
            f"{LOST} at 50 % (5.0 MiB of 10.0 MiB)",
        ),
        (
            Line(ProtocolError("damaged message"), after=1),
            TEN,
            "damaged message at 10 % (1.0 MiB of 10.0 MiB)",
        ),
        (
            Line(SendError("cannot read"), after=4),
            TEN,
            "cannot read at 40 % (4.0 MiB of 10.0 MiB)",
        ),
        (
            Line(ReceiveError("cannot send part 2"), after=1),
            None,
            "cannot send part 2 after 1.0 MiB",
        ),
        (Line(NoSpaceError("the destination is full"), after=4), TEN, "the destination is full"),
        (Line(ConflictError("cannot make"), after=4), TEN, "cannot make"),
    ],
)
def test_it_says_how_far_it_had_come(line: Line, size: Size | None, text: str) -> None:
    assert said(line, size) == text
