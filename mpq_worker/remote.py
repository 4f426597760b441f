"""A peer's address as the native loop has it: a socket address, then the address of ours that was contacted. Pure.

`struct sockaddr_in` or `sockaddr_in6` as the kernel lays them out (ip(7), ipv6(7)); our own address packed, if any.
An IPv6 socket has IPv4 peers mapped (RFC 4291 section 2.5.5.2); to Python they are plain IPv4.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

from mpq_worker.quic.session import Address

_FAMILY = struct.Struct("=H")
_IPV4, _IPV6 = struct.Struct("=H2s4s8x"), struct.Struct("=H2s4x16s4x")
_AF_INET, _AF_INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"


def pack_remote(addr: Address) -> bytes:
    """`addr` is (host, port) or (host, port, our address packed)."""
    host, port, local = addr[0], addr[1].to_bytes(2, "big"), addr[2] if len(addr) > 2 else b""
    packed = ip_address(host).packed
    if len(packed) == 4 and len(local) != 16:
        return _IPV4.pack(_AF_INET, port, packed) + local
    return _IPV6.pack(_AF_INET6, port, packed if len(packed) == 16 else _MAPPED + packed) + local


def unpack_remote(remote: bytes) -> Address:
    """(host, port, our address packed)."""
    (family,) = _FAMILY.unpack_from(remote)
    layout = _IPV6 if family == _AF_INET6 else _IPV4
    _, port, packed = layout.unpack_from(remote)
    address = ip_address(packed)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), int.from_bytes(port, "big"), remote[layout.size :]
