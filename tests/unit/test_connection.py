"""Two ends of a pipe, or of a socket: nobody waits for ever, whatever the other one does."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from buttersink.errors import ConnectionLostError, ProtocolError
from buttersink.remote import connection as module
from buttersink.remote.connection import Connection
from buttersink.remote.protocol import MAGIC, MAX_PAYLOAD, Kind, encode, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator


def by_pipes() -> tuple[int, int, int, int]:
    """Return descriptors: one side's to read and write, and the other's."""
    (here_reads, there_writes), (there_reads, here_writes) = os.pipe(), os.pipe()
    return here_reads, here_writes, there_reads, there_writes


def by_socket() -> tuple[int, int, int, int]:
    """As sshd connects what it starts: one socket is input and output."""
    here, there = socket.socketpair()
    fds = here.detach(), there.detach()
    return fds[0], os.dup(fds[0]), fds[1], os.dup(fds[1])


@pytest.fixture(params=[by_pipes, by_socket])
def raw(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, int, int]]:
    """One end, and the descriptors of the other."""
    here_reads, here_writes, there_reads, there_writes = request.param()
    connection = Connection(here_reads, here_writes, "ssh://h/p/")
    with ExitStack() as stack:
        stack.callback(connection.close)
        yield connection, there_reads, there_writes
        for fd in (there_reads, there_writes):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture(params=[by_pipes, by_socket])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, Connection]]:
    here_reads, here_writes, there_reads, there_writes = request.param()
    here = Connection(here_reads, here_writes, "here")
    there = Connection(there_reads, there_writes, "there")
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(module, "ALIVE_SECONDS", 0.1)


def greeted(pair: tuple[Connection, Connection]) -> None:
    for one, other in (pair, pair[::-1]):
        one.greet({"from": one.name})
        assert parse_json(other.receive().payload) == {"from": one.name}


def test_frames_go_both_ways(pair: tuple[Connection, Connection]) -> None:
    greeted(pair)
    here, there = pair
    here.send_json(Kind.REQUEST, {"a": 1})
    frame = there.receive()
    assert (frame.kind, parse_json(frame.payload)) == (Kind.REQUEST, {"a": 1})
    assert not there.has_frame()
    there.send(Kind.END)
    while not here.has_frame():
        pass
    assert here.receive().kind is Kind.END


def test_two_that_write_at_once_do_not_wait_for_each_other(
    pair: tuple[Connection, Connection],
) -> None:
    greeted(pair)
    here, there = pair
    data = memoryview(os.urandom(5 * MAX_PAYLOAD + 7))
    answers = [b"%d" % number * 50_000 for number in range(6)]

    def talk() -> None:
        for answer in answers:
            there.send(Kind.ITEM, answer)

    def listen() -> bytes:
        return b"".join(bytes(there.receive().payload) for _ in range(6))

    thread = threading.Thread(target=talk)
    thread.start()
    got: list[bytes] = []
    sender = threading.Thread(target=here.send_data, args=(data,))
    sender.start()
    thread.join(10)
    got.append(listen())
    sender.join(10)
    assert not sender.is_alive()
    assert got == [bytes(data)]
    assert [bytes(here.receive().payload) for _ in answers] == answers


def test_the_end_is_told_from_an_end_in_the_middle(raw: tuple[Connection, int, int]) -> None:
    here, there_reads, there_writes = raw
    os.write(there_writes, MAGIC + encode(Kind.END))
    os.close(there_writes)
    os.close(there_reads)
    assert here.receive().kind is Kind.END
    assert here.receive_or_end() is None
    assert here.has_frame()
    with pytest.raises(ConnectionLostError, match="ssh://h/p/"):
        here.receive()


def test_what_is_cut_says_so(raw: tuple[Connection, int, int]) -> None:
    here, there_reads, there_writes = raw
    os.write(there_writes, MAGIC + encode(Kind.DATA, b"x" * 100)[:50])
    os.close(there_writes)
    os.close(there_reads)
    with pytest.raises(ConnectionLostError, match=r"in the middle of a message \(50 bytes\)"):
        here.receive()


@pytest.mark.usefixtures("impatient")
class TestPatience:
    def test_with_one_that_is_silent_has_an_end(self, raw: tuple[Connection, int, int]) -> None:
        here, _reads, _writes = raw
        with pytest.raises(ConnectionLostError, match="nothing has come for 0"):
            here.receive(0.3)

    def test_with_one_that_reads_nothing_has_an_end(self, raw: tuple[Connection, int, int]) -> None:
        here, _reads, _writes = raw
        with pytest.raises(ConnectionLostError, match="nothing has come for"):
            here.send_data(memoryview(bytes(8 * MAX_PAYLOAD)))

    def test_lasts_while_the_other_side_is_alive(self, pair: tuple[Connection, Connection]) -> None:
        greeted(pair)
        here, there = pair
        there.keep_alive()
        answer = threading.Timer(1.5, there.send, (Kind.END,))
        answer.start()
        assert here.receive(0.5).kind is Kind.END
        answer.join()

    def test_lasts_while_one_that_reads_nothing_is_alive(
        self, pair: tuple[Connection, Connection]
    ) -> None:
        greeted(pair)
        here, there = pair
        there.keep_alive()
        sender = threading.Thread(target=here.send_data, args=(memoryview(bytes(4 << 20)),))
        sender.start()
        time.sleep(1.5)
        assert sender.is_alive()
        for _frame in range(4):
            there.receive()
        sender.join(10)
        assert not sender.is_alive()


def test_the_end_of_the_other_side_is_told_at_once(pair: tuple[Connection, Connection]) -> None:
    greeted(pair)
    here, there = pair
    gone = threading.Event()
    here.keep_alive(gone.set)
    assert not gone.wait(0.1)
    there.close()
    assert gone.wait(5)


def test_closing_ends_the_thread_at_once(pair: tuple[Connection, Connection]) -> None:
    here, _there = pair
    here.keep_alive()
    begun = time.monotonic()
    here.close()
    here.close()
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("banner", [b"Welcome to example.org\nNo mail.\n", b"b", b"\x1b[31mhi\n"])
def test_a_banner_is_quoted(raw: tuple[Connection, int, int], banner: bytes) -> None:
    here, _reads, writes = raw
    os.write(writes, banner + MAGIC + encode(Kind.HELLO, b"{}"))
    with pytest.raises(ProtocolError) as refusal:
        here.receive()
    shown = banner.strip().replace(b"\n", b"\\n").replace(b"\x1b", b"\\x1b").decode()
    assert shown in refusal.value.why.replace("\\\\", "\\")
    assert "on stdout" in refusal.value.why
    assert refusal.value.hint == "Make its start-up files silent for commands."
    assert str(refusal.value).isprintable()


def test_last_words_are_heard_when_it_is_too_late_to_write(
    raw: tuple[Connection, int, int],
) -> None:
    here, there_reads, there_writes = raw
    os.write(there_writes, MAGIC + encode(Kind.ITEM) + encode(Kind.ERROR, b"{}"))
    os.close(there_reads)
    os.close(there_writes)
    with pytest.raises(ConnectionLostError):
        here.send_data(memoryview(bytes(4 << 20)))
    words = here.last_words()
    assert words is not None
    assert bytes(words.payload) == b"{}"


def test_after_a_broken_frame_nothing_is_sent(
    raw: tuple[Connection, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the middle of one: what followed would be taken for the rest of it."""
    here, there_reads, _writes = raw
    monkeypatch.setattr(here, "_wait_to_write", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        here.send_data(memoryview(bytes(8 << 20)))
    os.set_blocking(there_reads, False)
    while True:
        try:
            os.read(there_reads, 1 << 20)
        except BlockingIOError:
            break
    with pytest.raises(ConnectionLostError, match="ended before"):
        here.send(Kind.CANCEL)


def _interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("impatient")
def test_a_flood_of_frames_while_it_writes_is_not_kept(raw: tuple[Connection, int, int]) -> None:
    here, _reads, writes = raw
    os.write(writes, MAGIC + encode(Kind.NOTE, bytes(100)) * 50)
    with pytest.raises(ConnectionLostError, match="nothing has come for"):
        here.send_data(memoryview(bytes(8 << 20)))
    assert len(here._waiting) <= module._MOST_WAITING  # noqa: SLF001
