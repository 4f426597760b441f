"""Which way a packet of a LAN takes, there and back, by a real kernel's tables: also where LANs share a prefix."""

from __future__ import annotations

import socket
import struct
from contextlib import closing, suppress

import pytest

from mpq_supervisor.classifier import Packet
from mpq_supervisor.config import parse
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import Namespace, run
from tests.netns.site import (
    DISH,
    FALLBACK,
    NO_LANS,
    SERVER,
    SITE,
    TUNS,
    Net,
    hosted,
    lan_socket,
    read_packet,
    received,
    tun_fd,
    tunnel,
    udp_packet,
    wait_for,
    write_packet,
)

pytestmark = pytest.mark.root


def test_plain_tunnels_join_a_lan_and_a_wan_each(net: Net) -> None:
    """LAN N by WAN N, with a transit network of four addresses; behind it another router."""
    plan = make_plan(parse(SITE.replace("lan = [", "matrix = { wan4 = [], wan5 = [] }\nlan = [")))
    for n in (1, 2):
        with net.site.entered():
            run(f"ip address flush dev lan{n}", f"ip address add 172.16.{n}.1/30 dev lan{n}")
            run(f"ip route add 192.168.{n}.0/24 via 172.16.{n}.2")
        with net.lan.entered():
            run(f"ip address flush dev lan{n}", f"ip address add 172.16.{n}.2/30 dev lan{n}")
            run(f"ip address add 192.168.{n}.9/24 dev lo")
            run(*(f"ip rule add from {source} lookup {n}" for source in (f"192.168.{n}.9", f"172.16.{n}.2")))
            run(f"ip route replace default via 172.16.{n}.1 table {n}")
    with net.site.entered(), hosted(plan) as host:
        fds = {name: tun_fd(host, plan, name) for name in ("mpq4", "mpq5")}
        for n, name in ((1, "mpq4"), (2, "mpq5")):
            for source in (f"172.16.{n}.2", f"192.168.{n}.9"):
                with lan_socket(net, source) as sock:
                    sock.sendto(b"x", (SERVER, 5060))
                    assert read_packet(fds)[0] == name


def test_addresses_and_prefixes_of_a_lan_are_made_and_taken_away(net: Net) -> None:
    lan = 'lan = [{ name = "lan1", interface = "lan1", wan = "wan4", address = ["172.16.7.1/30", "fd00:7::1/64"], '
    plan = make_plan(parse(f'{NO_LANS}{lan}prefixes = ["192.168.7.0/24"], gateway = "172.16.7.2" }}]'))
    with net.site.entered():
        before = run("ip address show dev lan1")
        with hosted(plan) as host:
            shown = run("ip address show dev lan1")
            assert "inet 172.16.7.1/30" in shown
            assert "inet6 fd00:7::1/64" in shown
            assert "via 172.16.7.2 dev lan1" in run("ip route get 192.168.7.9 from 10.200.10.1")
            assert "dev lan1" in run("ip route get 172.16.7.2 from 10.200.10.1"), (
                "the transit network is a LAN's, too"
            )
            changes = host.changes
            host.up()
            assert host.changes == changes
            host.down("closed")
            assert "inet 172.16.7.1/30" in run("ip address show dev lan1")
        with hosted(plan):
            pass
        assert [line for line in run("ip address show dev lan1").splitlines() if "inet" in line] == [
            line for line in before.splitlines() if "inet" in line
        ]


def test_a_lan_that_is_not_masqueraded_keeps_its_addresses_and_its_tunnel(net: Net) -> None:
    """Another tunnel would carry them to a hub that knows them by this one only."""
    text = SITE.replace('wan = "wan5" }]', 'wan = "wan5", masquerade = false }]')
    plan = make_plan(parse(text.replace('"wan5" }]', '"wan5", fallback = ["wan4"] }]', 1)))
    with net.site.entered(), hosted(plan) as host:
        fds = {name: tun_fd(host, plan, name) for name in TUNS}
        for n, source in ((1, tunnel(plan, "cr1").inner4), (2, "172.16.2.9")):
            with lan_socket(net, f"172.16.{n}.9") as sock:
                sock.sendto(b"x", (SERVER, 5060))
                assert socket.inet_ntoa(read_packet(fds)[1][12:16]) == source
        host.divert(frozenset({"cr2"}))
        for _ in range(2):
            with lan_socket(net, "172.16.2.9") as sock, suppress(OSError):
                sock.sendto(b"x", (SERVER, 5060))
        assert read_packet(fds, timeout=0.1) == ("", b"")
        assert host.counters()["refused_critical"] == 2
        host.divert(frozenset())
        with lan_socket(net, "172.16.2.9") as sock:
            sock.sendto(b"x", (SERVER, 5060))
            assert read_packet(fds)[0] == "cr2"


ONE_PREFIX = {
    11: ("wan4", "critical", "cr1"),
    12: ("wan4", "bulk", "br1"),
    13: ("wan4", None, "cr1"),
    14: ("wan4", "critical", "cr1"),
    21: ("wan5", "critical", "cr2"),
    22: ("wan5", None, "cr2"),
}
"""LANs by number: their WAN, their class, and the tunnel of UDP 5060."""


def test_answers_find_the_lan_that_asked_among_several_with_one_prefix(net: Net) -> None:
    """The same flow in each; the main table knows none. Also from this host itself, and while others carry."""
    text = FALLBACK[: FALLBACK.index("lan =")] + "".join(
        f'[[lan]]\nname = "lan{n}"\ninterface = "lan.{n}"\nwan = "{wan}"\naddress = "172.16.{n}.1/30"\n'
        f'prefixes = ["192.168.1.0/24"]\ngateway = "172.16.{n}.2"\n' + (f'class = "{name}"\n' if name else "")
        for n, (wan, name, _) in ONE_PREFIX.items()
    )
    plan = make_plan(parse(text))
    with closing(Namespace()) as router:
        with net.site.entered():
            for n in ONE_PREFIX:
                run(f"ip link add lan.{n} type veth peer name r{n} netns {router.path}", f"ip link set lan.{n} up")
            run("sysctl -qw net.ipv4.conf.all.rp_filter=2")  # as Debian has it
        with router.entered():
            run("ip address add 192.168.1.9/24 dev lo", "sysctl -qw net.ipv4.conf.all.rp_filter=0")
            for n in ONE_PREFIX:
                run(f"ip address add 172.16.{n}.2/30 dev r{n}", f"ip link set r{n} up")
        with net.site.entered(), hosted(plan) as host:
            run("sysctl -qw net.ipv4.fwmark_reflect=0")
            assert "net.ipv4.fwmark_reflect is 0, must be 1: sysctl -w net.ipv4.fwmark_reflect=1" in host.check()
            run("sysctl -qw net.ipv4.fwmark_reflect=1")
            fds = {name: tun_fd(host, plan, name) for name in TUNS}
            for down in (set[str](), {"cr1"}):
                host.divert(frozenset(down))
                said = {v.lan: v.tunnel for v in host.classify(Packet("192.168.1.9", SERVER, "udp", 5060))}
                for n, (_, _, name) in ONE_PREFIX.items():
                    carrier = "cr2" if name in down else name
                    assert said[f"lan{n}"] == carrier
                    with router.entered():
                        run(f"ip route replace default via 172.16.{n}.1")
                        _is_answered_where_it_asked(plan, fds, n, carrier)


def _is_answered_where_it_asked(plan: HostPlan, fds: dict[str, int], n: int, carrier: str) -> None:
    """By a server behind the tunnel `carrier`, and by the site, also by an error; from behind `lan.N`."""
    ping = struct.pack(">BBHHH", 8, 0, ~(0x800 + n) & 0xFFFF, n, 0)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as heard,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw,
    ):
        heard.bind((f"r{n}", 0x0800))
        heard.setblocking(False)
        sock.bind(("192.168.1.9", 4000))
        raw.bind(("192.168.1.9", 0))
        raw.sendto(ping, (f"172.16.{n}.1", 0))
        assert wait_for(lambda: f"172.16.{n}.1" in _senders(heard)), n
        sock.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER: IP_PMTUDISC_PROBE
        sock.sendto(bytes(1450), (SERVER, 5060))
        assert wait_for(lambda: any(packet[20:22] == b"\3\4" for packet in received(heard))), n
        name, packet = "", b""
        for _ in range(2):  # the kernel drops the one packet that shows it that the way has changed
            sock.sendto(b"x", (SERVER, 5060))
            name, packet = read_packet(fds, timeout=0.1)
            if name:
                break
        assert name == carrier, n
        port = struct.unpack_from(">H", packet, 20)[0]
        write_packet(fds[name], udp_packet(SERVER, tunnel(plan, name).inner4 or "", 5060, port))
        assert wait_for(lambda: SERVER in _senders(heard)), (n, carrier)


def _senders(sock: socket.socket) -> list[str]:
    return [socket.inet_ntoa(packet[12:16]) for packet in received(sock)]


WITHIN = """
[[lan]]
name = "lan1"
interface = "lan1"
wan = "wan4"
prefixes = ["172.20.0.0/14", "192.168.0.0/16"]
gateway = "172.16.1.9"
[[lan]]
name = "lan2"
interface = "lan2"
wan = "wan5"
[[lan]]
name = "lan3"
interface = "lan3"
wan = "wan5"
address = "172.21.0.1/16"
"""
"""The third is in the prefixes of the first; so is a network of this host that is no LAN, and the dishes' address."""


def test_the_longest_prefix_leads_among_lans_and_what_else_the_host_has(net: Net) -> None:
    plan = make_plan(parse(NO_LANS + WITHIN))
    with closing(Namespace()) as inside, closing(Namespace()) as office:
        with net.site.entered():
            run(f"ip link add lan3 type veth peer name e0 netns {inside.path}", "ip link set lan3 up")
            run(f"ip link add mgmt type veth peer name e0 netns {office.path}", "ip link set mgmt up")
            run("ip address add 172.22.0.1/16 dev mgmt")
        for namespace, n in ((inside, 21), (office, 22)):
            with namespace.entered():
                run(
                    f"ip address add 172.{n}.0.9/16 dev e0",
                    "ip link set e0 up",
                    f"ip route add default via 172.{n}.0.1",
                )
        with net.site.entered(), hosted(plan) as host:
            changes = host.changes
            host.up()
            assert host.changes == changes
            _echoes("172.22.0.9")
            assert "dev lan1" in run("ip route get 172.23.0.9")
            for choose in ("oif wan4", "from 100.64.4.2"):
                assert "dev wan4" in run(f"ip route get {DISH} {choose}")
            with net.lan.entered():
                _echoes("172.21.0.9", "172.16.1.9")
                _echoes("172.21.0.9", "172.16.2.9")
                _echoes("100.64.4.2", "172.16.1.9")
            with inside.entered():
                _echoes("172.16.1.9")
            said = {
                to: str(*host.classify(Packet("172.16.1.9", to, "udp", 9))) for to in ("172.21.0.9", "172.22.0.9")
            }
            assert said == {
                "172.21.0.9": "lan1: rule other, bulk, for this host or a LAN",
                "172.22.0.9": "lan1: rule other, bulk, br1",
            }
            host.down("closed")
            with net.lan.entered():
                _echoes("172.21.0.9", "172.16.1.9")


def test_answers_of_a_lan_find_the_other_that_began_among_several_with_one_prefix(net: Net) -> None:
    """An echo of each, and of each an answer by TCP of a WAN's address."""
    text = NO_LANS + "".join(
        f'[[lan]]\nname = "{name}"\ninterface = "v{name}"\nwan = "wan4"\naddress = "{address}"\n'
        for name, address in {"a": "192.168.1.1/24", "b": "192.168.1.1/24", "c": "172.16.9.1/24"}.items()
    )
    with closing(Namespace()) as a, closing(Namespace()) as b, closing(Namespace()) as c:
        for name, namespace, subnet in (("a", a, "192.168.1"), ("b", b, "192.168.1"), ("c", c, "172.16.9")):
            with net.site.entered():
                run(f"ip link add v{name} type veth peer name e0 netns {namespace.path}", f"ip link set v{name} up")
            with namespace.entered():
                run(
                    f"ip address add {subnet}.9/24 dev e0",
                    "ip link set e0 up",
                    f"ip route add default via {subnet}.1",
                )
        with net.site.entered(), hosted(make_plan(parse(text))):
            with socket.create_server(("100.64.4.2", 8000)):
                for namespace in (a, b, a):
                    with namespace.entered():
                        _echoes("172.16.9.9")
                        socket.create_connection(("100.64.4.2", 8000), timeout=2, source_address=("", 0)).close()
            with c.entered():
                _echoes("192.168.1.9")


def _echoes(address: str, source: str | None = None) -> None:
    run(f"ping -c 1 -W 2 {f'-I {source} ' if source else ''}{address}")
