"""The worker's sockets on loopback: a hub answers from the address that was contacted (RFC 3542)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from mpq_worker.udp import IP_PKTINFO, HubSocket, SiteSocket


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def hub(stack: ExitStack, family: socket.AddressFamily, *, dual: bool = False) -> tuple[HubSocket, int]:
    """A hub's socket on any address, as the supervisor makes it, and its port."""
    raw = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        raw.bind(("::", 0))
    else:
        raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        raw.bind(("0.0.0.0", 0))
    port = raw.getsockname()[1]
    return stack.enter_context(closing(HubSocket(raw.detach()))), port


def client(stack: ExitStack, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    sock.settimeout(2)
    sock.bind((address, 0))
    return sock


@pytest.mark.parametrize("contacted", ["127.0.0.1", "127.0.0.7", "127.9.9.9"])
@pytest.mark.parametrize("dual", [False, True])
def test_the_reply_leaves_from_the_address_that_was_contacted(stack: ExitStack, contacted: str, dual: bool) -> None:
    server, port = hub(stack, socket.AF_INET6 if dual else socket.AF_INET, dual=dual)
    site = client(stack, "127.0.0.3")
    site.sendto(b"question", (contacted, port))
    received = server.receive()
    assert received is not None
    data, address = received
    assert data == b"question"
    assert address[:2] == ("127.0.0.3", site.getsockname()[1])
    server.send(b"answer", address)
    assert site.recvfrom(100) == (b"answer", (contacted, port))


@pytest.mark.parametrize("dual", [False, True])
def test_the_reply_over_ipv6(stack: ExitStack, dual: bool) -> None:
    server, port = hub(stack, socket.AF_INET6, dual=dual)
    site = client(stack, "::1")
    site.sendto(b"question", ("::1", port))
    received = server.receive()
    assert received is not None
    data, address = received
    assert data == b"question"
    assert address == ("::1", site.getsockname()[1], socket.inet_pton(socket.AF_INET6, "::1"))
    server.send(b"answer", address)
    assert site.recvfrom(100)[1][:2] == ("::1", port)


def test_addresses_of_one_peer_are_equal(stack: ExitStack) -> None:
    """A connection knows its path by the address: two datagrams, one path; another contacted address, another."""
    server, port = hub(stack, socket.AF_INET6, dual=True)
    site = client(stack, "127.0.0.3")
    for contacted in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
        site.sendto(b"x", (contacted, port))
    seen = []
    while (received := server.receive()) is not None:
        seen.append(received[1])
    assert len(seen) == 3
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("size", [0, 1, 1431, 9000])
def test_datagrams_arrive_whole(stack: ExitStack, size: int) -> None:
    server, port = hub(stack, socket.AF_INET)
    client(stack, "127.0.0.3").sendto(bytes(size), ("127.0.0.1", port))
    received = server.receive()
    assert received is not None
    assert received[0] == bytes(size)
    assert server.receive() is None


def test_without_pktinfo_the_kernel_chooses(stack: ExitStack) -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.bind(("127.0.0.1", 0))
    port = raw.getsockname()[1]
    server = stack.enter_context(closing(HubSocket(raw.detach())))
    site = client(stack, "127.0.0.3")
    site.sendto(b"x", ("127.0.0.1", port))
    received = server.receive()
    assert received is not None
    assert received[1][2] == b""
    with pytest.raises((TypeError, OSError)):
        server.send(b"y", ("127.0.0.3", "no port", b""))


def test_a_sites_socket(stack: ExitStack) -> None:
    far = client(stack, "127.0.0.9")
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.connect(far.getsockname())
    configured = ("hub.test", 45011)
    site = stack.enter_context(closing(SiteSocket(raw.detach(), configured)))
    assert site.receive() is None
    site.send(b"question", configured)
    data, address = far.recvfrom(100)
    assert data == b"question"
    stranger = client(stack, "127.0.0.8")
    stranger.sendto(b"spoof", address)
    far.sendto(b"", address)
    far.sendto(b"answer", address)
    assert site.receive() == (b"", configured)
    assert site.receive() == (b"answer", configured)
    assert site.receive() is None


def test_an_icmp_report_is_an_oserror_and_passes(stack: ExitStack) -> None:
    far = client(stack, "127.0.0.9")
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.connect(far.getsockname())
    site = stack.enter_context(closing(SiteSocket(raw.detach(), ("hub.test", 1))))
    far.close()
    site.send(b"question", ("hub.test", 1))
    with pytest.raises(ConnectionRefusedError):
        site.receive()
    assert site.receive() is None
