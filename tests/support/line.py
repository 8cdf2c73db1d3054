"""
A line between two network namespaces, with a delay, losses and cuts: what netem does, where it is.

Kernels of containers and small machines often lack netem, so the line is a thread that carries IP
packets between two TUN devices, one in each namespace. All that TCP does on a bad line, it does
here. A packet arrives whole and in order after the delay, or not at all. A line that is cut lets
nothing through and says nothing about it, as a cable pulled somewhere far away.

The near namespace is for the client, whose `ssh` is started in it by `near_side`. The addresses are
the same on every line, since nobody else sees them. The devices go with their descriptors, and the
namespaces with the processes that hold them.
"""

from __future__ import annotations

import fcntl
import os
import random
import selectors
import socket
import struct
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING

from tests.support.farhost import held_namespaces
from tests.support.loopfs import run

if TYPE_CHECKING:
    from collections.abc import Iterator

NEAR_ADDRESS, FAR_ADDRESS = "10.0.0.1", "10.0.0.2"
MTU = 1500  # bytes of a packet
QUEUE = 10_000  # packets waiting for the device to be read; Linux's own 500 would drop bursts
SEED = 5

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFREQ = struct.Struct("16sH22x")
_IPV4 = 4
_TCP = struct.Struct("!4s4xIxB")  # ports, acknowledgment number, flags
_ACK, _RST = 0x10, 0x04
_DEVICE_NUMBER = os.makedev(10, 200)  # Documentation/networking/tuntap.rst


class Line:
    """
    What a test does to the line, at any moment; it begins as a perfect one.

    Attributes:
        near_side: What begins a command line that is to be run at the near end.
        passed: Bytes of packets that were handed over so far, both directions together.
        acknowledged: Bytes that TCP at the far end has so far, without a gap.
        lost: Packets that were lost so far, by chance or in a cut.

    """

    def __init__(self, near_side: tuple[str, ...], ends: tuple[int, int]) -> None:
        self.near_side = near_side
        self.passed = 0
        self.acknowledged = 0
        self.lost = 0
        self._ends = ends
        self._delay_seconds = 0.0
        self._loss = 0.0
        self._open = True
        self._cut_at: int | None = None
        self._chance = random.Random(SEED)
        self._next: dict[bytes, int] = {}  # by the ports of a connection, what the far end awaits
        self._lock = Lock()
        self._ended = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = Thread(target=self._carry, name="line")

    def set_quality(self, *, delay_seconds: float = 0.0, loss: float = 0.0) -> None:
        """Let packets take this long each way, and this share of them, 0 to 1, never arrive."""
        with self._lock:
            self._delay_seconds, self._loss = delay_seconds, loss

    def cut(self) -> None:
        """Let nothing through; what is on its way is lost. Nobody is told."""
        with self._lock:
            self._open, self._cut_at = False, None

    def cut_after(self, count: int) -> None:
        """Cut the line when so many more bytes of packets have arrived, both directions counted."""
        with self._lock:
            self._cut_at = self.passed + count

    def mend(self) -> None:
        """Let packets through again; connections that lived through the cut go on."""
        with self._lock:
            self._open, self._cut_at = True, None

    @property
    def is_cut(self) -> bool:
        """Whether nothing comes through."""
        with self._lock:
            return not self._open

    def start(self) -> None:
        """Begin to carry."""
        self._thread.start()

    def stop(self) -> None:
        """Carry nothing any more; the devices' descriptors are the caller's to close."""
        self._ended = True
        os.write(self._wake_writer, b"!")
        self._thread.join()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _carry(self) -> None:
        """Take packets from each end, and hand them to the other when they are due."""
        waiting = deque[tuple[float, int, bytes]]()
        with selectors.DefaultSelector() as selector:
            for end in (*self._ends, self._wake_reader):
                selector.register(end, selectors.EVENT_READ)
            while not self._ended:
                left = waiting[0][0] - time.monotonic() if waiting else None
                for key, _ in selector.select(None if left is None else max(left, 0.0)):
                    if key.fd in self._ends:
                        self._take(key.fd, waiting)
                self._deliver(waiting)

    def _take(self, end: int, waiting: deque[tuple[float, int, bytes]]) -> None:
        other = self._ends[1 - self._ends.index(end)]
        with suppress(BlockingIOError):
            while len(waiting) < QUEUE:
                packet = os.read(end, MTU)
                if end == self._ends[1]:
                    self._hear(packet)
                with self._lock:
                    lost = not self._open or self._chance.random() < self._loss
                    due = time.monotonic() + self._delay_seconds
                if lost:
                    self.lost += 1
                else:
                    waiting.append((due, other, packet))

    def _hear(self, packet: bytes) -> None:
        """Take what the far end says it has, even if nobody else hears it (RFC 791, RFC 9293)."""
        start = 4 * (packet[0] & 0x0F)
        if packet[0] >> 4 != _IPV4 or packet[9] != socket.IPPROTO_TCP:
            return
        ports, awaited, flags = _TCP.unpack_from(packet, start)
        if flags & (_ACK | _RST) == _ACK:
            more = (awaited - self._next.get(ports, awaited)) % 2**32
            if more < 2**31:  # else it was said earlier than what is known
                self._next[ports] = awaited
                self.acknowledged += more

    def _deliver(self, waiting: deque[tuple[float, int, bytes]]) -> None:
        """Hand over what is due; a shorter delay than before does not let packets overtake."""
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, end, packet = waiting.popleft()
            with self._lock:
                if self._open:
                    with suppress(OSError):  # its host has gone, or its queue is full: it is lost
                        os.write(end, packet)
                    self.passed += len(packet)
                else:
                    self.lost += 1
                if self._cut_at is not None and self.passed >= self._cut_at:
                    self._open, self._cut_at = False, None


def device_prefix(pid: int) -> str:
    """Return how the names of the devices begin that the process makes; others make some, too."""
    return f"line{pid}-"


@contextmanager
def line_to(far: int) -> Iterator[Line]:
    """Have a line for the block, from a new namespace to that of the process `far`. Needs root."""
    with ExitStack() as stack:
        near = stack.enter_context(held_namespaces("--net"))
        near_end = stack.enter_context(_device(near, NEAR_ADDRESS))
        far_end = stack.enter_context(_device(far, FAR_ADDRESS))
        line = Line(("nsenter", f"--net=/proc/{near}/ns/net", "--"), (near_end, far_end))
        line.start()
        stack.callback(line.stop)
        yield line


@contextmanager
def _device(pid: int, address: str) -> Iterator[int]:
    """Have the descriptor of a TUN device in the network namespace of a process, and set it up."""
    end = _open_tun()
    pattern = f"{device_prefix(os.getpid())}%d".encode()  # the kernel counts
    try:
        answer = fcntl.ioctl(end, _TUNSETIFF, _IFREQ.pack(pattern, _IFF_TUN | _IFF_NO_PI))
        name = _IFREQ.unpack(answer)[0].rstrip(b"\0").decode()
        run("ip", "link", "set", name, "netns", str(pid))
        there = ("nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip")
        run(*there, "link", "set", "lo", "up")
        run(*there, "address", "add", f"{address}/30", "dev", name)
        run(*there, "link", "set", name, "mtu", str(MTU), "txqueuelen", str(QUEUE), "up")
        yield end
    finally:
        os.close(end)


def _open_tun() -> int:
    """Open the kernel's TUN device, also where nobody made a node for it."""
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open("/dev/net/tun", flags)
    node = f"/dev/buttersink-tun-{os.getpid()}"
    os.mknod(node, 0o600 | 0o020000, _DEVICE_NUMBER)
    try:
        return os.open(node, flags)
    finally:
        os.unlink(node)
