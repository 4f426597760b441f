"""The worker's UDP socket, made by the supervisor and lent to it.

A site's is bound to its WAN and connected to the hub. A hub's is one slot of a reuseport group; it answers from the
address that was contacted (IP_PKTINFO, RFC 3542), which therefore is part of the peer's address here.
"""

from __future__ import annotations

import socket
import struct

from mpq_worker.quic.session import Address
from mpq_worker.remote import unpack_remote

MAX_DATAGRAM = 65_535
_IN_PKTINFO = struct.Struct("=I4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_ANCILLARY = socket.CMSG_SPACE(_IN6_PKTINFO.size)
IP_PKTINFO = 8


class SiteSocket:
    """`addr` is always the hub's, as configured."""

    def __init__(self, fd: int, hub_address: Address) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._hub = hub_address

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def local(self) -> str:
        """Our address on the WAN."""
        return str(self._socket.getsockname()[0])

    def receive(self) -> tuple[bytes, Address] | None:
        """None if nothing waits. Raises OSError for a report of ICMP or a socket that is gone."""
        try:
            return self._socket.recv(MAX_DATAGRAM), self._hub
        except BlockingIOError:
            return None

    def send(self, data: bytes, addr: Address) -> None:
        self._socket.send(data)

    def address_of(self, remote: bytes) -> Address:
        """What the native loop says of where a datagram came from."""
        return self._hub

    def close(self) -> None:
        self._socket.close()


class HubSocket:
    """`addr` is (host, port, contacted address packed): host as text, IPv4 also on a dual-stack socket."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._six = self._socket.family == socket.AF_INET6

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Address] | None:
        """None if nothing waits."""
        try:
            data, ancillary, _, peer = self._socket.recvmsg(MAX_DATAGRAM, _ANCILLARY)
        except BlockingIOError:
            return None
        local = b""
        for _, _, value in ancillary:
            local = _IN6_PKTINFO.unpack(value)[0] if self._six else _IN_PKTINFO.unpack(value)[2]
        return data, (peer[0].removeprefix("::ffff:"), peer[1], local)

    def address_of(self, remote: bytes) -> Address:
        """What the native loop says of where a datagram came from."""
        return unpack_remote(remote)

    def send(self, data: bytes, addr: Address) -> None:
        host, port, local = addr
        if self._six:
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(local, 0))
            self._socket.sendmsg([data], [info], 0, (host if ":" in host else f"::ffff:{host}", port))
        else:
            info = (socket.IPPROTO_IP, IP_PKTINFO, _IN_PKTINFO.pack(0, local, bytes(4)))
            self._socket.sendmsg([data], [info], 0, (host, port))

    def close(self) -> None:
        self._socket.close()
