"""Ways to talk to anyone at all."""

import os
import socket
import time
import urllib.request

from .registry import attack


def opened(family, kind, protocol=0):
    """Whether such a socket can be made."""
    socket.socket(family, kind, protocol).close()
    return True


@attack()
def tcp(job):
    """connects to a port of this machine"""
    socket.create_connection(("127.0.0.1", job.targets["port"]), 2).close()
    return True


@attack(conceded="T3")
def tcp_listen(job):
    """listens on a port"""
    socket.create_server(("127.0.0.1", 0)).close()
    return True


@attack(only="seccomp", conceded="T3")
def tcp6(job):
    """makes an IPv6 socket"""
    return opened(socket.AF_INET6, socket.SOCK_STREAM)


@attack(only="seccomp", conceded="T3")
def udp(job):
    """makes a UDP socket"""
    return opened(socket.AF_INET, socket.SOCK_DGRAM)


@attack()
def udp_out(job):
    """sends a row's value to a port of this machine"""
    connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection.connect(("127.0.0.1", job.targets["udp"]))
    connection.send(b"7531.25")
    time.sleep(0.1)
    connection.send(b"7531.25")  # where nobody listens, the first one came back as an error
    return True


@attack()
def dns(job):
    """resolves a name that carries a row's value"""
    return socket.getaddrinfo("row-7531-25.example.com", 443)


@attack()
def http(job):
    """fetches a page"""
    return urllib.request.urlopen(f"http://127.0.0.1:{job.targets['port']}/", timeout=2).status


@attack(only="seccomp")
def vsock(job):
    """makes a socket to the machine's hypervisor"""
    return opened(40, socket.SOCK_STREAM)


@attack(only="seccomp", conceded="T3")
def netlink(job):
    """asks the kernel for its network by netlink"""
    return opened(socket.AF_NETLINK, socket.SOCK_RAW)


@attack()
def raw(job):
    """makes a raw socket"""
    return opened(socket.AF_INET, socket.SOCK_RAW, 1)


@attack()
def packet(job):
    """makes a packet socket"""
    return opened(socket.AF_PACKET, socket.SOCK_RAW)


@attack()
def abstract_socket(job):
    """connects to an abstract socket of the host"""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(2)
    connection.connect("\0" + job.targets["abstract"])
    return True


@attack()
def path_socket(job):
    """connects to a socket of the host by its path"""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(2)
    connection.connect(job.targets["socket"])
    return True


@attack()
def datagram_pair(job):
    """turns a socket pair of its own to a socket of the host"""
    ours, _theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return ours.sendto(b"7531.25", "\0" + job.targets["datagram"])


@attack()
def node_socket(job):
    """asks the node's own socket for its status"""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(2)
    connection.connect(job.targets["home"] + "/node.sock")
    return True


@attack()
def named_pipe(job):
    """opens a named pipe of the host"""
    return os.open(job.targets["pipe"], os.O_RDWR | os.O_NONBLOCK)
