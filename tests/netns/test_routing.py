"""Which way a packet leaves, by a real kernel's tables: WANs, tunnels that are down, the hub."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import closing

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import Namespace, run
from tests.netns.site import (
    DISH,
    FALLBACK,
    SERVER,
    SITE,
    TUNS,
    Capture,
    Net,
    hosted,
    is_told_no,
    lan_socket,
    provoke,
    read_packet,
    readable,
    tun_fd,
    tunnel,
    udp_packet,
    wait_for,
    write_packet,
)

pytestmark = pytest.mark.root


# ---------------------------------------------------------------- WANs


@pytest.mark.parametrize("choose", ["interface", "address"])
def test_every_dish_is_reached_by_its_own_wan(net: Net, site: Host, choose: str) -> None:
    """All have the same address. The two WANs' namespaces are one here, so the dishes differ by what hears them."""
    for k in (4, 5):
        with (
            net.internet.entered(),
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as heard,
            net.site.entered(),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            heard.bind((f"r{k}", 0x0800))
            heard.settimeout(1)
            if choose == "interface":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"wan{k}".encode())
            else:
                sock.bind((f"100.64.{k}.2", 0))
            sock.sendto(b"status?", (DISH, 80))
            packet = heard.recv(100)
        assert socket.inet_ntoa(packet[12:16]) == f"100.64.{k}.2"
        assert socket.inet_ntoa(packet[16:20]) == DISH


def test_a_wan_without_a_default_route_sends_nothing_by_another(net: Net, site: Host) -> None:
    run("ip route del default dev wan4")
    site.up()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("100.64.4.2", 0))
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            sock.sendto(b"x", (SERVER, 9))
        sock.sendto(b"x", ("100.64.4.1", 9))
    run("ip -6 route get fe80::1 oif wan4 from 2001:db8:4::2")


def test_what_a_route_of_a_wan_says_of_its_path_is_kept(net: Net, site: Host) -> None:
    said = "mtu lock 1300 advmss 1200 initcwnd 20"
    run("ip route del default dev wan4", f"ip route add default via 100.64.4.1 dev wan4 metric 4 {said}")
    run(f"ip -6 route add 2001:db8:99::/48 via 2001:db8:4::1 dev wan4 {said}")
    site.up()
    changes = site.changes
    site.up()
    assert site.changes == changes
    assert said in run("ip route show default table 100")
    assert said in run("ip -6 route show 2001:db8:99::/48 table 100")


def test_what_is_answered_from_an_address_that_has_just_come_back_takes_no_other_wan(net: Net, site: Host) -> None:
    """Before mpq has looked: nothing leads from it but what was there."""
    run("ip address flush dev wan5 scope global")
    site.up()
    run("ip address add 100.64.5.2/24 dev wan5", "ip route add default via 100.64.5.1 dev wan5 metric 5")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("100.64.5.2", 0))
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            sock.sendto(b"x", (SERVER, 9))
        site.up()
        sock.sendto(b"x", (SERVER, 9))


def test_what_comes_by_a_wan_for_somebody_else_goes_out_by_none(net: Net, site: Host) -> None:
    with net.internet.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        run("ip route add 192.0.2.77 via 100.64.5.2 dev r5")
        sock.sendto(b"x", ("192.0.2.77", 9))
    assert wait_for(lambda: site.counters()["transit"] == 1)


def test_two_wans_with_the_same_address_and_gateway(net: Net) -> None:
    """As two routers of one make have it."""
    with net.site.entered():
        for k in (4, 5):
            run(
                f"ip address flush dev wan{k} scope global",
                f"ip address add 192.168.1.9/24 dev wan{k} metric {k}",
                f"ip route add default via 192.168.1.1 dev wan{k} metric {k}",
            )
    plan = make_plan(parse(SITE))
    with (
        net.internet.entered(),
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0806)) as heard,
        net.site.entered(),
        hosted(plan) as host,
    ):
        for k, name in ((4, "cr1"), (5, "cr2")):
            heard.bind((f"r{k}", 0x0806))
            fds = host.tunnel_fds(tunnel(plan, name), 0)
            assert fds is not None
            os.write(fds[1], b"x")  # the gateway is not there: it is asked for, on the WAN of the socket
            heard.settimeout(1)
            assert socket.inet_ntoa(heard.recv(100)[24:28]) == "192.168.1.1"


# ---------------------------------------------------------------- a tunnel that is down


def test_traffic_of_a_tunnel_that_is_down_takes_the_next_and_stays_where_it_is_answered(net: Net) -> None:
    plan = make_plan(parse(FALLBACK))
    with net.site.entered(), hosted(plan) as host, lan_socket(net, "172.16.1.9") as sock:
        fds = {name: tun_fd(host, plan, name) for name in TUNS}

        def way(port: int = 5060) -> tuple[str, bytes]:
            for _ in range(2):  # the kernel drops the one packet that shows it that the way has changed
                sock.sendto(b"x", (SERVER, port))
                name, packet = read_packet(fds, timeout=0.1)
                if name:
                    return name, packet
            return "", b""

        assert way()[0] == "cr1"
        host.divert(frozenset({"cr1"}))
        name, packet = way()
        assert name == "cr2"
        assert socket.inet_ntoa(packet[12:16]) == tunnel(plan, "cr2").inner4
        assert way(9)[0] == "br1", "the other classes have not moved"
        port = struct.unpack_from(">H", packet, 20)[0]
        write_packet(fds["cr2"], udp_packet(SERVER, tunnel(plan, "cr2").inner4 or "", 5060, port))
        assert wait_for(lambda: readable(sock))
        host.divert(frozenset())
        assert way()[0] == "cr2", "answered there, it stays"
        with lan_socket(net, "172.16.1.9") as other:
            other.sendto(b"x", (SERVER, 5060))
            assert read_packet(fds)[0] == "cr1", "what begins now does not"


def test_with_all_tunnels_down_nothing_leaves_in_clear_and_all_is_counted(net: Net, capture: Capture) -> None:
    plan = make_plan(parse(FALLBACK))
    with net.site.entered(), hosted(plan) as host:
        host.divert(frozenset(TUNS))
        before = host.changes
        host.divert(frozenset(TUNS))
        assert host.changes == before
        capture.clear_packets()
        assert is_told_no(net)
        provoke(net)
        assert capture.clear_packets() == []
        counters = host.counters()
        assert counters["refused_critical"] >= 13  # two kinds of critical, three destinations, two LANs, and ours
        assert counters["refused_bulk"] >= 6
        assert counters["refused_default"] >= 2


# ---------------------------------------------------------------- the hub


def test_routed_prefixes_of_sites_are_masqueraded_where_the_hub_is_told_to(net: Net, plan: HostPlan) -> None:
    """Both modes of `[nat]` in the rules of a real kernel; what they do is in test_ruleset."""
    hub = """
role = "hub"
identity = { certificate = "/a/hub.crt", key = "/a/hub.key", ca = "/a/ca.crt" }
listener = [{ name = "mt4", port = 45010, ipv4 = "10.200.10.0/24" }]
site = [{ name = "ship1", number = 0, lan = [{ prefix = "172.16.1.0/24", class = "bulk" }] }]
nat = { interface = "srv", lans = true }
"""
    with closing(Namespace()) as namespace, namespace.entered(), closing(Namespace()) as server:
        run(f"ip link add srv type veth peer name eth0 netns {server.path}")
        run("ip address add 203.0.113.1/24 dev srv", "ip link set srv up")
        with server.entered():
            run(f"ip address add {SERVER}/24 dev eth0", "ip link set eth0 up")
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((SERVER, 7))
        hub_plan = make_plan(parse(hub))
        with sock, hosted(hub_plan) as host:
            fd = host.hub_fds(next(w for w in hub_plan.hub_workers if w.tun == "mt4b"), 0)[0]
            write_packet(fd, udp_packet("172.16.1.9", SERVER, 1000, 7))
            sock.settimeout(1)
            assert sock.recvfrom(100)[1][0] == "203.0.113.1"
