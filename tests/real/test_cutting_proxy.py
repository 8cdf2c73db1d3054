"""The proxy that cuts connections passes everything on, and cuts where it was told to."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.cuttingproxy import CuttingProxy
from tests.support.serving import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = bytes(range(256)) * 40_000  # more than what the kernel's buffers on the way hold


@pytest.fixture
def proxy() -> Iterator[CuttingProxy]:
    with echo_server() as endpoint, CuttingProxy(endpoint) as made:
        yield made


@contextmanager
def echo_server() -> Iterator[str]:
    """Give back what every connection says; yield the endpoint."""
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def serve(listener: socket.socket) -> None:
    echoes = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # shut down: the test is over
            break
        echoes.append(threading.Thread(target=echo, args=(connection,)))
        echoes[-1].start()
    for thread in echoes:
        thread.join()


def echo(connection: socket.socket) -> None:
    with connection:
        try:
            while chunk := connection.recv(1 << 16):
                connection.sendall(chunk)
        except OSError:
            pass


def connect(proxy: CuttingProxy) -> socket.socket:
    url = urlsplit(proxy.endpoint)
    assert url.hostname
    assert url.port
    return socket.create_connection((url.hostname, url.port), timeout=10)


def receive(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes, fewer only at the end of the connection."""
    received = b""
    while len(received) < count and (chunk := connection.recv(count - len(received))):
        received += chunk
    return received


def test_everything_passes_and_the_end_too(proxy: CuttingProxy) -> None:
    with closing(connect(proxy)) as connection:
        sender = threading.Thread(target=connection.sendall, args=(LONG,))
        sender.start()
        assert receive(connection, len(LONG)) == LONG
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert proxy.passed == 2 * len(LONG)
    assert proxy.connections == 1


def test_a_cut_breaks_every_connection_and_the_next_one_works(proxy: CuttingProxy) -> None:
    with closing(connect(proxy)) as one, closing(connect(proxy)) as other:
        for connection in (one, other):
            connection.sendall(b"here")
            assert receive(connection, 4) == b"here"
        proxy.cut()
        for connection in (one, other):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    with closing(connect(proxy)) as connection:
        connection.sendall(b"again")
        assert receive(connection, 5) == b"again"


def send_for_ever(connection: socket.socket) -> None:
    """Fill the kernel's buffers, which hold the more the less memory others use."""
    while True:
        connection.sendall(LONG)


def test_a_cut_does_not_wait_for_a_connection_that_is_stuck(proxy: CuttingProxy) -> None:
    with closing(connect(proxy)) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):  # nobody takes what comes back
            send_for_ever(connection)
        proxy.cut()
        with pytest.raises(ConnectionError):
            connection.sendall(LONG)


def test_after_so_many_bytes_it_cuts(proxy: CuttingProxy) -> None:
    proxy.cut_after(150)
    with closing(connect(proxy)) as connection:
        connection.sendall(b"x" * 100)
        assert receive(connection, 50) == b"x" * 50
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert proxy.passed == 150
    with closing(connect(proxy)) as connection:  # once
        connection.sendall(b"y" * 200)
        assert receive(connection, 200) == b"y" * 200


def test_after_so_many_bytes_it_can_refuse_as_well(proxy: CuttingProxy) -> None:
    proxy.cut_after(10, then_refuse=True)
    with closing(connect(proxy)) as connection:
        connection.sendall(b"x" * 11)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_refusing_leaves_what_is_there_alone_and_can_be_ended(proxy: CuttingProxy) -> None:
    endpoint = proxy.endpoint
    with closing(connect(proxy)) as connection:
        connection.sendall(b"here")
        assert receive(connection, 4) == b"here"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        connection.sendall(b"still")
        assert receive(connection, 5) == b"still"
    proxy.accept()
    assert proxy.endpoint == endpoint
    with closing(connect(proxy)) as connection:
        connection.sendall(b"again")
        assert receive(connection, 5) == b"again"


def test_who_connects_while_it_stops_to_listen_is_not_left_hanging(proxy: CuttingProxy) -> None:
    def told() -> None:
        with suppress(ConnectionError), closing(connect(proxy)) as connection:
            connection.sendall(b"x")  # else the kernel may keep to itself that nobody is there
            assert connection.recv(2) in {b"", b"x"}
            assert connection.recv(1) == b""

    for _ in range(300):
        with ThreadPoolExecutor(1) as pool:
            client = pool.submit(told)
            proxy.refuse()
            proxy.cut()
            client.result()
        proxy.accept()


def test_without_a_server_the_client_sees_the_end() -> None:
    with echo_server() as endpoint:
        pass
    with CuttingProxy(endpoint) as proxy, closing(connect(proxy)) as connection:
        assert connection.recv(1) == b""


def test_the_thread_ends_with_the_block(proxy: CuttingProxy) -> None:
    before = threading.active_count()
    with CuttingProxy(proxy.endpoint) as chained, closing(connect(chained)) as connection:
        connection.sendall(b"through two")
        assert receive(connection, 11) == b"through two"
        assert threading.active_count() > before
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("cutting proxy") == 1
