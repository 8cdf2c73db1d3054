"""The plan as values: a step for every snapshot that matters, in an order to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buttersink.catalogue import Partial, Size, Snapshot


class Action(StrEnum):
    """What a step does at the destination."""

    SEND = "send"  # a diff moves
    KEEP = "keep"  # it is there already
    COPY = "copy"  # it is elsewhere on the destination's file system: snapshotted in place
    DELETE = "delete"  # the source does not have it
    DISCARD = "discard"  # a partial transfer


@dataclass(frozen=True, slots=True)
class Step:
    """
    What becomes of one snapshot or partial at the destination.

    Attributes:
        action: What is done.
        snapshot: The source's snapshot to send; for keep, copy and delete the destination's. None
            for discard.
        path: At the destination, relative to its location.
        parent: Send: the source's snapshot the diff starts from; None is a full send.
        size: Send: length of the diff in bytes.
        depth: Send: how many diffs of this plan have to arrive before this snapshot is whole.
        replaces: Send and copy: the destination's snapshot that now lies at `path`, and that
            `--delete` lets go as soon as the new one is durable.
        partial: Discard: what is discarded.
        problem: Send and copy: why it cannot be carried out; empty if it can.
        reason: Why this and not another, for a person.

    """

    action: Action
    path: bytes
    snapshot: Snapshot | None = None
    parent: Snapshot | None = None
    size: Size | None = None
    depth: int = 0
    replaces: Snapshot | None = None
    partial: Partial | None = None
    problem: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Every step in order: each parent before what is made from it, deletions last.

    Attributes:
        steps: The steps.
        lower_bound: Bytes that any plan over the same candidates has to send.

    """

    steps: tuple[Step, ...]
    lower_bound: int = 0

    def of(self, action: Action) -> tuple[Step, ...]:
        """Return the steps with this action, in order."""
        return tuple(step for step in self.steps if step.action is action)

    @property
    def send_bytes(self) -> int:
        """Bytes that the plan's diffs have together."""
        return sum(step.size.bytes for step in self.of(Action.SEND) if step.size)
