"""
The ssh store: a directory on another host, served by the ButterSink there.

Every method is a request over the one connection that the store has, and does there what it would
do here; so a run has one ssh process for each ssh location. The far side is not trusted: its
catalogue is read as strictly as a stranger's, and what it says is shown as text.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink.catalogue import Catalogue
from buttersink.errors import ConflictError, ProtocolError
from buttersink.remote import values
from buttersink.remote.hello import Wish
from buttersink.remote.invocation import Invocation
from buttersink.remote.protocol import Kind, parse_json
from buttersink.remote.values import Fields
from buttersink.stores.base import Mode, Remote, Role, Sink, Store, Traits
from buttersink.stores.ssh.link import Answer, Link, Upload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from buttersink.catalogue import Diff, Measurement, Partial, Snapshot, Uuid
    from buttersink.location import SshLocation
    from buttersink.planner.plan import Step
    from buttersink.remote.values import Json
    from buttersink.stores.base import Cache
    from buttersink.stream import Checkpoint

_MOST_ENTRIES = 2_000_000  # of a catalogue; what has more is none


class SshStore(Store):
    """Snapshots below one directory of another host, or a single one of them."""

    def __init__(
        self,
        location: SshLocation,
        mode: Mode,
        role: Role,
        cache: Cache | None = None,
        remote: Remote | None = None,
    ) -> None:
        super().__init__(str(location), mode)
        directory, single = location.path, None
        if role is Role.SOURCE and not location.all_below:
            directory, single = location.split()
        wish = Wish(
            mode=mode,
            role=role,
            single=single,
            all_below=location.all_below,
            remember=cache is not None and cache.writable,
        )
        self._link = Link(location, Invocation(mode, directory), wish, remote or Remote())
        self.traits = Traits(
            measures=True, clones=True, sends=self._link.sends, receives=self._link.receives
        )

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def _items(self, request: str, **fields: object) -> Iterator[Json]:
        """Yield what a request brings, one after the other; leaving early stops it."""
        self._link.request(request, **fields)
        answer = Answer(self._link, Kind.ITEM)
        try:
            for payload in answer:
                yield parse_json(payload)
        finally:
            answer.leave()

    def _ask(self, request: str, **fields: object) -> Fields:
        """Have the far side do something, and return what it says of it."""
        self._link.request(request, **fields)
        return self._link.answer()

    def catalogue(self) -> Catalogue:
        """Have the far side read everything."""
        snapshots: list[Snapshot] = []
        outside: list[Snapshot] = []
        partials: list[Partial] = []
        lineage: dict[Uuid, Uuid] = {}
        altered: list[bytes] = []
        for fields in map(Fields, self._items("catalogue")):
            snapshots += map(values.snapshot_from, fields.items("snapshots"))
            outside += map(values.snapshot_from, fields.items("outside"))
            partials += map(values.partial_from, fields.items("partials"))
            lineage.update(map(values.lineage_from, fields.items("lineage")))
            altered += fields.paths("altered")
            lists = (snapshots, outside, partials, lineage, altered)
            if any(len(each) > _MOST_ENTRIES for each in lists):
                why = "it lists more than a file system can have"
                raise ProtocolError("damaged message", where=self.location, why=why)
        return Catalogue(
            snapshots=tuple(snapshots),
            outside=tuple(outside),
            lineage=lineage,
            partials=tuple(partials),
            altered=tuple(altered),
        )

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """Have the far side measure, and yield each size as it comes."""
        for batch in values.batches(values.diff_json(diff, limits.get(diff)) for diff in diffs):
            yield from map(
                values.measurement_from,
                self._items("measure", diffs=batch, version=self.stream_version),
            )

    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """Have the far side guess."""
        for batch in values.batches(map(values.diff_json, diffs)):
            for fields in map(
                Fields, self._items("estimate", diffs=batch, version=self.stream_version)
            ):
                yield values.diff_from(fields.raw("diff")), fields.number("bytes")

    @contextmanager
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> Iterator[Iterator[memoryview]]:
        """Have the far side send a diff, or what is missing of it."""
        there = values.checkpoint_json(checkpoint)
        version = checkpoint.version if checkpoint else self.stream_version
        self._link.request("send", diff=values.diff_json(diff), checkpoint=there, version=version)
        answer = Answer(self._link, Kind.DATA)
        try:
            yield iter(answer)
        finally:
            answer.leave()

    def resumable(self, step: Step) -> Checkpoint | None:
        """Ask what an earlier run has left there."""
        answer = self._ask("resumable", step=self._delivery(step))
        return values.checkpoint_from(answer, "checkpoint")

    def _delivery(self, step: Step) -> Json:
        self.require(Mode.APPEND)
        _require_clean(step.path)
        return values.delivery_json(step)

    @contextmanager
    def receive(self, step: Step, checkpoint: Checkpoint | None = None) -> Iterator[Sink]:
        """Have the far side take in a diff; return when it is durable there."""
        there = values.checkpoint_json(checkpoint)
        self._link.request("receive", step=self._delivery(step), checkpoint=there)
        upload = Upload(self._link)
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.cancel()
            raise

    def release(self, step: Step) -> None:
        """Have what passed deleted."""
        self._ask("release", step=self._delivery(step))

    def copy(self, step: Step) -> None:
        """Have a snapshot copied that lies elsewhere on that file system."""
        self.require(Mode.APPEND)
        _require_clean(step.path)
        self._ask(
            "copy",
            snapshot=values.named_json(step.snapshot),
            path=values.path_text(step.path),
            replaces=values.named_json(step.replaces),
        )

    def delete(self, step: Step) -> None:
        """Have a snapshot deleted."""
        self.require(Mode.WRITE)
        self._ask("delete", snapshot=values.named_json(step.snapshot))

    def discard(self, partial: Partial) -> None:
        """Have a partial deleted."""
        self.require(Mode.WRITE)
        self._ask("discard", partial=values.named_json(partial))

    def flush(self) -> None:
        """Have that file system synced."""
        self._ask("flush")


def _require_clean(path: bytes) -> None:
    """Refuse what the far side would take for an attack."""
    try:
        values.clean_path(path)
    except ProtocolError as error:
        raise ConflictError("cannot make", where=path, why=error.why) from error
