"""A site in namespaces, for the tests of its network; `conftest` makes the fixtures of it.

    lan ── lan1, lan2 ──▶ site ── wan4, wan5 ──▶ internet        (a namespace each)

The TUNs have no workers: the tests read and write them in their place.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, TunnelPlan
from tests.netns.namespace import Namespace, run

SITE = """
role = "site"
identity = { certificate = "/a/ship1.crt", key = "/a/ship1.key", ca = "/a/ca.crt" }
hub = { name = "hub.example.net", address = "198.51.100.2" }
inner = { ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64" }
wan = [{ name = "wan4", interface = "wan4" }, { name = "wan5", interface = "wan5" }]
lan = [{ name = "lan1", interface = "lan1", wan = "wan4" }, { name = "lan2", interface = "lan2", wan = "wan5" }]
"""
RATED = SITE.replace('interface = "wan4"', 'interface = "wan4", rate_mbit = 4.0')
FALLBACK = SITE.replace('interface = "wan4" }', 'interface = "wan4", fallback = ["wan5"] }', 1)
NO_LANS = SITE[: SITE.index("lan =")]
DISH = "192.168.100.1"
SERVER = "203.0.113.10"
LOG = logging.getLogger("test")
VNET_HEADER = 10
"""Bytes of struct virtio_net_hdr before each packet of a TUN; all zero: as it is, in one piece."""
TUNS = ("cr1", "br1", "df1", "cr2", "br2", "df2")


class Net:
    """The namespaces of a site."""

    def __init__(self) -> None:
        self.site, self.internet, self.lan = Namespace(), Namespace(), Namespace()
        with self.site.entered():
            for k in (4, 5):
                run(
                    f"ip link add wan{k} type veth peer name r{k} netns {self.internet.path}",
                    f"ip address add 100.64.{k}.2/24 dev wan{k}",
                    f"ip address add 2001:db8:{k}::2/64 dev wan{k} nodad",
                    f"ip link set wan{k} up",
                    f"ip route add default via 100.64.{k}.1 dev wan{k} metric {k}",
                    f"ip route add default via 2001:db8:{k}::1 dev wan{k} metric {k}",
                )
            for n in (1, 2):
                run(
                    f"ip link add lan{n} type veth peer name lan{n} netns {self.lan.path}",
                    f"ip address add 172.16.{n}.1/24 dev lan{n}",
                    f"ip address add fd00:16:{n}::1/64 dev lan{n} nodad",
                    f"ip link set lan{n} up",
                )
        with self.internet.entered():
            for k in (4, 5):
                run(
                    f"ip address add 100.64.{k}.1/24 dev r{k}",
                    f"ip address add 2001:db8:{k}::1/64 dev r{k} nodad",
                    f"ip link set r{k} up",
                )
            run("ip address add 198.51.100.2/32 dev lo", f"ip address add {SERVER}/32 dev lo")
        with self.lan.entered():
            for n in (1, 2):
                run(f"ip address add 172.16.{n}.9/24 dev lan{n}", f"ip link set lan{n} up")
                run(f"ip address add fd00:16:{n}::9/64 dev lan{n} nodad")
                run(f"ip rule add from 172.16.{n}.9 lookup {n}", f"ip route add default via 172.16.{n}.1 table {n}")
            run("ip route add default via 172.16.1.1", "ip route add default via fd00:16:1::1")

    def close(self) -> None:
        for namespace in (self.site, self.internet, self.lan):
            namespace.close()


class Capture:
    """IPv4 packets that come out of the WANs and are not the site's own."""

    def __init__(self, net: Net) -> None:
        self.sockets = []
        with net.internet.entered():
            for k in (4, 5):
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
                sock.bind((f"r{k}", 0x0003))
                sock.setblocking(False)
                self.sockets.append(sock)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()

    def clear_packets(self) -> list[bytes]:
        """What has a LAN or inner source so far, IPv4 and IPv6."""
        found = []
        for sock in self.sockets:
            with suppress(BlockingIOError):
                while True:
                    packet = sock.recv(2000)
                    source = packet[12:14] if packet[0] >> 4 == 4 else packet[8:10]
                    if source in (b"\xac\x10", b"\x0a\xc8", b"\xfd\x00", b"\xfd\x6d"):  # 172.16, 10.200, …
                        found.append(packet)
        return found


@contextmanager
def hosted(plan: HostPlan) -> Iterator[Host]:
    """mpq's network in the namespace of the moment, up; at the end all of it is taken away."""
    host = Host(plan, LOG)
    try:
        host.up()
        yield host
    finally:
        with suppress(OSError):  # a test may have taken it down itself
            host.down("open")


def tunnel(plan: HostPlan, name: str) -> TunnelPlan:
    worker = plan.worker(name)
    assert isinstance(worker, TunnelPlan)
    return worker


def tun_fd(host: Host, plan: HostPlan, name: str) -> int:
    fds = host.tunnel_fds(tunnel(plan, name), 0)
    assert fds is not None
    return fds[0]


def udp_of(host: Host, plan: HostPlan, name: str) -> socket.socket:
    """A copy of a tunnel's UDP socket."""
    fds = host.tunnel_fds(tunnel(plan, name), 0)
    assert fds is not None
    return socket.socket(fileno=os.dup(fds[1]))


def lan_socket(net: Net, source: str, kind: int = socket.SOCK_DGRAM, dscp: int = 0) -> socket.socket:
    with net.lan.entered():
        sock = socket.socket(socket.AF_INET, kind)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        sock.setblocking(False)
        sock.bind((source, 0))
        return sock


def is_told_no(net: Net) -> bool:
    """Whether a LAN host's packet of class critical is answered with `host unreachable`."""
    with lan_socket(net, "172.16.1.9") as sock:
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        sock.connect((SERVER, 5060))
        sock.send(b"x")
        return wait_for(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH)


def provoke(net: Net) -> None:
    """Traffic of every class from both LANs to the Internet and to a WAN's neighbour, and IPv6."""
    for n in (1, 2):
        for dscp, port in ((0, 5060), (46, 9), (0, 9)):
            for to in (SERVER, "100.64.4.1", "100.64.5.1"):
                with lan_socket(net, f"172.16.{n}.9", dscp=dscp) as sock, suppress(OSError):
                    sock.sendto(b"in clear?", (to, port))
        with lan_socket(net, f"172.16.{n}.9", socket.SOCK_STREAM) as sock, suppress(OSError):
            sock.connect((SERVER, 443))
    with net.lan.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(b"in clear?", ("2001:db8:4::1", 9))


def write_packet(fd: int, packet: bytes) -> None:
    """A packet out of a tunnel, into its TUN."""
    os.write(fd, bytes(VNET_HEADER) + packet)


def read_packet(fds: dict[str, int], version: int = 4, timeout: float = 1.0) -> tuple[str, bytes]:
    """The first IPv4 packet, or IPv6 UDP packet, that any TUN has to give, and of which; noise is skipped."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select(list(fds.values()), [], [], left)
        for name, fd in fds.items():
            if fd not in ready:
                continue
            packet = os.read(fd, 2000)[VNET_HEADER:]
            if packet[0] >> 4 == version and (version == 4 or packet[6] == socket.IPPROTO_UDP):
                return name, packet
    return "", b""


def next_packet(sock: socket.socket, source_port: int) -> bytes:
    """The next IPv4 UDP packet from this port that a capture saw."""
    packet = b""

    def look() -> bool:
        nonlocal packet
        with suppress(BlockingIOError):
            packet = sock.recv(2000)
        return packet[9:10] == b"\x11" and struct.unpack_from(">H", packet, 20)[0] == source_port

    assert wait_for(look)
    return packet


def received(sock: socket.socket) -> list[bytes]:
    data = []
    with suppress(BlockingIOError):
        while True:
            data.append(sock.recv(2000))
    return data


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def broken(*_: object) -> None:
    """In the place of a function: a fault of mpq's own."""
    raise ZeroDivisionError


def wait_for(condition: Callable[[], object], timeout: float = 1.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


def udp_packet(source: str, to: str, source_port: int, port: int) -> bytes:
    """An IPv4 UDP packet with four bytes of data and no UDP checksum."""
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 32, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(to))
    total = sum(struct.unpack(">10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return (
        head[:10] + struct.pack(">H", checksum) + head[12:] + struct.pack(">HHHH", source_port, port, 12, 0) + b"data"
    )
