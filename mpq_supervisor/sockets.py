"""UDP sockets, made here with privilege and lent to workers.

A site's socket belongs to one WAN by device and address (FIELD 9) and is connected to the hub. A hub's port
is a group of `contract.SLOTS` sockets; a classic BPF program picks one by the first byte of the destination
connection ID (RFC 9000 section 17: offset 1 in short headers, 6 in long ones). All sockets of a group stay
open as long as the group, since closing one would move the others (ARCHITECTURE 2).

    byte                    socket
    a slot with a worker    that slot: a connection stays with its worker
    a slot without one      that of the class's other worker, which answers by a stateless reset
    a class's door          the slot of the worker that admits; at a shared listener, of its only one
    anything else           the sink

A slot that no worker serves, and the sink always, throws away what it gets, counted, by a filter of its own.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from mpq_supervisor.network import version_of
from mpq_worker.contract import SINK_SLOT, SLOTS, TrafficClass, door_of, slot_of
from mpq_worker.errors import HostFault

_BUFFER = 4 << 20  # bytes; the kernel doubles it for its own bookkeeping

# Not in the socket module of Python 3.11; asm-generic/socket.h, linux/in.h, linux/in6.h.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IP_RECVERR = 11
_IP_FREEBIND = 15
_IPV6_MTU_DISCOVER = 23
_IPV6_RECVERR = 25
_PMTUDISC_PROBE = 3  # sets DF, and believes our own probes instead of ICMP (RFC 8899)

_Program = tuple[tuple[int, int, int, int], ...]
# Classic BPF (linux/bpf_common.h): code, jump if true, jump if false, operand. A load past the end returns 0.
_LOAD_BYTE, _JUMP, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x30, 0x05, 0x15, 0x45, 0x06
_LOAD_FIRST_OF_CID = (
    (_LOAD_BYTE, 0, 0, 0),
    (_JUMP_SET, 2, 0, 0x80),  # header form: 1 = long
    (_LOAD_BYTE, 0, 0, 1),
    (_JUMP, 0, 0, 1),
    (_LOAD_BYTE, 0, 0, 6),
)
_DROP_ALL = ((_RETURN, 0, 0, 0),)


def site_socket(
    interface: str, local: tuple[str, int], remote: tuple[str, int], dscp: int, priority: int
) -> socket.socket:
    """A socket bound to a WAN's interface and address and connected to the hub. Raises OSError.

    SO_REUSEADDR lets it take the port while the socket it replaces is still open.
    """
    version = version_of(local[0])
    sock = _udp(version, dscp, priority)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind(local)
        sock.connect(remote)
    except OSError:
        sock.close()
        raise
    return sock


class Group:
    """The sockets of one hub port, in slot order, steered by connection ID."""

    def __init__(self, address: str, port: int, *, shared: bool, kept: Sequence[int] = ()) -> None:
        """Binds one socket per slot; "::" takes IPv4 too. `kept` are those of an earlier supervisor, in slot order,
        of which none may be missing. Raises HostFault."""
        self._sockets = [socket.socket(fileno=fd) for fd in kept]
        self._lent: set[int] = set()
        self._admits: dict[int, int] = {}  # by door, the slot
        self._shared = shared
        try:
            for _slot in range(len(kept), SLOTS):
                program = None if self._sockets else steering(set(), {})
                self._sockets.append(_group_member(address, port, program))
        except OSError as error:
            self.close()
            raise HostFault(f"UDP [{address}]:{port}: {error.strerror}") from error

    def share(self, *, shared: bool) -> None:
        """From now on it is the port of a shared listener, or of one with a worker per class."""
        if shared is not self._shared:
            self._shared = shared
            self._admits.clear()
            self._steer()

    def admit(self, slot: int) -> None:
        """New connections of a slot's class, or all of them at a shared listener, go to the worker there."""
        classes = tuple(TrafficClass) if self._shared else (TrafficClass((slot - 1) // 2),)
        self._admits.update({door_of(traffic_class): slot for traffic_class in classes})
        self._steer()

    def lend(self, slot: int, dscp: int, priority: int) -> int:
        """The descriptor of a slot that gets a worker now, marked as its class is; it stays ours."""
        sock = self._sockets[slot]
        _mark(sock, dscp, priority)
        if slot not in self._lent:
            with suppress(FileNotFoundError):  # kept of an earlier supervisor, whose worker serves it
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            self._lent.add(slot)
            self._steer()
        return sock.fileno()

    def keep(self, slots: set[int]) -> None:
        """The workers of all other slots have gone."""
        for slot in self._lent - slots:
            _attach(self._sockets[slot], _SO_ATTACH_FILTER, _DROP_ALL)
        self._lent &= slots
        self._admits = {door: slot for door, slot in self._admits.items() if slot in slots}
        self._steer()

    def _steer(self) -> None:
        _attach(self._sockets[SINK_SLOT], _SO_ATTACH_REUSEPORT_CBPF, steering(self._lent, self._admits))

    def drops(self, slot: int) -> int:
        """Datagrams that a slot's socket has thrown away, ever; of SINK_SLOT: those that name no slot."""
        info = self._sockets[slot].getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_SK_MEMINFO_DROPS + 1))
        return int(struct.unpack_from("=I", info, 4 * _SK_MEMINFO_DROPS)[0])

    @property
    def descriptors(self) -> list[int]:
        """In slot order."""
        return [sock.fileno() for sock in self._sockets]

    def close(self) -> None:
        """Gives the port up."""
        for sock in self._sockets:
            sock.close()


def bind_address(addresses: tuple[str, ...]) -> str:
    """What a listener's port is bound to: its one address; the two wildcards are one dual-stack socket, "::"."""
    return addresses[0] if len(addresses) == 1 else "::"


def steering(lent: set[int], admits: dict[int, int]) -> _Program:
    """The program of a group: `lent` are the slots with a worker, `admits` the slot of each door."""
    targets = dict(admits)
    for traffic_class in TrafficClass:
        pair = [slot_of(traffic_class, generation) for generation in (0, 1)]
        for slot, partner in zip(pair, reversed(pair), strict=True):
            targets[slot] = partner if partner in lent and slot not in lent else slot
    table = [line for byte, slot in targets.items() for line in ((_JUMP_EQUAL, 0, 1, byte), (_RETURN, 0, 0, slot))]
    return (*_LOAD_FIRST_OF_CID, *table, (_RETURN, 0, 0, SINK_SLOT))


def _group_member(address: str, port: int, program: _Program | None) -> socket.socket:
    version = version_of(address)
    sock = _udp(version, dscp=0, priority=0)
    try:
        _attach(sock, _SO_ATTACH_FILTER, _DROP_ALL)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)  # for mapped IPv4 as well
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # at boot the address may come after us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if program:  # the first one brings it, before the port exists: no packet is ever hashed
            _attach(sock, _SO_ATTACH_REUSEPORT_CBPF, program)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _udp(version: int, dscp: int, priority: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
            except PermissionError:  # as much as net.core.*mem_max allows, then
                sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 0)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 0)
        _mark(sock, dscp, priority)
    except OSError:
        sock.close()
        raise
    return sock


def _mark(sock: socket.socket, dscp: int, priority: int) -> None:
    """On an IPv6 socket both: IP_TOS is for the IPv4 peers of a dual-stack one."""
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)  # last: IP_TOS sets it too


def _attach(sock: socket.socket, option: int, program: _Program) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HP", len(program), ctypes.addressof(code)))
