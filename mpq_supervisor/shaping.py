"""HTB on the WANs by traffic control messages: critical goes first where the uplink's rate is known.

    root 6d70:  htb, what no filter takes goes to the class of default
      6d70:1    the whole rate
        6d70:10 :20 :30   critical, default, bulk (`shaper`), each over a short queue of its own
    filters     u32 on the DSCP of IPv4 and IPv6

The structures are written by hand (linux/pkt_sched.h, linux/pkt_cls.h): few, fixed, and read back the same way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mpq_supervisor.netlink_socket import CREATE, EXCLUDE, NetlinkSocket, attribute, attributes
from mpq_supervisor.shaper import SHAPER_HANDLE, Shaper, ShaperClass

_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_NEWCLASS, _GETCLASS = 40, 42
_NEWFILTER, _GETFILTER = 44, 46
_KIND, _OPTIONS = 1, 2
_ROOT = 0xFFFFFFFF
_HANDLE = SHAPER_HANDLE << 16
_WHOLE = 1

_MESSAGE = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # struct tc_ratespec
_CLASS = struct.Struct("=12s12sIIIII")  # struct tc_htb_opt: rate, ceil, buffer, cbuffer, quantum, level, prio
_HTB_PARMS, _HTB_INIT, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 6, 7
_HTB_VERSION = 3
_QUANTUM = 1514
_TICK = 64e-9  # seconds, PSCHED_SHIFT; the unit of tc_htb_opt.buffer
_BURST = 0.001  # seconds of its rate that a class may send at once …
_BURST_MINIMUM = 2 * 1514  # … and at least two packets
_U32_CLASSID, _U32_SELECTOR = 1, 5
_TERMINAL = 1
_MAX_U32 = 0xFFFFFFFF


def shaped(netlink: NetlinkSocket) -> frozenset[int]:
    """Indexes of the interfaces whose root qdisc is ours."""
    roots = (_MESSAGE.unpack_from(message, 16) for message in netlink.dump(_GETQDISC, _message(0)))
    return frozenset(index for _, index, handle, parent, _ in roots if (handle, parent) == (_HANDLE, _ROOT))


def read(netlink: NetlinkSocket, interface: str, index: int) -> Shaper:
    """The shaper that is on an interface of `shaped`."""
    limits = {
        parent & 0xFFFF: struct.unpack_from("=I", options)[0]
        for parent, options in _options(netlink, _GETQDISC, index, b"bfifo")
    }
    filters = dict(_filters(netlink, index))
    rate, classes = 0, []
    for handle, options in _classes(netlink, index):
        parms = attributes(options)
        packed = _CLASS.unpack(parms[_HTB_PARMS][: _CLASS.size])
        speed, ceil = (_RATE.unpack(packed[i])[5] for i in (0, 1))
        if _HTB_RATE64 in parms:
            speed = struct.unpack("=Q", parms[_HTB_RATE64])[0]
        if _HTB_CEIL64 in parms:
            ceil = struct.unpack("=Q", parms[_HTB_CEIL64])[0]
        minor = handle & 0xFFFF
        if minor == _WHOLE:
            rate = speed
        else:
            leaf = limits.get(minor, 0)
            classes.append(ShaperClass(minor, packed[6], speed, ceil, leaf, filters.get(minor)))
    return Shaper(interface, rate, tuple(sorted(classes, key=lambda c: c.minor)))


def apply(netlink: NetlinkSocket, shaper: Shaper, index: int) -> None:
    """Puts a shaper in the place of whatever is at an interface's root, or nothing and raises OSError."""
    messages = list(_messages(shaper, index))  # all of them before the first is sent
    remove(netlink, index)
    try:
        for kind, body in messages:
            netlink.change(kind, body, CREATE | EXCLUDE)
    except OSError:
        remove(netlink, index)
        raise


def remove(netlink: NetlinkSocket, index: int) -> None:
    """Gives the interface its usual root qdisc back."""
    netlink.delete(_DELQDISC, _message(index, 0, _ROOT))


def _messages(shaper: Shaper, index: int) -> Iterator[tuple[int, bytes]]:
    """What makes a shaper, in order: kind and body."""
    rest = next(c.minor for c in shaper.classes if c.dscp is None)
    init = struct.pack("=IIIII", _HTB_VERSION, 10, rest, 0, 0)  # version, rate2quantum, default class
    htb = _kind("htb", attribute(_HTB_INIT, init))
    yield _NEWQDISC, _message(index, _HANDLE, _ROOT) + htb
    whole = ShaperClass(_WHOLE, 0, shaper.rate, shaper.rate, 0)
    for part in (whole, *shaper.classes):
        parent = _HANDLE if part is whole else _HANDLE | _WHOLE
        yield _NEWCLASS, _message(index, _HANDLE | part.minor, parent) + _kind("htb", _class_options(part))
    for part in shaper.classes:
        yield _NEWQDISC, _message(index, 0, _HANDLE | part.minor) + _kind("bfifo", struct.pack("=I", part.limit))
        if part.dscp is not None:
            yield from ((_NEWFILTER, body) for body in _filter_bodies(index, part.minor, part.dscp))


def _message(index: int, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return _MESSAGE.pack(0, index, handle, parent, info)


def _kind(kind: str, options: bytes) -> bytes:
    return attribute(_KIND, kind.encode() + b"\0") + attribute(_OPTIONS, options)


def _class_options(part: ShaperClass) -> bytes:
    def spec(rate: int) -> bytes:
        return _RATE.pack(0, 1, 0, 0, 0, min(rate, _MAX_U32))  # link layer: Ethernet

    def ticks(rate: int) -> int:
        return int(max(_BURST, _BURST_MINIMUM / rate) / _TICK)

    rate, ceil = part.rate, part.ceil
    parms = _CLASS.pack(spec(rate), spec(ceil), ticks(rate), ticks(ceil), _QUANTUM, 0, part.prio)
    wide = b"".join(
        attribute(kind, struct.pack("=Q", value))
        for kind, value in ((_HTB_RATE64, rate), (_HTB_CEIL64, ceil))
        if value > _MAX_U32
    )
    return attribute(_HTB_PARMS, parms) + wide


# DSCP in the first 32 bits of a header, by protocol number: bits 8-13 in IPv4, 4-9 in IPv6.
_DSCP_SHIFT = {0x0800: 18, 0x86DD: 22}


def _filter_bodies(index: int, minor: int, dscp: int) -> Iterator[bytes]:
    for order, (protocol, shift) in enumerate(_DSCP_SHIFT.items(), 1):
        key = struct.pack(">II", 0x3F << shift, dscp << shift) + struct.pack("=ii", 0, 0)
        selector = struct.pack("=BBBxHHhhI", _TERMINAL, 0, 1, 0, 0, 0, 0, 0) + key
        options = attribute(_U32_CLASSID, struct.pack("=I", _HANDLE | minor)) + attribute(_U32_SELECTOR, selector)
        info = order << 16 | struct.unpack("=H", struct.pack(">H", protocol))[0]
        yield _message(index, 0, _HANDLE, info) + _kind("u32", options)


def _filters(netlink: NetlinkSocket, index: int) -> Iterator[tuple[int, int]]:
    """(class, DSCP) of our IPv4 filters; those for IPv6 were made with them."""
    for message in netlink.dump(_GETFILTER, _message(index, 0, _HANDLE)):
        options = attributes(attributes(message[16 + _MESSAGE.size :]).get(_OPTIONS, b""))
        info = _MESSAGE.unpack_from(message, 16)[4]
        protocol = struct.unpack(">H", struct.pack("=H", info & 0xFFFF))[0]
        if protocol == 0x0800 and _U32_CLASSID in options and _U32_SELECTOR in options:
            (minor,) = struct.unpack("=I", options[_U32_CLASSID])
            _mask, value = struct.unpack_from(">II", options[_U32_SELECTOR], 16)
            yield minor & 0xFFFF, value >> _DSCP_SHIFT[protocol]


def _classes(netlink: NetlinkSocket, index: int) -> Iterator[tuple[int, bytes]]:
    for message in netlink.dump(_GETCLASS, _message(index)):
        handle = _MESSAGE.unpack_from(message, 16)[2]
        parsed = attributes(message[16 + _MESSAGE.size :])
        if handle >> 16 == SHAPER_HANDLE and _OPTIONS in parsed:
            yield handle, parsed[_OPTIONS]


def _options(netlink: NetlinkSocket, kind: int, index: int, name: bytes) -> Iterator[tuple[int, bytes]]:
    for message in netlink.dump(kind, _message(index)):
        _family, found, _handle, parent, _info = _MESSAGE.unpack_from(message, 16)
        parsed = attributes(message[16 + _MESSAGE.size :])
        if found == index and parsed.get(_KIND) == name + b"\0" and _OPTIONS in parsed:
            yield parent, parsed[_OPTIONS]
