"""
A store served to a client over two descriptors: the far side of an ssh location.

This runs as root for a user who may be hostile, so it trusts nothing that comes. It was started
with one mode and one directory, and every request is held against them; what a client means it can
only name, and it is looked up in the catalogue that was read here. One request is carried out at a
time. The end of the connection, at whatever moment, ends it as a signal would.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from buttersink.errors import (
    ConnectionLostError,
    Error,
    ProtocolError,
    UsageError,
    printable,
)
from buttersink.location import Location
from buttersink.planner.plan import Action, Step
from buttersink.remote import values
from buttersink.remote.connection import Connection
from buttersink.remote.hello import Hello, Wish
from buttersink.remote.holdings import Holdings
from buttersink.remote.protocol import SPOKEN, Kind, agree, parse_json
from buttersink.remote.values import Fields
from buttersink.stores.base import Cache, Mode, Role
from buttersink.stores.btrfs import BtrfsStore
from buttersink.stores.btrfs.progs import progs_version
from buttersink.version import program_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from buttersink.catalogue import Diff
    from buttersink.remote.invocation import Invocation
    from buttersink.remote.values import Delivery, Json
    from buttersink.stores.base import Sink, Store

_OWN_NAMES = b".buttersink-"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    What a server is told of where it runs.

    Attributes:
        confined: Whether the client is trusted with the directory alone.
        cache: Directory in which sizes may be remembered; None if there is none.
        log: Takes a line for the system's log.

    """

    confined: bool
    cache: bytes | None
    log: Callable[[str], None]


class _CancelledError(Exception):
    """The client wants no more of what it asked for."""


def serve(invocation: Invocation, around: Surroundings, read_fd: int, write_fd: int) -> int:
    """Serve one client until it leaves; return the exit status. The descriptors are closed."""
    connection = Connection(read_fd, write_fd, "the client")
    session = _Session(connection, invocation, around)
    shown = f"mode {invocation.mode} on {printable(invocation.directory)}"
    around.log(f"serves {shown}{', confined' if around.confined else ''}")
    try:
        session.run()
    except Error as error:
        with suppress(Error):  # it may be gone
            connection.send_json(Kind.ERROR, values.error_json(error))
        around.log(f"ends: {error}")
        return error.exit_code
    except BaseException as error:
        around.log(f"ends: {type(error).__name__}")
        raise
    finally:
        session.close()
        connection.close()
    around.log("ends: the client has left")
    return 0


class _Session:
    """One client and its store."""

    def __init__(
        self, connection: Connection, invocation: Invocation, around: Surroundings
    ) -> None:
        self._connection, self._invocation, self._around = connection, invocation, around
        self._store_or_none: Store | None = None
        self._holdings = Holdings()
        self._upload = _Upload(connection)
        self._busy = False
        self._requests: dict[str, tuple[Mode, Callable[[Fields], Json]]] = {
            "catalogue": (Mode.READ, self._catalogue),
            "measure": (Mode.READ, self._measure),
            "estimate": (Mode.READ, self._estimate),
            "send": (Mode.READ, self._send),
            "resumable": (Mode.APPEND, self._resumable),
            "receive": (Mode.APPEND, self._receive),
            "release": (Mode.APPEND, self._release),
            "copy": (Mode.APPEND, self._copy),
            "flush": (Mode.APPEND, self._flush),
            "delete": (Mode.WRITE, self._delete),
            "discard": (Mode.WRITE, self._discard),
        }

    @property
    def _store(self) -> Store:
        if self._store_or_none is None:
            raise ProtocolError("no location is open")
        return self._store_or_none

    def close(self) -> None:
        """Let go of the store."""
        if self._store_or_none is not None:
            self._store_or_none.close()

    def run(self) -> None:
        """Greet, open the location, and carry out requests until the client leaves."""
        self._connection.greet(self._hello().to_json())
        self._connection.keep_alive(self._interrupt)
        first = self._connection.receive_or_end()
        if first is None:
            return
        if first.kind is not Kind.HELLO:
            raise ProtocolError("damaged message", why="it does not begin with a greeting")
        hello = Hello.parse(parse_json(first.payload))
        self._reply(lambda: self._open(hello))
        while self._store_or_none is not None:
            frame = self._connection.receive_or_end()
            if frame is None:
                return
            if frame.kind is Kind.REQUEST:
                request = Fields(parse_json(frame.payload))
                self._reply(lambda request=request: self._carry_out(request))  # type: ignore[misc]
            elif frame.kind is not Kind.CANCEL:  # which came when all was sent already
                raise ProtocolError("damaged message", why=f"{frame.kind.name} out of its turn")

    def _hello(self) -> Hello:
        return Hello(
            versions=SPOKEN,
            program=program_version(),
            kernel=os.uname().release,
            progs=progs_version(),
            mode=self._invocation.mode,
            directory=self._invocation.directory,
        )

    def _interrupt(self) -> None:
        """End what is going on, since the client is gone; runs in the connection's thread."""
        if self._busy:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)

    def _reply(self, act: Callable[[], Json]) -> None:
        """Carry something out and say how it ended, in one message."""
        self._busy = True
        try:
            answer = act()
        except (ConnectionLostError, ProtocolError):
            raise
        except Error as error:
            self._around.log(f"{'refused' if isinstance(error, UsageError) else 'failed'}: {error}")
            self._connection.send_json(Kind.ERROR, values.error_json(error))
            self._upload.skip()
        except _CancelledError:
            self._connection.send_json(Kind.END, {"cancelled": True})
        except Exception as error:
            hint = "This is a bug in buttersink: please report it."
            told = Error("internal error there", why=f"{type(error).__name__}: {error}", hint=hint)
            with suppress(Error):
                self._connection.send_json(Kind.ERROR, values.error_json(told))
            raise
        else:
            self._connection.send_json(Kind.END, answer)
        finally:
            self._busy = False

    def _open(self, hello: Hello) -> Json:
        """Open the location as the client wishes, if it may."""
        agree(SPOKEN, hello.versions, "the client")
        wish = hello.wish or Wish()
        allowed, order = self._invocation.mode, tuple(Mode)
        if order.index(wish.mode) > order.index(allowed):
            why = f"mode {wish.mode} is asked for, and {allowed} is allowed"
            raise UsageError("not allowed", where=self._invocation.directory, why=why)
        confined, path = self._around.confined, self._invocation.directory.rstrip(b"/")
        all_below = wish.all_below or confined  # what lies beside DIR is no concern of the client
        if wish.single is not None:
            if b"/" in wish.single or wish.role is not Role.SOURCE:
                raise ProtocolError("refused", where=wish.single, why="that is no source")
            path, all_below = path + b"/" + wish.single, False
        location = Location(path or b"/", all_below=all_below)
        cache = None
        if self._around.cache is not None:
            cache = Cache(self._around.cache, writable=wish.remember, tell=self._note)
        self._store_or_none = BtrfsStore(location, wish.mode, wish.role, cache, confined=confined)
        self._around.log(f"opened as {wish.role} in mode {wish.mode}: {printable(path)}")
        traits = self._store.traits
        return {
            "location": self._store.location,
            "sends": traits.sends,
            "receives": traits.receives,
        }

    def _note(self, text: str) -> None:
        self._connection.send_json(Kind.NOTE, {"text": text})

    def _carry_out(self, request: Fields) -> Json:
        name = request.text("op")
        if name not in self._requests:
            raise ProtocolError("refused", why=f"there is no request {name!r}")
        mode, act = self._requests[name]
        self._store.require(mode)
        return act(request)

    def _cancelled(self) -> bool:
        """Return whether the client has had enough of what it is being sent."""
        if not self._connection.has_frame():
            return False
        frame = self._connection.receive()
        if frame.kind is not Kind.CANCEL:
            raise ProtocolError("damaged message", why=f"{frame.kind.name} out of its turn")
        return True

    def _items(self, items: Iterator[Json]) -> Json:
        for item in items:
            self._connection.send_json(Kind.ITEM, item)
            if self._cancelled():
                raise _CancelledError
        return {}

    def _catalogue(self, _request: Fields) -> Json:
        found = self._store.catalogue()
        self._holdings = Holdings(found)
        lists: tuple[tuple[str, Sequence[Any], Callable[[Any], Any]], ...] = (
            ("snapshots", found.snapshots, values.snapshot_json),
            ("outside", found.outside, values.snapshot_json),
            ("partials", found.partials, values.partial_json),
            ("lineage", tuple(found.lineage.items()), values.lineage_json),
            ("altered", found.altered, values.path_text),
        )
        return self._items(
            {key: batch}
            for key, entries, convert in lists
            for batch in values.batches(map(convert, entries))
        )

    def _measure(self, request: Fields) -> Json:
        diffs, limits = self._asked(request)
        self._speak(request)
        measuring = (values.measurement_json(each) for each in self._store.measure(diffs, limits))
        with closing(measuring):
            return self._items(measuring)

    def _speak(self, request: Fields) -> None:
        """Take the version of streams that is asked for, if the store makes such ones."""
        version = request.number_or_none("version") or 1
        if version > self._store.traits.sends:
            why = f"no stream of version {version} can be made"
            raise UsageError("refused", where=self._store.location, why=why)
        self._store.stream_version = version

    def _asked(self, request: Fields) -> tuple[list[Diff], Mapping[Diff, int]]:
        """Return the diffs of a request, all of which are of what is here, and their limits."""
        diffs, limits = [], {}
        for document in request.items("diffs"):
            diff = values.diff_from(document)
            limit = Fields(document).number_or_none("limit")
            diffs.append(diff)
            if limit is not None:
                limits[diff] = limit
        self._holdings.check(diffs)
        return diffs, limits

    def _estimate(self, request: Fields) -> Json:
        diffs, _limits = self._asked(request)
        self._speak(request)
        return self._items(
            {"diff": values.diff_json(diff), "bytes": size}
            for diff, size in self._store.estimate(diffs)
        )

    def _send(self, request: Fields) -> Json:
        diff = values.diff_from(request.raw("diff"))
        self._holdings.check([diff])
        self._speak(request)
        with self._store.send(diff, values.checkpoint_from(request, "checkpoint")) as chunks:
            for chunk in chunks:
                self._connection.send_data(chunk)
                if self._cancelled():
                    raise _CancelledError
        return {}

    def _delivery(self, request: Fields) -> tuple[Delivery, Step]:
        """Return a step that the client asks for, as it says it and as it is."""
        delivery = values.delivery_from(request.raw("step"))
        _free_path(delivery.path)
        if delivery.replaces is not None:
            self._store.require(Mode.WRITE)
        return delivery, self._holdings.step(delivery)

    def _resumable(self, request: Fields) -> Json:
        _delivery, step = self._delivery(request)
        return {"checkpoint": values.checkpoint_json(self._store.resumable(step))}

    def _receive(self, request: Fields) -> Json:
        delivery, step = self._delivery(request)
        checkpoint = values.checkpoint_from(request, "checkpoint")
        with self._store.receive(step, checkpoint) as sink:
            self._upload.flow(sink)
        if step.replaces is not None:
            self._around.log(f"replaced: {printable(step.replaces.path)}")
            self._holdings.remove(step.replaces)
        self._holdings.add(delivery.snapshot)
        passing = "let pass" if step.passing else "received"
        self._around.log(f"{passing}: {printable(step.path)}")
        return {"resumed": sink.resumed}

    def _release(self, request: Fields) -> Json:
        delivery, step = self._delivery(request)
        self._store.release(step)
        self._holdings.remove(delivery.snapshot)
        return {}

    def _copy(self, request: Fields) -> Json:
        source = self._holdings.outside(values.named_from(request.raw("snapshot")))
        replaces = request.raw("replaces")
        named = None if replaces is None else values.named_from(replaces)
        step = self._holdings.copy_step(source, _free_path(request.path("path")), named)
        if step.replaces is not None:
            self._store.require(Mode.WRITE)
        self._store.copy(step)
        if step.replaces is not None:
            self._holdings.remove(step.replaces)
        self._around.log(f"copied: {printable(source.path)} to {printable(step.path)}")
        return {}

    def _flush(self, _request: Fields) -> Json:
        self._store.flush()
        return {}

    def _delete(self, request: Fields) -> Json:
        snapshot = self._holdings.inside(values.named_from(request.raw("snapshot")))
        self._store.delete(Step(Action.DELETE, snapshot.path, snapshot=snapshot))
        self._holdings.remove(snapshot)
        self._around.log(f"deleted: {printable(snapshot.path)}")
        return {}

    def _discard(self, request: Fields) -> Json:
        partial = self._holdings.partial(values.named_from(request.raw("partial")))
        self._store.discard(partial)
        self._around.log(f"discarded: {printable(partial.path)}")
        return {}


class _Upload:
    """The bytes of one diff after the other as they come from the client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._flowing = False

    def flow(self, sink: Sink) -> None:
        """Say that this side is ready, and hand on what comes until the client says that is all."""
        self._connection.send_json(Kind.ITEM, {"ready": True})
        self._flowing = True
        while (payload := self._next()) is not None:
            sink.write(payload)

    def skip(self) -> None:
        """Let pass what is still on its way after this side has said why it takes no more."""
        with suppress(_CancelledError):
            while self._flowing:
                self._next()

    def _next(self) -> memoryview | None:
        """Return the next bytes, None at their end."""
        frame = self._connection.receive()
        if frame.kind is Kind.DATA:
            return frame.payload
        if frame.kind not in (Kind.END, Kind.CANCEL):
            raise ProtocolError("damaged message", why=f"{frame.kind.name} among data")
        self._flowing = False
        if frame.kind is Kind.CANCEL:
            raise _CancelledError
        return None


def _free_path(path: bytes) -> bytes:
    """Return a path that a snapshot may get; `UsageError` for what means something else here."""
    if any(name.startswith(_OWN_NAMES) for name in path.split(b"/")):
        why = "such names are for what has not arrived"
        raise UsageError("refused", where=path, why=why)
    return path
