"""The plan as values: a step for every snapshot that matters, in an order to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff

if TYPE_CHECKING:
    from buttersink.catalogue import Partial, Size, Snapshot
    from buttersink.errors import PlanError


class Action(StrEnum):
    """What a step does at the destination."""

    SEND = "send"  # a diff moves
    KEEP = "keep"  # it is there already
    COPY = "copy"  # it is elsewhere on the destination's file system: snapshotted in place
    DELETE = "delete"  # the source does not have it
    DISCARD = "discard"  # a partial transfer


@dataclass(frozen=True, slots=True)
class Reason:
    """
    Why a step is there: for a diff the best that could have been taken in its place.

    Attributes:
        note: What is to be said beside that.
        parent: What that diff starts from; None for a full send.
        size: Its length; None if there is no other way.
        chain: Diffs that a restore would then read; 0 where snapshots are whole.
        unshared: Of a diff that has clone sources its length without them.

    """

    note: str = ""
    parent: Snapshot | None = None
    size: Size | None = None
    chain: int = 0
    unshared: Size | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """
    What becomes of one snapshot, diff or partial at the destination.

    Attributes:
        action: What is done.
        snapshot: The source's snapshot to send; for keep, copy and delete the destination's. None
            for discard.
        path: At the destination, relative to its location.
        parent: Send: the source's snapshot the diff starts from; None is a full send.
        size: Send, and delete of a diff: its length in bytes.
        depth: Send: how many diffs of this plan have to arrive before this snapshot is whole; where
            diffs stay diffs, how many there are in its chain.
        restore: Send, where diffs stay diffs: bytes in its chain.
        clones: Send: further snapshots of the source that the diff takes data from.
        replaces: Send and copy: the destination's snapshot that now lies at `path`, and that
            `--delete` lets go as soon as the new one is durable.
        diff: Delete, where diffs stay diffs: the one that goes. None lets the snapshot go.
        partial: Discard: what is discarded.
        passing: Send: nobody wants this snapshot, but others start from it. It never gets a name,
            and goes when those are there. `path` is then its path at the source.
        problem: Send and copy: why it cannot be carried out; empty if it can.
        reason: Why this and not another.

    """

    action: Action
    path: bytes
    snapshot: Snapshot | None = None
    parent: Snapshot | None = None
    size: Size | None = None
    depth: int = 0
    restore: int = 0
    clones: tuple[Snapshot, ...] = ()
    replaces: Snapshot | None = None
    diff: Diff | None = None
    partial: Partial | None = None
    passing: bool = False
    problem: str = ""
    reason: Reason | None = None

    @property
    def made(self) -> Snapshot:
        """The snapshot; `ValueError` for a step that is about none."""
        if self.snapshot is None:
            raise ValueError(self)
        return self.snapshot

    @property
    def sent(self) -> Diff:
        """Send: the diff; `ValueError` for another step."""
        parent = self.parent.uuid if self.parent else None
        return Diff(self.made.uuid, parent, tuple(clone.uuid for clone in self.clones))


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Every step in order: each parent before what is made from it, deletions last.

    Attributes:
        steps: The steps.
        lower_bound: Bytes that any plan over the same candidates has to send, or those of this
            plan where clone sources make them fewer still. So with `cost_bound`.
        cost: What the plan makes least, in bytes sent: where snapshots arrive whole, `send_bytes`;
            where diffs stay diffs, keeping and chaining them, too.
        cost_bound: What no plan over the same diffs can be below.
        requests: That it takes to send, where requests are paid for; else 0.
        faults: What was wrong with the diffs that there were to choose from.

    """

    steps: tuple[Step, ...]
    lower_bound: int = 0
    cost: int = 0
    cost_bound: int = 0
    requests: int = 0
    faults: tuple[PlanError, ...] = ()

    def of(self, action: Action) -> tuple[Step, ...]:
        """Return the steps with this action, in order."""
        return tuple(step for step in self.steps if step.action is action)

    @property
    def send_bytes(self) -> int:
        """Bytes that the plan's diffs have together."""
        return sum(step.size.bytes for step in self.of(Action.SEND) if step.size)

    @property
    def guesses(self) -> tuple[Diff, ...]:
        """The diffs to send whose size is only bounded or estimated, in order."""
        return tuple(
            Diff(step.snapshot.uuid, step.parent.uuid if step.parent else None)
            for step in self.of(Action.SEND)
            if step.snapshot and step.size and not step.size.exact
        )
