"""
The link to the ButterSink on another host: requests, their answers, and why there is none.

One request at a time: it is answered by any number of items or data and then, always, by one end or
one error. Whoever wants no more of an answer cancels and waits for that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from buttersink.errors import ConnectionLostError, Error, ProtocolError, UsageError, printable
from buttersink.remote import values
from buttersink.remote.connection import SILENCE_SECONDS, Connection
from buttersink.remote.hello import Hello
from buttersink.remote.protocol import SPOKEN, Frame, Kind, agree, parse_json
from buttersink.remote.values import Fields
from buttersink.stores.base import Mode
from buttersink.stores.ssh.diagnosis import diagnose, lost
from buttersink.stores.ssh.process import SshProcess, command_line, settings_for
from buttersink.version import program_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buttersink.location import SshLocation
    from buttersink.remote.hello import Wish
    from buttersink.remote.invocation import Invocation
    from buttersink.remote.values import Json
    from buttersink.stores.base import Remote

_LOGIN_SECONDS = 300.0  # somebody may have to type a passphrase
_LAST_SECONDS = 3.0  # that ssh has to say why it ends


class Link:
    """
    One ssh process and what is said over it; end it with `close`.

    Args:
        location: Where to.
        invocation: What to start there.
        wish: What to have opened there.
        remote: How the host is reached.

    Attributes:
        sends: The highest version of a send stream that the far side makes.
        receives: The highest version that it takes.

    """

    def __init__(
        self, location: SshLocation, invocation: Invocation, wish: Wish, remote: Remote
    ) -> None:
        self._place, self._where = location, str(location)
        self._tell = remote.tell
        self._reached = self._told = False
        settings = settings_for(location)
        invocation = invocation._replace(unconfined=settings.get("user") == "root")
        command = command_line(location, invocation.arguments, remote.command, settings)
        self._process = SshProcess(command, location)
        self.connection = Connection(*self._process.descriptors(), self._where)
        try:
            self._meet(invocation, wish)
        except BaseException:
            self.close()
            raise

    def _meet(self, invocation: Invocation, wish: Wish) -> None:
        """Greet, see whether both sides fit, and have the location opened."""
        mine = Hello(SPOKEN, program_version(), os.uname().release, wish=wish)
        with suppress(ConnectionLostError):  # why shows when there is no answer
            self.connection.greet(mine.to_json())
        frame = self.next(_LOGIN_SECONDS)
        if frame.kind is not Kind.HELLO:
            raise self.out_of_turn(frame)
        self._reached = True
        theirs = Hello.parse(parse_json(frame.payload))
        agree(SPOKEN, theirs.versions, self._where)
        there = f"buttersink {theirs.program}, {theirs.progs}, Linux {theirs.kernel}"
        self._tell(f"{self._where} is served by {there}")
        self._check(invocation, theirs)
        self.connection.keep_alive()
        opened = self.answer()
        self.sends = opened.number_or_none("sends") or 1
        self.receives = opened.number_or_none("receives") or 1

    def _check(self, wanted: Invocation, found: Hello) -> None:
        """Refuse a far side that serves something else, as a forced command may have it."""
        if found.directory != wanted.directory:
            shown = printable(found.directory or b"")
            raise UsageError(
                "not allowed",
                where=self._where,
                why=f"the key, there, is for {shown} alone",
                hint=f"Write {self._place.authority}{shown.rstrip('/')}/.",
            )
        order = tuple(Mode)
        if found.mode is None or order.index(found.mode) < order.index(wanted.mode):
            why = f"mode {wanted.mode} is needed, and the key, there, is for mode {found.mode}"
            hint = "That is in the command of authorized_keys there."
            raise UsageError("not allowed", where=self._where, why=why, hint=hint)

    def close(self) -> None:
        """End the connection and ssh, and tell what ssh has said. May be called again."""
        self.connection.close()
        self._process.close()
        if not self._told and (said := self._process.said.strip()):
            self._tell(f"ssh says for {self._where}: {printable(said)}")
        self._told = True

    def next(self, patience: float = SILENCE_SECONDS) -> Frame:
        """Return the next frame that answers; one that tells of an error is raised."""
        while (frame := self.hear(patience)) is None:
            pass
        return frame

    def hear(self, patience: float = SILENCE_SECONDS) -> Frame | None:
        """Return the same, or None if the next frame was but a note, which is passed on."""
        try:
            frame = self.connection.receive(patience)
        except ConnectionLostError as error:
            raise self.why_lost(error) from error
        except ProtocolError:
            self.connection.broken = True
            raise
        if frame.kind is Kind.ERROR:
            raise self._told_of(frame)
        if frame.kind is not Kind.NOTE:
            return frame
        self._tell(Fields(parse_json(frame.payload)).text("text"))
        return None

    def _told_of(self, frame: Frame) -> Error:
        return values.error_from(parse_json(frame.payload), self._place.authority)

    def why_lost(self, error: ConnectionLostError) -> Error:
        """Return why a connection has ended, as an error that a person can act on."""
        words = self.connection.last_words()
        if words is not None:
            return self._told_of(words)
        status = self._process.wait(_LAST_SECONDS)
        if self._reached:
            return lost(self._where, self._process.said, error.why)
        user = f"{self._place.user}@" if self._place.user else ""
        port = f"-p {self._place.port} " if self._place.port else ""
        by_hand = f"ssh {port}{user}{self._place.host}"
        return diagnose(self._where, by_hand, self._process.said, status)

    def out_of_turn(self, frame: Frame) -> ProtocolError:
        """Return the error that a frame makes no sense where it comes."""
        why = f"{frame.kind.name} came out of its turn"
        return ProtocolError("damaged message", where=self._where, why=why)

    def send(self, kind: Kind, document: Json | None = None) -> None:
        """Send a frame; if that cannot be, raise what the far side has told of before it went."""
        try:
            self.connection.send_json(kind, document or {})
        except ConnectionLostError as error:
            raise self.why_lost(error) from error

    def request(self, name: str, **fields: object) -> None:
        """Ask for something; `answer` or `Answer` is what comes of it."""
        self.send(Kind.REQUEST, {"op": name, **fields})

    def answer(self) -> Fields:
        """Return how a request ended that brings nothing before its end."""
        frame = self.next()
        if frame.kind is not Kind.END:
            raise self.out_of_turn(frame)
        return Fields(parse_json(frame.payload))

    def cancel(self) -> None:
        """Have the far side stop what it is doing, and wait until it has."""
        if self.connection.broken:
            return  # then it stops when the connection ends
        with suppress(Error):
            self.send(Kind.CANCEL)
            while self.next().kind is not Kind.END:
                pass


class Answer:
    """
    What a request brings, frame by frame; `leave` it, at its end or before.

    Args:
        link: Over which it was asked for.
        kind: What all of it has to be.

    """

    def __init__(self, link: Link, kind: Kind) -> None:
        self._link, self._kind = link, kind
        self._ended = False

    def __iter__(self) -> Iterator[memoryview]:
        while not self._ended:
            try:
                frame = self._link.next()
            except Error:
                self._ended = True
                raise
            if frame.kind is Kind.END:
                self._ended = True
            elif frame.kind is self._kind:
                yield frame.payload
            else:
                raise self._link.out_of_turn(frame)

    def leave(self) -> None:
        """Want no more of it."""
        if not self._ended:
            self._ended = True
            self._link.cancel()


class Upload:
    """
    The sink of one diff on the far side; end it with `finish` or `cancel`.

    Attributes:
        resumed: See `Sink`.

    """

    resumed = 0

    def __init__(self, link: Link) -> None:
        self._link = link
        self._refused = self._finished = False
        frame = link.next()
        if frame.kind is not Kind.ITEM:
            raise link.out_of_turn(frame)

    def write(self, chunk: memoryview) -> None:
        """Send the next bytes, unless the far side has said that it takes no more."""
        connection = self._link.connection
        if connection.has_frame():
            self._hear()
        try:
            connection.send_data(chunk)
        except ConnectionLostError as error:
            raise self._link.why_lost(error) from error

    def _hear(self) -> None:
        """Raise what the far side says while it is being sent something, unless it is a note."""
        try:
            frame = self._link.hear()
        except Error:
            self._refused = True
            raise
        if frame is not None:
            raise self._link.out_of_turn(frame)

    def finish(self) -> None:
        """Say that this was all, and return when the far side has it safe."""
        self._finished = True
        self._link.send(Kind.END)
        self.resumed = self._link.answer().number("resumed")

    def cancel(self) -> None:
        """Say that no more comes, unless all has, and wait until the far side is done with it."""
        if self._finished:
            return
        if self._refused and not self._link.connection.broken:
            with suppress(Error):
                self._link.send(Kind.CANCEL)
        else:
            self._link.cancel()
