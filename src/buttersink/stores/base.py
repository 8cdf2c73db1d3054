"""
The one interface the engine sees: a place that holds snapshots. Its docstrings are the contract.

A store does I/O and decides nothing: which diffs to make, in which order, and what to delete comes
from the plan. It refuses by itself what its mode does not allow. What a store can do is asked of
its traits, never of its type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, Self

from buttersink.catalogue import uuid_text
from buttersink.errors import UsageError
from buttersink.planner.costs import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from buttersink.catalogue import Catalogue, Diff, Measurement, Partial
    from buttersink.planner.plan import Step
    from buttersink.stream import Checkpoint


STREAM_VERSION = 2
"""Of a send stream: the last version that this program knows."""


class Mode(StrEnum):
    """What a store may do, each including the one before."""

    READ = "r"
    APPEND = "a"  # take new snapshots
    WRITE = "w"  # delete them, too


class Role(StrEnum):
    """What the command line uses a location as."""

    SOURCE = "source"
    DESTINATION = "destination"
    LISTING = "listing"


@dataclass(frozen=True, slots=True)
class Traits:
    """
    What a store can do.

    Attributes:
        measures: `measure` gives exact sizes and `estimate` rough ones. If not, it has those diffs
            alone that its catalogue names.
        clones: A diff to or from it may take data from every snapshot that both sides have.
        sends: The highest version of a send stream that it makes.
        receives: The highest version that it takes.
        weights: What to make least when diffs are sent here, and whether they stay diffs.
        verifies: It holds diffs that may have suffered: `check` compares one with what was
            recorded, and `send` proves it. Both may be called from several threads at a time.

    """

    measures: bool
    clones: bool = False
    sends: int = 1
    receives: int = 1
    weights: Weights = field(default_factory=Weights)
    verifies: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    What came out of comparing a stored diff with what was recorded when it was sent.

    Attributes:
        wrong: What differs, for a person; empty if nothing does.
        note: What could not be compared, such as that nothing was recorded; else empty. Diffs with
            the same note are told of together.

    """

    wrong: str = ""
    note: str = ""


def _tell_nobody(_message: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Cache:
    """
    Where a store may keep what it need not find out again; whatever is wrong there ends no run.

    Attributes:
        directory: Absolute path. It is made when something is to be written.
        writable: Whether something may be; reading changes nothing.
        tell: Is told what cannot be used, and why.

    """

    directory: bytes
    writable: bool
    tell: Callable[[str], None] = _tell_nobody


@dataclass(frozen=True, slots=True)
class Uploads:
    """
    How diffs are sent to where they stay diffs.

    Attributes:
        part_bytes: Bytes of the parts that they are cut into.
        storage_class: What the place shall keep them in; empty for what is usual there.
        tell: Is told what the place cannot do.

    """

    part_bytes: int = 16 * 1024 * 1024
    storage_class: str = ""
    tell: Callable[[str], None] = _tell_nobody


@dataclass(frozen=True, slots=True)
class Remote:
    """
    How another host is reached.

    Attributes:
        command: Words that start ButterSink there; none for the usual.
        tell: Is told what is there, and what ssh says.

    """

    command: tuple[str, ...] = ()
    tell: Callable[[str], None] = _tell_nobody


class Sink(Protocol):
    """
    Where the bytes of one diff go.

    Attributes:
        resumed: How many of those written were there already, from an earlier run.

    """

    resumed: int

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes; the view is not kept. `ReceiveError` if they cannot be taken."""


class Store(ABC):
    """
    A place that holds snapshots; a context manager that lets go of what it holds open.

    Every method raises only `buttersink.errors.Error` for what can go wrong outside of the program.

    Attributes:
        location: How the user named it.
        mode: What it may do.
        traits: What it can do.
        stream_version: Of the streams that it measures and sends, if they are not stored: at most
            what it and who takes them can. Of version 2, they have what is compressed on disk as it
            is.

    """

    traits: Traits
    stream_version = 1

    def __init__(self, location: str, mode: Mode) -> None:
        self.location = location
        self.mode = mode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def require(self, mode: Mode) -> None:
        """Refuse with `UsageError` unless the store was opened with at least this mode."""
        order = tuple(Mode)
        if order.index(self.mode) < order.index(mode):
            raise UsageError("not allowed", where=self.location, why=f"opened in mode {self.mode}")

    @abstractmethod
    def close(self) -> None:
        """Let go of descriptors, mounts and locks. May be called again."""

    @abstractmethod
    def catalogue(self) -> Catalogue:
        """Read everything once; later methods speak of what the last reading found."""

    @abstractmethod
    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """
        Yield the exact length of each diff's stream as soon as it is known.

        Of one that is longer than its limit in bytes, if it has one, it is enough to know that.
        One that cannot be measured has a problem, and ends nothing. The order is the store's. Sends
        no data and changes nothing but what the store's cache holds.
        """

    @abstractmethod
    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """Yield a rough length of those diffs that can be guessed quickly; leave out the others."""

    @abstractmethod
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> AbstractContextManager[Iterator[memoryview]]:
        """
        Open a diff: an iterator over its bytes, each view valid until the next is asked for.

        With a checkpoint, over those after it, in its version. `ResumeError`, at the end of the
        bytes at the latest, if they do not belong to a stream that begins with what it holds.

        The stream names snapshots by effective UUID. The iterator raises `SendError` if the stream
        cannot be brought to its end; in a store that verifies also at the end, if the bytes are
        not those whose digest was recorded. Leaving early is no error.
        """

    def check(self, diff: Diff) -> Comparison:
        """
        Compare what the place that keeps a diff says of it with what was recorded.

        Size and checksums, without reading the diff. `SendError` if nothing can be learned of it,
        `UsageError` from a store that does not verify.
        """
        raise UsageError(
            "not verified", where=self.location, why=f"{uuid_text(diff.to)} is no diff here"
        )

    def resumable(self, step: Step) -> Checkpoint | None:  # noqa: ARG002  for stores that can
        """
        Return how much of the diff of a step an earlier run has left here, None if nothing.

        `ResumeError` if something is there that cannot be gone on with. It is then for `receive`
        without a checkpoint to clear it away, or with this one to go on from there.
        """
        return None

    @abstractmethod
    def receive(
        self, step: Step, checkpoint: Checkpoint | None = None
    ) -> AbstractContextManager[Sink]:
        """
        Take in the diff of a step; with a checkpoint, which `resumable` gave, the rest of it.

        On a clean exit the snapshot is durable and lies under `step.path`, and not before; what
        `step.replaces` names is gone. On any exception nothing lies there, and at most a partial is
        left, perhaps with a checkpoint. `ConflictError` if the path is taken, `NoSpaceError` or
        another `ReceiveError` if the bytes cannot be taken; no error if only the sender failed.
        `ResumeError` if those after the checkpoint cannot: it is gone then, and may be at fault.

        With `step.passing`, which a store of diffs never sees, the snapshot never has a name, here
        or for another tool: on a clean exit later diffs can start from it until it is released, and
        what a crash leaves of it is a partial.
        """

    def release(self, step: Step) -> None:  # noqa: B027  a store of diffs lets nothing pass
        """Delete what a passing step brought, or left; no error if there is nothing."""

    @abstractmethod
    def copy(self, step: Step) -> None:
        """Make `step.snapshot`, which lies outside the location, appear at `step.path`."""

    @abstractmethod
    def delete(self, step: Step) -> None:
        """
        Delete the snapshot that a step names or, where diffs stay diffs, the diff.

        It lies inside the location. `DeleteError` if it is not what it was.
        """

    @abstractmethod
    def discard(self, partial: Partial) -> None:
        """Delete what an interrupted transfer left."""

    @abstractmethod
    def flush(self) -> None:
        """Return once every change made through this store would survive a power cut."""
