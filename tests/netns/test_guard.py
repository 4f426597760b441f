"""What strangers may send to a hub's port, in a real kernel: `guard`."""

from __future__ import annotations

import os
import socket
import struct
import tomllib
from collections.abc import Iterator
from contextlib import closing

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_worker.contract import MAX_RESET
from tests.netns.namespace import Namespace, run
from tests.netns.site import LOG, hosted, received
from tests.unit.test_extremes import changes_of, plan_with

pytestmark = pytest.mark.root

PORT = 45010
HUB = f"""
role = "hub"
identity = {{ certificate = "/a/hub.crt", key = "/a/hub.key", ca = "/a/ca.crt" }}
listener = [{{ name = "mt4", port = {PORT}, ipv4 = "10.200.10.0/24", workers = "shared" }}]
nat = {{ interface = "srv" }}
limits = {{ first_packets = 20, strangers = 50 }}
"""
SLOT = 1
SHORT, INITIAL = b"\x41" + bytes((SLOT,)), b"\xc1\x00\x00\x00\x01\x08" + bytes((SLOT,))


@pytest.fixture
def plan() -> HostPlan:
    return make_plan(parse(HUB))


@pytest.fixture
def host(plan: HostPlan, hub_namespace: object) -> Iterator[Host]:
    run("ip link set lo up")
    host = Host(plan, LOG)
    host.up()
    yield host
    host.down("open")


@pytest.fixture
def port(host: Host, plan: HostPlan) -> Iterator[socket.socket]:
    """The worker's socket."""
    with socket.socket(fileno=os.dup(host.hub_fds(plan.hub_workers[0], 0)[1])) as sock:
        yield sock


def arrive(port: socket.socket, source: str, data: bytes, count: int, source_port: int = 0) -> int:
    """Sends `count` datagrams from `source` at once; how many the port gets."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((source, source_port))
        for _ in range(count):
            sock.sendto(data, ("::1" if ":" in source else "127.0.0.1", PORT))
    return len(received(port))


def counter(name: str) -> int:
    return int(run(f"nft list counter inet mpq_guard {name}").split("packets ")[1].split()[0])


def test_first_packets_are_limited_by_source(port: socket.socket) -> None:
    first = INITIAL + bytes(1193)
    assert arrive(port, "127.0.0.2", first, 100) in (40, 41)  # twice the rate at once
    assert counter("first") in (59, 60)
    assert arrive(port, "::1", first, 5) == 5, "another source, another family"


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, socket.IPPROTO_ICMP, socket.IPPROTO_SCTP])
def test_other_protocols_are_none_of_its_business(host: Host, protocol: int) -> None:
    """Where QUIC has its first byte, TCP acknowledges: one connection in sixteen looks like Initials."""
    segment = struct.pack("!HHIIBBHHH", 999, PORT, 1, 0xC1000000, 0x50, 0x10, 0, 0, 0)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as receiver,
    ):
        receiver.bind(("127.0.0.4", 0))
        receiver.setblocking(False)
        sender.bind(("127.0.0.2", 0))
        for _ in range(100):
            sender.sendto(segment, ("127.0.0.4", 0))
        assert len(received(receiver)) == 100
    assert counter("first") == counter("strangers") == 0


def test_strangers_are_limited_by_port_however_many_they_are(port: socket.socket) -> None:
    received = sum(arrive(port, f"127.0.1.{n}", SHORT + bytes(58), 1) for n in range(1, 200))
    assert 50 <= received < 70
    assert counter("strangers") == 199 - received


def test_what_was_dropped_is_told(host: Host, port: socket.socket) -> None:
    arrive(port, "127.0.0.2", INITIAL + bytes(1193), 100)
    assert host.guarded() == {"first": counter("first"), "strangers": 0}
    assert counter("first") > 0


def test_whom_the_hub_answers_is_known_and_whom_it_turns_away_is_not(port: socket.socket) -> None:
    noise = SHORT + bytes(58)
    port.sendto(bytes((0x41,)) * MAX_RESET, ("::ffff:127.0.0.3", 999))  # as large as a stateless reset can be
    port.sendto(bytes((0xC1,)) * 1200, ("::ffff:127.0.0.3", 999))  # a handshake's packet, or a Retry
    assert arrive(port, "127.0.0.3", noise, 200) < 70
    port.sendto(bytes((0x41,)) * (MAX_RESET + 1), ("::ffff:127.0.0.3", 999))
    assert arrive(port, "127.0.0.3", noise, 200, source_port=1234) == 200, "by address: a rebinding is no stranger"
    port.sendto(bytes((0x41,)) * (MAX_RESET + 1), ("::1", 999))
    assert arrive(port, "::1", noise, 200) == 200


def test_a_flood_is_not_tracked(port: socket.socket) -> None:
    """From outside: what leaves by a loopback is tracked there."""
    with closing(Namespace()) as outside:
        run(
            f"ip link add wan type veth peer name eth0 netns {outside.path}",
            "ip address add 192.0.2.254/24 dev wan",
            "ip link set wan up",
        )
        with outside.entered():
            run("ip link set eth0 up", *(f"ip address add 192.0.2.{n}/24 dev eth0" for n in range(1, 30)))
            for n in range(1, 30):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind((f"192.0.2.{n}", 999))
                    sock.sendto(SHORT + bytes(58), ("192.0.2.254", PORT))
    port.setblocking(True)
    for _ in range(29):
        _, (host, source_port, *_) = port.recvfrom(100)
        port.sendto(bytes(30), (host, source_port))
    assert run("sysctl -n net.netfilter.nf_conntrack_count").strip() == "0"


def test_what_packets_put_into_its_sets_is_no_change(host: Host, port: socket.socket) -> None:
    before = host.changes
    port.sendto(bytes((0x41,)) * 60, ("::ffff:127.0.0.3", 999))
    arrive(port, "127.0.0.2", INITIAL + bytes(1193), 3)
    host.up()
    assert host.changes == before
    assert "127.0.0.3" in run("nft list set inet mpq_guard known4")


def test_a_reload_of_sites_forgets_nobody_and_of_limits_applies_them(host: Host, port: socket.socket) -> None:
    port.sendto(bytes((0x41,)) * 60, ("::ffff:127.0.0.3", 999))
    host.apply(make_plan(parse(f'{HUB}[[site]]\nname = "ship1"\nnumber = 0\n')))
    assert "127.0.0.3" in run("nft list set inet mpq_guard known4")
    host.apply(make_plan(parse(HUB.replace("first_packets = 20", "first_packets = 5"))))
    assert arrive(port, "127.0.0.4", INITIAL + bytes(1193), 100) in (10, 11)


def test_somebody_removes_the_table(host: Host, port: socket.socket) -> None:
    run("nft delete table inet mpq_guard")
    host.up()
    assert arrive(port, "127.0.0.2", INITIAL + bytes(1193), 100) in (40, 41)


def test_nothing_stays_after_a_stop(plan: HostPlan, hub_namespace: object) -> None:
    host = Host(plan, LOG)
    host.up()
    assert "mpq_guard" in run("nft list tables")
    host.down("closed")
    assert run("nft list tables").split() == ["table", "inet", "mpq"]


@pytest.mark.parametrize("which", [0, 1], ids=["lower", "upper"])
def test_the_kernel_takes_all_numbers_at_their_bounds(hub_namespace: object, which: int) -> None:
    table = tomllib.loads(HUB)
    with hosted(plan_with(table, changes_of(table)[which::2])) as host:
        before = host.changes
        host.up()
        assert host.changes == before
