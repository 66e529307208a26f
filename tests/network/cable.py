"""Places joined by lines that can be made bad: real network namespaces, and between them a wire that this process plays.

Each place is a network namespace with one TUN device. What its kernel sends is read here and handed to the other end's
kernel: late, at a limited rate, now and then not at all, or never. Both ends run the kernel's own TCP and know nothing
of it. It needs no ``tc netem``, which many kernels lack, and works for ordinary users in a user namespace of their own.
"""

from __future__ import annotations

import array
import contextlib
import heapq
import ipaddress
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HOLDER = Path(__file__).with_name("holder.py")
MTU = 1500
QUEUE_SECONDS = 0.5
"""What a router holds before it drops: half a second of its line."""


def missing() -> str:
    """Why no namespaces can be made here; empty where they can."""
    if not Path("/dev/net/tun").exists():
        return "network namespaces need /dev/net/tun"
    for tool in ("unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"network namespaces need {tool}"
    tried = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"this machine lets nobody make network namespaces: {tried.stderr.strip()}"


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-current-user", "--keep-caps", "--net"]


@dataclass
class Line:
    """How bad a place's line is, each way: share of packets lost, seconds of delay and jitter, bytes a second."""

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0
    cut: bool = False
    packets: int = 0
    carried: int = 0
    _free: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    _resets: set[bytes] = field(default_factory=set)
    _flows: set[bytes] = field(default_factory=set)

    def heal(self) -> None:
        """A good line again."""
        self.loss = self.delay = self.jitter = self.rate = 0.0
        self.cut = False

    def reset(self) -> None:
        """Answer the next packet of every connection there is with RST, to both ends, as some firewalls do."""
        self._resets |= self._flows

    def late(self, size: int, out: bool, now: float, chance: random.Random) -> float | None:
        """When a packet comes out at the other end; None where it does not."""
        self.packets += 1
        if self.cut or chance.random() < self.loss:
            return None
        leaves = now
        if self.rate:
            start = max(now, self._free[out])
            if start - now > QUEUE_SECONDS:
                return None
            leaves = self._free[out] = start + size / self.rate
        self.carried += size
        return leaves + self.delay + chance.uniform(0, self.jitter)


class Place:
    """A network namespace with an address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.line = Line()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [*_unshare(), sys.executable, str(HOLDER), address, str(MTU), str(theirs.fileno())]
            self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
            theirs.close()
            ours.settimeout(20)
            numbers = array.array("i")
            _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(numbers.itemsize))
            assert ancillary, "the namespace was not made"
            numbers.frombytes(ancillary[0][2][: numbers.itemsize])
        self.device = numbers[0]
        os.set_blocking(self.device, False)

    def enter(self, command: list[str]) -> list[str]:
        """The command line that runs ``command`` at this place."""
        enter = ["nsenter", "--target", str(self.holder.pid), "--net"]
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        return [*enter, "--", *command]

    def close(self) -> None:
        """Give the namespace back; what runs in it loses its network."""
        assert self.holder.stdin is not None
        self.holder.stdin.close()
        self.holder.wait(10)
        os.close(self.device)


class Net:
    """The wire between places."""

    def __init__(self, seed: int = 1) -> None:
        self.places: dict[bytes, Place] = {}
        self._chance = random.Random(seed)
        self._poll = select.epoll()
        self._by_device: dict[int, Place] = {}
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._last: dict[tuple[int, int], float] = {}
        self._count = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def place(self, address: str) -> Place:
        """A new place with that address."""
        place = Place(address)
        self.places[ipaddress.IPv4Address(address).packed] = place
        self._by_device[place.device] = place
        self._poll.register(place.device, select.EPOLLIN)
        return place

    def move(self, place: Place, address: str) -> None:
        """Packets to another address reach this place, too; the one it had leads nowhere."""
        self.places = {key: one for key, one in self.places.items() if one is not place}
        self.places[ipaddress.IPv4Address(address).packed] = place

    def close(self) -> None:
        """Take everything down."""
        self._ending.set()
        self._thread.join(10)
        for place in self._by_device.values():
            place.close()
        self._poll.close()

    def _carry(self) -> None:
        while not self._ending.is_set():
            wait = max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else 0.05
            for device, _ in self._poll.poll(min(wait, 0.05)):
                self._take(self._by_device[device])
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                _, _, device, packet = heapq.heappop(self._heap)
                with contextlib.suppress(OSError):  # a full queue, or a device that went: a lost packet
                    os.write(device, packet)

    def _take(self, source: Place) -> None:
        for _ in range(64):
            try:
                packet = os.read(source.device, 65536)
            except (BlockingIOError, OSError):
                return
            if packet[0] >> 4 != 4:
                continue
            target = self.places.get(packet[16:20])
            if target is not None:
                self._send(source, target, packet)

    def _send(self, source: Place, target: Place, packet: bytes) -> None:
        if self._reset(source, target, packet):
            return
        due = time.monotonic()
        for line, out in ((source.line, True), (target.line, False)):
            late = line.late(len(packet), out, due, self._chance)
            if late is None:
                return
            due = late
        self._put(source, target, due, packet)

    def _put(self, source: Place, target: Place, due: float, packet: bytes) -> None:
        way = (source.device, target.device)
        due = self._last[way] = max(due, self._last.get(way, 0.0))  # late, but in order: jitter is no reordering
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, target.device, packet))

    def _reset(self, source: Place, target: Place, packet: bytes) -> bool:
        head = (packet[0] & 15) * 4
        if packet[9] != socket.IPPROTO_TCP:
            return False
        ends = sorted((packet[12:16] + packet[head : head + 2], packet[16:20] + packet[head + 2 : head + 4]))
        flow = b"".join(ends)
        lines = [one.line for one in (source, target)]
        for line in lines:
            line._flows.add(flow)
        if not any(flow in line._resets for line in lines):
            return False
        for line in lines:
            line._resets.discard(flow)
            line._flows.discard(flow)
        seq, ack = struct.unpack_from("!II", packet, head + 4)
        now = time.monotonic()
        self._put(source, target, now, _rst(packet[12:16], packet[16:20], packet[head : head + 4], seq))
        back = packet[head + 2 : head + 4] + packet[head : head + 2]
        self._put(target, source, now, _rst(packet[16:20], packet[12:16], back, ack))
        return True


def _rst(source: bytes, target: bytes, ports: bytes, seq: int) -> bytes:
    tcp = ports + struct.pack("!IIBBHHH", seq, 0, 5 << 4, 0x04, 0, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", _sum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0) + source + target
    return ip[:10] + struct.pack("!H", _sum(ip)) + ip[12:] + tcp


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@contextlib.contextmanager
def net() -> Iterator[Net]:
    """A net for the duration of the block."""
    one = Net()
    try:
        yield one
    finally:
        one.close()
