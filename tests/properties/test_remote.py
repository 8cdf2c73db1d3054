"""Any value survives the way to the other side; any bytes at all end in a value or one error."""

from __future__ import annotations

import contextlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink import errors
from buttersink.catalogue import (
    Diff,
    Exactness,
    Measurement,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_text,
)
from buttersink.errors import Error, ProtocolError
from buttersink.planner.plan import Action, Step
from buttersink.remote import values
from buttersink.remote.hello import Hello, Wish
from buttersink.remote.holdings import Holdings
from buttersink.remote.protocol import (
    HEADER,
    MAGIC,
    MAX_PAYLOAD,
    Decoder,
    Kind,
    Versions,
    encode,
    json_bytes,
    parse_json,
)
from buttersink.remote.values import Fields
from buttersink.stores.base import Mode, Role
from buttersink.stream import Checkpoint
from buttersink.stream.segments import Stretch

if TYPE_CHECKING:
    from collections.abc import Callable

numbers = st.integers(0, 2**63 - 1)
uuids = st.binary(min_size=16, max_size=16).map(Uuid)
names = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.translate(None, b"/\0"))
    .filter(lambda name: name not in (b"", b".", b".."))
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
sizes = st.builds(Size, numbers, st.sampled_from(Exactness))
snapshots = st.builds(
    Snapshot,
    uuid=uuids,
    own_uuid=uuids,
    parent_uuid=st.none() | uuids,
    received_uuid=st.none() | uuids,
    generation=numbers,
    created=numbers,
    path=paths,
    subvolume_id=numbers,
    size=st.none() | sizes,
    exclusive=st.none() | numbers,
)
partials = st.builds(Partial, paths, uuids, numbers, numbers, st.none() | numbers)
diffs = st.builds(Diff, uuids, st.none() | uuids, st.lists(uuids, max_size=3).map(tuple))
problems = st.text(st.characters(categories=["L", "N", "P"]), max_size=20)
measurements = st.builds(
    Measurement,
    diffs,
    numbers,
    numbers,
    st.lists(uuids, max_size=3).map(tuple),
    remembered=st.booleans(),
    finished=st.booleans(),
    problem=problems,
    extents=numbers,
    own_clones=numbers,
)
stretches = st.builds(Stretch, st.integers(1, 2**40), st.binary(min_size=32, max_size=32))
checkpoints = st.builds(
    Checkpoint,
    st.integers(1, 3),
    st.lists(stretches, min_size=1, max_size=4).map(tuple),
    st.none() | st.integers(0, 2**32 - 1),
)
kinds = st.sampled_from(Kind)
steps = st.builds(
    Step,
    st.just(Action.SEND),
    paths,
    snapshot=snapshots,
    parent=st.none() | snapshots,
    size=st.none() | sizes,
    clones=st.lists(snapshots, max_size=2).map(tuple),
    replaces=st.none() | snapshots,
    passing=st.booleans(),
)
wishes = st.builds(
    Wish,
    st.sampled_from(Mode),
    st.sampled_from(Role),
    st.none() | names,
    st.booleans(),
    st.booleans(),
)
greetings = st.builds(
    Hello,
    st.integers(1, 9).flatmap(lambda n: st.integers(n, 20).map(lambda m: Versions(n, m))),
    problems,
    problems,
    problems,
    st.sampled_from(Mode),
    st.binary(min_size=1, max_size=9),
    st.none() | wishes,
)


def travelled(document: Any) -> Any:  # noqa: ANN401  JSON
    """Return what arrives of a document."""
    return parse_json(memoryview(json_bytes({"value": document})))["value"]


class TestTravel:
    @given(snapshots)
    def test_of_a_snapshot(self, snapshot: Snapshot) -> None:
        assert values.snapshot_from(travelled(values.snapshot_json(snapshot))) == snapshot

    @given(partials)
    def test_of_a_partial(self, partial: Partial) -> None:
        assert values.partial_from(travelled(values.partial_json(partial))) == partial

    @given(diffs, st.none() | numbers)
    def test_of_a_diff(self, diff: Diff, limit: int | None) -> None:
        document = travelled(values.diff_json(diff, limit))
        assert values.diff_from(document) == diff
        assert Fields(document).number_or_none("limit") == limit

    @given(measurements)
    def test_of_a_measurement(self, measurement: Measurement) -> None:
        document = travelled(values.measurement_json(measurement))
        assert values.measurement_from(document) == measurement

    @given(st.none() | checkpoints)
    def test_of_a_checkpoint(self, checkpoint: Checkpoint | None) -> None:
        document = {"checkpoint": travelled(values.checkpoint_json(checkpoint))}
        assert values.checkpoint_from(Fields(document), "checkpoint") == checkpoint

    @given(uuids, uuids)
    def test_of_a_descent(self, own: Uuid, parent: Uuid) -> None:
        assert values.lineage_from(travelled(values.lineage_json((own, parent)))) == (own, parent)

    @given(steps)
    def test_of_a_step(self, step: Step) -> None:
        delivery = values.delivery_from(travelled(values.delivery_json(step)))
        assert (delivery.snapshot, delivery.path) == (step.snapshot, step.path)
        assert (delivery.size, delivery.passing) == (step.size, step.passing)
        assert delivery.clones == tuple(clone.uuid for clone in step.clones)
        assert delivery.parent == (step.parent.uuid if step.parent else None)
        replaces = step.replaces
        assert delivery.replaces == ((replaces.uuid, replaces.path) if replaces else None)

    @given(greetings)
    def test_of_a_greeting(self, hello: Hello) -> None:
        assert Hello.parse(travelled(hello.to_json())) == hello

    @given(
        st.sampled_from([each for each in vars(errors).values() if isinstance(each, type)]).filter(
            lambda each: issubclass(each, Error) and each is not Error
        ),
        problems.filter(bool),
        problems,
        st.none() | paths,
    )
    def test_of_an_error(self, kind: type[Error], what: str, why: str, where: bytes | None) -> None:
        error = kind(what, where=where, why=why, hint="Do it.")
        found = values.error_from(travelled(values.error_json(error)), "ssh://h")
        assert type(found) is kind
        assert str(found) == str(error)
        assert found.exit_code == error.exit_code


@given(st.lists(st.text(max_size=3000), max_size=400))
def test_a_list_travels_in_messages_that_are_not_too_long(texts: list[str]) -> None:
    entries = [{"path": text * 100} for text in texts]
    found = list(values.batches(entries))
    assert [entry for batch in found for entry in batch] == entries
    assert all(batch for batch in found)
    for batch in found:
        if len(batch) > 1:
            encode(Kind.ITEM, json_bytes({"snapshots": batch}))


class TestPath:
    @given(st.binary(max_size=12))
    def test_is_taken_only_if_it_leads_down(self, path: bytes) -> None:
        inside = b"\0" not in path and all(n not in (b"", b".", b"..") for n in path.split(b"/"))
        if inside:
            assert values.clean_path(path) == path
        else:
            with pytest.raises(ProtocolError):
                values.clean_path(path)

    @pytest.mark.parametrize(
        "text", ["..", "a/../b", "/a", "a/", "a//b", "", ".", "./a", "a\0", "\ud800", "a/\udc20/.."]
    )
    def test_is_held_against_that_wherever_it_is(self, text: str) -> None:
        with pytest.raises(ProtocolError):
            Fields({"path": text}).path("path")


def error_from(document: Any) -> Error:  # noqa: ANN401
    return values.error_from(document, "ssh://h")


def checkpoint_from(document: object) -> Checkpoint | None:
    return values.checkpoint_from(Fields({"x": document}), "x")


def size_from(document: object) -> Size | None:
    return values.size_from(Fields({"x": document}), "x")


READERS: list[Callable[[Any], object]] = [
    values.snapshot_from,
    values.partial_from,
    values.diff_from,
    values.measurement_from,
    values.lineage_from,
    values.delivery_from,
    values.named_from,
    Hello.parse,
    error_from,
    checkpoint_from,
    size_from,
]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | uuids.map(uuid_text)
)
KEYS = """
uuid own parent received generation created path id size exclusive modified to from clones diff
bytes commands remembered finished problem version stretches crc32c snapshot passing replaces class
what where why hint versions program kernel btrfs mode directory wish role single all_below
remember is
"""
keys = st.sampled_from(KEYS.split())
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner), max_leaves=20
)


@pytest.mark.parametrize("reader", READERS)
@given(document=documents)
def test_any_document_is_read_or_refused(reader: Callable[[Any], object], document: object) -> None:
    with suppress(ProtocolError):
        reader(document)


@given(snapshots, st.data())
def test_a_snapshot_with_one_field_of_another_kind(snapshot: Snapshot, data: st.DataObject) -> None:
    document = values.snapshot_json(snapshot)
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(documents)
    try:
        found = values.snapshot_from(document)
    except ProtocolError:
        return
    assert values.snapshot_from(json.loads(json.dumps(values.snapshot_json(found)))) == found


class TestBytes:
    @given(st.lists(st.tuples(kinds, st.binary(max_size=200)), max_size=6), st.data())
    def test_frames_survive_any_split(
        self, sent: list[tuple[Kind, bytes]], data: st.DataObject
    ) -> None:
        raw = MAGIC + b"".join(encode(kind, payload) for kind, payload in sent)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
        decoder, found = Decoder(), []
        for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            found += [(f.kind, bytes(f.payload)) for f in decoder.feed(raw[start:end])]
        assert found == sent
        assert decoder.held == 0

    @given(st.binary(max_size=400), st.booleans())
    def test_garbage_is_an_error_or_waits_for_more(self, raw: bytes, magic: bool) -> None:  # noqa: FBT001
        decoder = Decoder()
        try:
            for _frame in decoder.feed(MAGIC + raw if magic else raw):
                pass
        except ProtocolError:
            return
        assert decoder.held <= HEADER.size * 2 + MAX_PAYLOAD

    @given(st.binary(min_size=1, max_size=100), st.data())
    def test_a_flipped_bit_never_passes(self, payload: bytes, data: st.DataObject) -> None:
        raw = bytearray(encode(Kind.DATA, payload))
        place = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[place // 8] ^= 1 << place % 8
        decoder, found = Decoder(), []
        with contextlib.suppress(ProtocolError):
            found = [bytes(frame.payload) for frame in decoder.feed(MAGIC + bytes(raw))]
        assert found == []


@given(st.lists(snapshots, max_size=5), diffs)
def test_only_what_was_listed_can_be_named(listed: list[Snapshot], diff: Diff) -> None:
    from buttersink.catalogue import Catalogue

    holdings = Holdings(Catalogue(snapshots=tuple(listed)))
    known = {snapshot.uuid for snapshot in listed}
    if {diff.to, *diff.clones, *([diff.parent] if diff.parent else [])} <= known:
        holdings.check([diff])
    else:
        with pytest.raises(errors.UsageError):
            holdings.check([diff])
    for snapshot in listed:
        assert holdings.usable(snapshot.uuid).uuid == snapshot.uuid
