"""A worker's TUN and UDP socket, and the two ways to use them: the native loop's, and packet by packet.

Either has one descriptor for the event loop to poll, an epoll of its own: libuv stops to poll a socket for good when
it reports an error, as a connected UDP socket does for every ICMP error.

The second way is for comparison (`Transport.native`): it is what aioquic and Python do by themselves.
"""

from __future__ import annotations

import os
import select
import time
from typing import Protocol

from mpq_worker._datapath import Datapath, plain_tun
from mpq_worker.carrier import VIRTIO_HEADER
from mpq_worker.endpoint import Endpoint
from mpq_worker.errors import DropReason
from mpq_worker.udp import HubSocket, SiteSocket

BUDGET = 32
"""Packets of a wake-up, where each takes a system call and Python's time, lest control and heartbeats starve."""
MAX_PACKET = 65_536


class Links(Protocol):
    """What comes goes to the core."""

    def fileno(self) -> int:
        """Readable when it is time to `wake`."""

    def wake(self) -> bool:
        """Take what came; whether the core has something to do or to say. Raises OSError when the TUN is gone."""

    def use_udp(self, udp: SiteSocket | HubSocket) -> None:
        """From now on this socket is used; the one before is still open."""

    def look(self, now: float) -> None:
        """Read the TUN or leave it, as the core wants."""

    def write_tun(self, packet: bytes) -> None:
        """One packet of Python's own. Raises OSError."""


class NativeLinks:
    """Many packets per call, most of which Python does not hear of."""

    def __init__(self, core: Endpoint, datapath: Datapath, tun: int, udp: SiteSocket | HubSocket) -> None:
        self._core, self._datapath, self._tun, self._udp = core, datapath, tun, udp
        datapath.attach(tun, udp.fileno())
        self._header = bytes(VIRTIO_HEADER) if "vnet" in datapath.features else b""

    def fileno(self) -> int:
        return self._datapath.fileno()

    def wake(self) -> bool:
        asked = self._datapath.wake()
        if asked:
            now = self._datapath.now
            for data, remote in self._datapath.take_foreign():
                self._core.handle_foreign(data, self._udp.address_of(remote), now)
        return asked

    def use_udp(self, udp: SiteSocket | HubSocket) -> None:
        self._udp = udp
        self._datapath.use_udp(udp.fileno())

    def look(self, now: float) -> None:
        self._datapath.may_read(self._core.may_read(now))

    def write_tun(self, packet: bytes) -> None:
        os.write(self._tun, self._header + packet)


class PlainLinks:
    """One packet per call."""

    def __init__(self, core: Endpoint, tun: int, udp: SiteSocket | HubSocket) -> None:
        self._core, self._tun, self._udp = core, tun, udp
        self._header = bytes(VIRTIO_HEADER) if plain_tun(tun) else b""
        self._reading = False
        self._poll = select.epoll()
        self._poll.register(udp.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        return self._poll.fileno()

    def wake(self) -> bool:
        for fd, _ in self._poll.poll(0):
            if fd == self._tun:
                self._read_tun()
            else:
                self._read_udp()
        return True

    def use_udp(self, udp: SiteSocket | HubSocket) -> None:
        self._poll.unregister(self._udp.fileno())  # closing it may not be the end of it: the supervisor has it too
        self._udp = udp
        self._poll.register(udp.fileno(), select.EPOLLIN)

    def look(self, now: float) -> None:
        wanted = self._core.want_packets(now)
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._poll.register(self._tun, select.EPOLLIN)
            else:
                self._poll.unregister(self._tun)

    def write_tun(self, packet: bytes) -> None:
        os.write(self._tun, self._header + packet)

    def _read_udp(self) -> None:
        for _ in range(BUDGET):
            try:
                received = self._udp.receive()
            except OSError:  # an ICMP error of an earlier datagram (ECONNREFUSED, EHOSTUNREACH): silence says it too
                self._core.drop(DropReason.SOCKET)
                break
            if received is None:
                break
            self._core.handle_udp(*received, time.monotonic())

    def _read_tun(self) -> None:
        now = time.monotonic()
        for _ in range(BUDGET):
            try:
                packet = os.read(self._tun, MAX_PACKET + VIRTIO_HEADER)
            except BlockingIOError:
                break
            self._core.handle_packet(packet[len(self._header) :], now)
            if not self._core.want_packets(now):
                break
