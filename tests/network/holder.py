"""Runs inside a fresh network namespace: makes its device, hands it out, and keeps the namespace until stdin ends."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922
UP = 0x1 | 0x40


def address_request(name: bytes, address: str) -> bytes:
    return struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))


def main(address: str, mtu: str, channel: str) -> None:
    name = b"line0"
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name, IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFADDR, address_request(name, address))
        fcntl.ioctl(control, SIOCSIFNETMASK, address_request(name, "255.255.255.0"))
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si12x", name, int(mtu)))
        for one in (name, b"lo"):
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", one, UP))
    with socket.socket(fileno=int(channel)) as there:
        there.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
    os.close(device)
    sys.stdin.read()


main(*sys.argv[1:])
