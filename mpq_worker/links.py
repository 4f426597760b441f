"""A worker's TUN and UDP socket, and the two ways to use them: the native loop's, and packet by packet.

The second one is for comparison (`Transport.native`): it is what aioquic and Python do by themselves.
"""

from __future__ import annotations

import os
from typing import Protocol

from mpq_worker._datapath import Datapath, plain_tun
from mpq_worker.carrier import VIRTIO_HEADER
from mpq_worker.endpoint import Endpoint
from mpq_worker.udp import HubSocket, SiteSocket

FRAMES = 64
BYTES = 262_144
"""What is read of the TUN per wake-up, so that control and heartbeats are never starved."""
BUDGET = 32
"""The same for packets, where each takes a system call and Python's time."""
MAX_PACKET = 65_536


class Links(Protocol):
    """What comes goes to the core; errors of the socket are OSError."""

    def use_udp(self, udp: SiteSocket | HubSocket) -> None:
        """From now on this socket is used."""

    def read_udp(self, now: float) -> None: ...

    def read_tun(self, now: float) -> None: ...

    def write_tun(self, packet: bytes) -> None:
        """One packet of Python's own. Raises OSError."""

    def faults(self) -> int:
        """Errors that the socket has reported to the native loop while it sent."""


class NativeLinks:
    """Many packets per call."""

    def __init__(self, core: Endpoint, datapath: Datapath, tun: int, udp: SiteSocket | HubSocket) -> None:
        self._core, self._datapath, self._tun, self._udp = core, datapath, tun, udp
        datapath.attach(tun, udp.fileno())
        self._header = bytes(VIRTIO_HEADER) if "vnet" in datapath.features else b""

    def use_udp(self, udp: SiteSocket | HubSocket) -> None:
        self._udp = udp
        self._datapath.use_udp(udp.fileno())

    def read_udp(self, now: float) -> None:
        self._datapath.read_udp(now)
        for data, remote in self._datapath.take_foreign():
            self._core.handle_foreign(data, self._udp.address_of(remote), now)

    def read_tun(self, now: float) -> None:
        self._datapath.read_tun(FRAMES, BYTES, now)

    def write_tun(self, packet: bytes) -> None:
        os.write(self._tun, self._header + packet)

    def faults(self) -> int:
        return self._datapath.faults


class PlainLinks:
    """One packet per call."""

    def __init__(self, core: Endpoint, tun: int, udp: SiteSocket | HubSocket) -> None:
        self._core, self._tun, self._udp = core, tun, udp
        self._header = bytes(VIRTIO_HEADER) if plain_tun(tun) else b""

    def use_udp(self, udp: SiteSocket | HubSocket) -> None:
        self._udp = udp

    def read_udp(self, now: float) -> None:
        for _ in range(BUDGET):
            received = self._udp.receive()
            if received is None:
                break
            self._core.handle_udp(*received, now)

    def read_tun(self, now: float) -> None:
        for _ in range(BUDGET):
            try:
                packet = os.read(self._tun, MAX_PACKET + VIRTIO_HEADER)
            except BlockingIOError:
                break
            self._core.handle_packet(packet[len(self._header) :], now)
            if not self._core.want_packets(now):
                break

    def write_tun(self, packet: bytes) -> None:
        os.write(self._tun, self._header + packet)

    def faults(self) -> int:
        return 0
