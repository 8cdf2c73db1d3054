"""
What happens while a run goes on, told to a `Reporter` whose methods do nothing.

The console draws it; tests record it; a library user may ignore it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buttersink.catalogue import Uuid


@dataclass(frozen=True, slots=True)
class Transfer:
    """
    One diff on its way.

    Attributes:
        uuid: Effective UUID of the snapshot it makes.
        path: Where the snapshot will be, relative to the destination.
        size: Bytes the plan expects, None where nothing is known.
        number: Its place among the run's transfers, from 1.
        count: How many transfers the run has.

    """

    uuid: Uuid
    path: bytes
    size: int | None
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Verification:
    """
    How far a verification has come; bytes are 0 where it reads none.

    Attributes:
        diffs: How many are done.
        all_diffs: Of how many.
        bytes: How many are read.
        all_bytes: Of how many.

    """

    diffs: int
    all_diffs: int
    bytes: int
    all_bytes: int


class Reporter:
    """Is told of each event in order, from the thread that runs the work; override what matters."""

    def starting(self, transfers: int, total_bytes: int) -> None:
        """Tell that `transfers` diffs of together `total_bytes` are about to be sent."""

    def measuring(self, done: int, total: int) -> None:
        """Tell that `done` of `total` sizes are known."""

    def measured(self, asked: int, candidates: int, remembered: int) -> None:
        """Tell of how many diffs worth measuring that many were, or were known before: enough."""

    def chosen(self, planned_bytes: int, plain_bytes: int) -> None:
        """Tell what the plan sends, and what sending each from the one before it would."""

    def transfer_started(self, transfer: Transfer) -> None:
        """Tell that the bytes of one diff are about to flow."""

    def transfer_advanced(self, transfer: Transfer, sent: int) -> None:
        """Tell that `sent` bytes of this diff, counted from its start, have been handed over."""

    def transfer_ended(self, transfer: Transfer, error: Exception | None) -> None:
        """Tell that the snapshot is durable under its name, or why it is not."""

    def verifying(self, progress: Verification) -> None:
        """Tell how far the verification of stored diffs has come."""

    def failed(self, error: Exception) -> None:
        """Tell that something other than a transfer failed, and the run goes on."""

    def removed(self, path: bytes) -> None:
        """Tell that a snapshot or a partial was removed."""

    def note(self, message: str) -> None:
        """Tell something a user should know but need not act on."""

    def finished(self) -> None:
        """Tell that nothing more will come, whether the run succeeded or not."""
