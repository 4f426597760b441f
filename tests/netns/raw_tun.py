"""A TUN seen from the kernel's side, byte for byte: what is put in is what its reader gets, and the other way round.

A packet socket hands its packet straight to the interface, past routing and filters, and sees what the TUN's owner
wrote before the kernel does anything to it. Both also with a virtio_net_hdr, so that super-packets can be sent and
those that come can be cut as the kernel would cut them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from mpq_worker.inner import checksum
from tools import namespaces
from tools.setns import inside
from tools.stage import Stage
from tools.topology import Role

TCP, UDP = 6, 17
FIN, PSH, CWR = 0x01, 0x08, 0x80
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_ETH_P_ALL, _ETH_P = 3, {4: 0x0800, 6: 0x86DD}
_NEEDS_CSUM = 1
_NONE, _TCP4, _TCP6, _UDP_L4, _ECN = 0, 1, 4, 5, 0x80
_VIRTIO = struct.Struct("=BBHHHH")
_LARGEST = 70_000


class RawTun:
    """The interface `device` in a namespace of a stage."""

    def __init__(self, stage: Stage, role: Role, device: str) -> None:
        home = os.open(namespaces.NETNS / stage.name(role), os.O_RDONLY)
        try:
            with inside(home):
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
                self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                self._socket.bind((device, _ETH_P_ALL))
        finally:
            os.close(home)
        self._device = device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, packet: bytes) -> None:
        """Put a packet into the tunnel."""
        self.send_frame(bytes(_VIRTIO.size) + packet)

    def send_frame(self, frame: bytes) -> None:
        """Put a packet with its virtio_net_hdr into the tunnel."""
        self._socket.sendto(frame, (self._device, _ETH_P[frame[_VIRTIO.size] >> 4]))

    def receive(self, count: int, wanted: Callable[[bytes], bool], seconds: float = 5.0) -> list[bytes]:
        """The next `count` wanted packets out of the tunnel, or those that came in time; others are skipped."""
        packets: list[bytes] = []
        deadline = time.monotonic() + seconds
        while len(packets) < count and select.select([self._socket], [], [], max(0, deadline - time.monotonic()))[0]:
            packets += filter(wanted, cut(self._socket.recv(_LARGEST)))
        return packets


def super_frame(packet: bytes, segment: int) -> bytes:
    """A TCP or UDP packet, larger than any MTU, as a frame to be cut into payloads of `segment` bytes."""
    layout = _layout(packet)
    kind = _UDP_L4 if layout.protocol == UDP else _TCP6 if layout.six else _TCP4
    ecn = _ECN if layout.protocol == TCP and packet[layout.start + 13] & CWR else 0
    where = layout.checksum_at - layout.start
    header = _VIRTIO.pack(_NEEDS_CSUM, kind | ecn, layout.head, segment, layout.start, where)
    begun = struct.pack("!H", _pseudo(packet, layout, len(packet)))
    return header + packet[: layout.checksum_at] + begun + packet[layout.checksum_at + 2 :]


def cut(frame: bytes) -> list[bytes]:
    """What the kernel makes of a packet with its virtio_net_hdr on the way to a wire: segments of `gso_size`, every
    checksum finished (Linux, inet_gso_segment, tcp_gso_segment and __udp_gso_segment)."""
    flags, kind, _, size, start, offset = _VIRTIO.unpack_from(frame)
    packet = frame[_VIRTIO.size :]
    if kind & ~_ECN == _NONE:
        return [_finish(packet, start, start + offset) if flags & _NEEDS_CSUM else packet]
    layout = _layout(packet)
    payload = packet[layout.head :]
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [_segment(packet, layout, i, i * size, piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]


class _Layout(NamedTuple):
    """Where things are in a TCP or UDP packet without IP options or extension headers."""

    six: bool
    protocol: int
    start: int  # of the transport header
    head: int  # length of all headers

    @property
    def checksum_at(self) -> int:
        return self.start + (16 if self.protocol == TCP else 6)


def _segment(packet: bytes, layout: _Layout, place: int, offset: int, payload: bytes, last: bool) -> bytes:
    head = bytearray(packet[: layout.head])
    length = layout.head + len(payload)
    if layout.six:
        struct.pack_into("!H", head, 4, length - 40)
    else:
        (number,) = struct.unpack_from("!H", head, 4)
        struct.pack_into("!HH", head, 2, length, (number + place) & 0xFFFF)
        struct.pack_into("!H", head, 10, 0)
        struct.pack_into("!H", head, 10, checksum(bytes(head[:20])))
    if layout.protocol == TCP:
        (sequence,) = struct.unpack_from("!I", head, layout.start + 4)
        struct.pack_into("!I", head, layout.start + 4, (sequence + offset) & 0xFFFFFFFF)
        head[layout.start + 13] &= ~((CWR if place else 0) | (0 if last else FIN | PSH))
    else:
        struct.pack_into("!H", head, layout.start + 4, length - layout.start)
    struct.pack_into("!H", head, layout.checksum_at, _pseudo(bytes(head), layout, length))
    return _finish(bytes(head) + payload, layout.start, layout.checksum_at)


def _layout(packet: bytes) -> _Layout:
    six = packet[0] >> 4 == 6
    protocol, start = (packet[6], 40) if six else (packet[9], 20)
    return _Layout(six, protocol, start, start + ((packet[start + 12] >> 4) * 4 if protocol == TCP else 8))


def _pseudo(packet: bytes, layout: _Layout, length: int) -> int:
    addresses = packet[8:40] if layout.six else packet[12:20]
    return checksum(addresses + struct.pack("!II", length - layout.start, layout.protocol)) ^ 0xFFFF


def _finish(packet: bytes, start: int, where: int) -> bytes:
    """With the checksum that was begun at `where` finished. UDP has no checksum 0 (RFC 768); it is the one at 6."""
    value = checksum(packet[start:]) or (0xFFFF if where - start == 6 else 0)
    return packet[:where] + struct.pack("!H", value) + packet[where + 2 :]
