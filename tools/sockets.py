"""Sockets of the traffic tools: bound, marked, time-stamped by the kernel; and a clock to wait by."""

from __future__ import annotations

import select
import socket
import struct
import time

import msgspec

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; not in the socket module
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8  # linux/sock_diag.h
_MEMINFO = struct.Struct("@9I")
_TIMESPEC = struct.Struct("@qq")
_RECEIVE_BYTES = 8 << 20


class Via(msgspec.Struct, frozen=True, kw_only=True):
    """How packets of a stream leave: source address, interface (SO_BINDTODEVICE), DSCP; empty is as routed."""

    source: str = ""
    device: str = ""
    dscp: int = 0


def open_datagram(target: str, protocol: int, via: Via) -> socket.socket:
    """A non-blocking datagram socket of `target`'s family that sends `via`; protocol 0 is UDP."""
    v6 = ":" in target
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM, protocol)
    sock.setblocking(False)
    _send_via(sock, via)
    widen(sock)
    return sock


def open_connection(target: str, port: int, via: Via) -> socket.socket:
    """A TCP connection to `target` that leaves `via`; it need not be there before 5 s. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_STREAM)
    _send_via(sock, via)
    sock.settimeout(5)
    sock.connect((target, port))
    return sock


def listen_datagram(port: int) -> socket.socket:
    """A non-blocking UDP socket on a port of every address, IPv4 and IPv6."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    widen(sock)
    return sock


def widen(sock: socket.socket) -> None:
    """A receive buffer that a late reader does not overflow (root)."""
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BYTES)


def receive_drops(sock: socket.socket) -> int:
    """Packets that the kernel dropped because this socket's receive buffer was full."""
    counters = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
    drops: int = _MEMINFO.unpack(counters)[_SK_MEMINFO_DROPS]
    return drops


def arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel received a message (socket with SO_TIMESTAMPNS), on the monotonic clock."""
    now = time.monotonic_ns()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            stamp: int = seconds * 1_000_000_000 + nanoseconds
            return now - max(0, time.time_ns() - stamp)
    return now


def wait_until(epoll: select.epoll, when_ns: int) -> list[tuple[int, int]]:
    """Events of `epoll`, waited for until `when_ns` (monotonic). `epoll.poll` alone rounds up to milliseconds."""
    left = when_ns - time.monotonic_ns()
    if left > 0:
        select.select([epoll], [], [], left / 1e9)
    return epoll.poll(0)


def _send_via(sock: socket.socket, via: Via) -> None:
    if via.device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, via.device.encode())
    if via.source:
        sock.bind((via.source, 0))
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, via.dscp << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, via.dscp << 2)
