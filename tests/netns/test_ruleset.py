"""Traffic through a real kernel's tables: `ruleset`, `nft` and the rules of `network`."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import Namespace, run
from tests.netns.site import (
    LOG,
    SERVER,
    SITE,
    TUNS,
    Net,
    lan_socket,
    read_packet,
    readable,
    tun_fd,
    tunnel,
    udp_packet,
    wait_for,
    write_packet,
)

pytestmark = pytest.mark.root

HUB = """
role = "hub"
identity = { certificate = "/a/hub.crt", key = "/a/hub.key", ca = "/a/ca.crt" }
listener = [{ name = "mt4", port = 45010, ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64" }]
nat = { interface = "srv" }
[[site]]
name = "ship1"
number = 0
"""


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Net, Host]]:
    """One site for all tests here, none of which changes it for the others."""
    with closing(Net()) as net:
        with net.site.entered():
            host = Host(make_plan(parse(SITE)), LOG)
            host.up()
        yield net, host
        with net.site.entered():
            host.down("open")


@pytest.fixture
def net(running: tuple[Net, Host]) -> Net:
    return running[0]


@pytest.fixture
def site(running: tuple[Net, Host]) -> Iterator[Host]:
    with running[0].site.entered():
        yield running[1]


def test_lan_traffic_takes_the_tunnel_of_its_wan_and_class(net: Net, site: Host, plan: HostPlan) -> None:
    fds = {name: tun_fd(site, plan, name) for name in TUNS}
    cases = [(1, 5060, 0, "cr1"), (1, 9, 46, "cr1"), (1, 9, 0, "br1"), (2, 12345, 0, "cr2"), (2, 9, 0, "br2")]
    for n, port, dscp, name in cases:
        with lan_socket(net, f"172.16.{n}.9", dscp=dscp) as sock:
            sock.sendto(b"x", (SERVER, port))
            got, packet = read_packet(fds)
        assert got == name, (n, port, dscp)
        assert socket.inet_ntoa(packet[12:16]) == tunnel(plan, name).inner4, "masqueraded"
    with lan_socket(net, "172.16.1.9", socket.SOCK_STREAM) as sock:
        with suppress(BlockingIOError):
            sock.connect((SERVER, 443))
        got, packet = read_packet(fds)
    assert got == "df1"
    assert struct.unpack_from(">H", packet, 42) == (1360,), "MSS clamped to the tunnel's MTU"


def test_ipv6_of_the_lan_takes_the_same_way(net: Net, site: Host, plan: HostPlan) -> None:
    fds = {name: tun_fd(site, plan, name) for name in TUNS}
    with net.lan.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("2001:db8:200::10", 5060))
        got, packet = read_packet(fds, version=6)
    assert got == "cr1"
    assert socket.inet_ntop(socket.AF_INET6, packet[8:24]) == "fd6d:7071::1", "masqueraded"


def test_a_flow_keeps_its_tunnel(net: Net, site: Host, plan: HostPlan) -> None:
    fds = {name: tun_fd(site, plan, name) for name in TUNS}
    with lan_socket(net, "172.16.1.9", dscp=46) as sock:
        sock.sendto(b"x", (SERVER, 9))
        assert read_packet(fds)[0] == "cr1"
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0)
        sock.sendto(b"x", (SERVER, 9))
        assert read_packet(fds)[0] == "cr1"


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_what_comes_by_a_tunnel_is_answered_by_it(net: Net, site: Host, plan: HostPlan, rp_filter: int) -> None:
    run(f"sysctl -qw net.ipv4.conf.all.rp_filter={rp_filter} net.ipv4.conf.df2.rp_filter={rp_filter}")
    fds = {name: tun_fd(site, plan, name) for name in TUNS}
    with lan_socket(net, "172.16.1.9") as sock:
        port = sock.getsockname()[1]
        write_packet(fds["df2"], udp_packet(SERVER, "172.16.1.9", 7, port))
        assert wait_for(lambda: readable(sock))
        _data, peer = sock.recvfrom(100)
        sock.sendto(b"answer", peer)
        assert read_packet(fds)[0] == "df2"


def test_lans_reach_each_other_and_the_site(net: Net, site: Host) -> None:
    with lan_socket(net, "172.16.1.9") as sender, net.site.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("172.16.2.1", 0))
        sender.sendto(b"x", receiver.getsockname())
        receiver.settimeout(1)
        assert receiver.recvfrom(10)[1] == sender.getsockname()
        receiver.close()
    run("ip route add 172.16.9.0/24 via 172.16.2.9 dev lan2")  # behind a router in a LAN
    site.up()
    assert "via 172.16.2.9 dev lan2" in run("ip route get 172.16.9.1 from 172.16.1.9 iif lan1")


@pytest.fixture
def server(hub_namespace: Namespace) -> Iterator[socket.socket]:
    """A UDP server behind the hub."""
    with closing(Namespace()) as namespace:
        run(
            f"ip link add srv type veth peer name eth0 netns {namespace.path}",
            "ip address add 203.0.113.1/24 dev srv",
            "ip link set srv up",
        )
        with namespace.entered():
            run(f"ip address add {SERVER}/24 dev eth0", "ip link set eth0 up")
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.bind((SERVER, 7))
            sock.settimeout(1)
            yield sock


def test_hub_routes_and_masquerades(server: socket.socket) -> None:
    plan = make_plan(parse(HUB))
    host = Host(plan, LOG)
    host.up()
    before = host.changes
    host.up()
    assert host.changes == before
    fds = {worker.tun: host.hub_fds(worker, 0)[0] for worker in plan.hub_workers}
    write_packet(fds["mt4b"], udp_packet("10.200.10.5", SERVER, 1000, 7))
    data, peer = server.recvfrom(100)
    assert peer[0] == "203.0.113.1", "masqueraded"
    server.sendto(data, peer)
    assert read_packet(fds)[0] == "mt4b", "the answer goes to the TUN of the class"
    write_packet(fds["mt4b"], udp_packet("203.0.113.66", SERVER, 1000, 7))
    assert wait_for(lambda: "packets 1 bytes" in run("nft list counter inet mpq foreign"))
    assert "unreachable" in run("ip route show 10.200.10.0/24")
    host.down("open")
    assert "unreachable" not in run("ip route")
