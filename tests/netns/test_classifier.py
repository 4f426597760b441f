"""The classifier in a real kernel: what `classify` says is what happens."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest

from mpq_supervisor.classifier import Packet
from mpq_supervisor.classify import decide
from mpq_supervisor.config import ConfigError, parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import run
from tests.netns.site import SERVER, SITE, Net, hosted, lan_socket, read_packet, readable, tun_fd, wait_for

pytestmark = pytest.mark.root

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "esp": 50, "gre": 47}
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32")
NETWORKS6 = ("2001:db8::/32", "2001:db8:1::/48", "fd00::/8", "fd00:1::/32", "2001:db8:1::7/128")
PORTS = (1, 22, 80, 443, 5060, 5061, 10000, 15000, 20000, 65535)
VLANS = """
lan = [
    { name = "lan1", interface = "lan1", wan = "wan4" },
    { name = "voice", interface = "lan.11", wan = "wan4", class = "critical" },
    { name = "data", interface = "lan.12", wan = "wan4", class = "bulk" },
    { name = "rest", interface = "lan.13", wan = "wan4", class = "default" },
]
"""


@pytest.mark.parametrize("fields", [("ports",), ("destination",), ("ports", "source", "destination", "dscp")])
def test_the_kernel_decides_as_classify_says(net: Net, fields: tuple[str, ...]) -> None:
    """Forty rules, many of which overlap, against packets that lie on their edges."""
    chance = random.Random(5)
    plan = make_plan(parse(_with(SITE, [_random_rule(chance, n, fields) for n in range(40)], _sets(chance))))
    # Without ports there is one flow between two addresses, and only its first packet is classified.
    packets = list({_flow(n, p): p for n, p in enumerate(_random_packet(chance) for _ in range(1500))}.values())
    with net.site.entered(), hosted(plan) as host:
        _send(net, packets)
        expected = Counter(f"rule_{decide(plan, plan.lans[0], packet)[0]}" for packet in packets)
        counted = Counter({name: n for name, n in host.counters().items() if name.startswith("rule_")})
    assert len(expected) > 8
    assert counted == expected


def test_a_thousand_rules_and_five_hundred_prefixes_are_one_transaction(net: Net) -> None:
    rules = [f'{{ class = "critical", name = "sip-{n}", protocol = "udp", ports = [{n}] }}' for n in range(1, 501)]
    rules += [f'{{ class = "default", destination = ["198.18.{n}.0/24"] }}' for n in range(250)]
    rules += [f'{{ class = "bulk", source = ["@s{n % 10}"], dscp = [{n % 64}] }}' for n in range(250)]
    prefixes = [[f"10.{n}.{m}.0/24" for m in range(0, 100, 2)] for n in range(10)]
    sets = "".join(f"[set.s{n}]\nprefixes = {entry}\n" for n, entry in enumerate(prefixes))
    plan = make_plan(parse(_with(SITE, rules, sets)))
    with net.site.entered(), hosted(make_plan(parse(SITE))) as host:
        before = host.changes
        host.apply(plan)
        assert host.changes == before + 1
        packets = [
            Packet("172.16.1.9", SERVER, "udp", 77),
            Packet("172.16.1.9", "198.18.7.1", "udp", 9999),
            Packet("10.3.98.1", SERVER, "udp", 9999, dscp=23),
        ]
        _send(net, packets)
        hit = {name for name, count in host.counters().items() if count and name.startswith("rule_")}
        assert hit == {"rule_sip-77", "rule_507", "rule_773"}
        host.up()
        assert host.changes == before + 1


def test_a_rule_with_an_error_names_its_path_and_changes_nothing(site: Host) -> None:
    before = run("nft list ruleset")
    good = '{ class = "bulk", protocol = "tcp", ports = [7] }'
    with pytest.raises(ConfigError) as error:
        parse(_with(SITE, [good] * 700 + ['{ class = "bulk", source = ["10.0.0.1/8"] }'] + [good] * 299))
    assert [problem.path for problem in error.value.problems] == ["rule[700].source[0]"]
    assert run("nft list ruleset") == before


def test_an_interface_of_a_class_leads_into_its_tunnel_and_back(net: Net) -> None:
    """The same prefix is behind all three, as behind a router with a trunk; so is the same flow, in two classes."""
    plan = make_plan(parse(SITE[: SITE.index("lan =")] + VLANS))
    for n in (11, 12, 13):
        with net.site.entered():
            run(
                f"ip link add lan.{n} type veth peer name r.{n} netns {net.lan.path}",
                f"ip address add 172.16.{n}.1/30 dev lan.{n}",
                f"ip link set lan.{n} up",
            )
        with net.lan.entered():
            run(f"ip address add 172.16.{n}.2/30 dev r.{n}", f"ip link set r.{n} up")
            run(f"ip route add default via 172.16.{n}.1 dev r.{n} table {n}")
    with net.lan.entered():
        run("ip address add 192.168.1.9/24 dev lo", "sysctl -qw net.ipv4.conf.all.rp_filter=0")
    with net.site.entered():
        run(*(f"ip route add 192.168.1.0/24 via 172.16.{n}.2 dev lan.{n} metric {n}" for n in (11, 12, 13)))
    with net.site.entered(), hosted(plan) as host:
        fds = {name: tun_fd(host, plan, name) for name in ("cr1", "br1", "df1", "cr2", "br2", "df2")}
        ports = {}
        for n, name in ((11, "cr1"), (12, "br1"), (13, "df1")):
            with net.lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, n)
                with suppress(RuntimeError):
                    run(f"ip rule add fwmark {n} lookup {n}")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("192.168.1.9", 4000))
                sock.sendto(b"x", (SERVER, 5060))
            got, packet = read_packet(fds)
            assert got == name
            assert socket.inet_ntoa(packet[12:16]) == _inner(plan, name)
            ports[name] = struct.unpack_from(">H", packet, 20)[0]
        assert set(ports.values()) == {4000}, "three connections, none of which had to give way to another"
        expected = [("voice", "critical", "cr1"), ("data", "bulk", "br1"), ("rest", "default", "df1")]
        said = host.classify(Packet("192.168.1.9", SERVER, "udp", 5060))
        assert [(v.lan, v.traffic_class, v.tunnel) for v in said] == expected


def test_what_is_for_this_host_is_what_the_kernel_takes(site: Host) -> None:
    run("ip address add 100.64.4.77/24 dev wan4", "ip address add 192.0.2.7/32 dev lo")
    own = ("172.16.1.1", "172.16.1.255", "100.64.4.2", "100.64.4.77", "100.64.4.255", "192.0.2.7", "10.200.10.1")
    for destination in (*own, "100.64.4.1", "10.200.10.254", SERVER):
        (said,) = site.classify(Packet("172.16.1.9", destination, "udp", 9))
        does = run(f"ip route get {destination} from 172.16.1.9 iif lan1 mark 0x220000")
        assert said.local is (destination in own) is does.startswith(("local", "broadcast")), destination
    with pytest.raises(ValueError, match="is this host's"):
        site.classify(Packet("100.64.4.77", SERVER, "udp", 9))


def test_what_no_tunnel_takes_is_refused_and_counted_by_class(net: Net, site: Host) -> None:
    run("ip route del default dev br1 table 111")
    with lan_socket(net, "172.16.1.9") as sock:
        for port in (9, 9, 5060):
            sock.sendto(b"x", (SERVER, port))
    with lan_socket(net, "172.16.1.9") as sock:
        sock.sendto(b"x", ("172.16.1.1", 9))
        sock.sendto(b"x", ("172.16.2.9", 9))
    assert wait_for(lambda: site.counters()["refused_bulk"] == 2)
    assert site.counters()["refused_critical"] == 0


def test_a_class_without_a_tunnel_reaches_this_host_and_the_lans(net: Net) -> None:
    """All else of it is refused and counted."""
    plan = make_plan(parse(f'{SITE}matrix = {{ wan4 = ["critical"] }}\n'))
    with net.site.entered(), hosted(plan) as host, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("172.16.1.1", 9))
        with lan_socket(net, "172.16.2.9") as other, lan_socket(net, "172.16.1.9") as sock:
            for end in (("172.16.1.1", 9), other.getsockname(), (SERVER, 9)):
                sock.sendto(b"x", end)
            assert wait_for(lambda: readable(service) and readable(other))
            assert wait_for(lambda: host.counters()["refused_bulk"] == 1)


# ---------------------------------------------------------------- helpers


def _inner(plan: HostPlan, name: str) -> str:
    return next(t.inner4 or "" for t in plan.tunnels if t.name == name)


def _with(text: str, rules: list[str], sets: str = "") -> str:
    return f"{text}rule = [{', '.join(rules)}]\n{sets}"


def _sets(chance: random.Random) -> str:
    kinds = (NETWORKS, NETWORKS6, (*NETWORKS, *NETWORKS6))
    return "".join(
        f"[set.s{n}]\nprefixes = {chance.sample(kind, 3)}\nports = {chance.sample(PORTS, 2)}\n"
        for n, kind in enumerate(kinds)
    )


def _random_rule(chance: random.Random, number: int, fields: tuple[str, ...]) -> str:
    """Of the fields each with a chance, but one at least."""
    networks = chance.choice((NETWORKS, NETWORKS6))
    first, last = sorted(chance.sample(PORTS, 2))
    values = {
        "ports": chance.choice([[first], [f"{first}-{last}"], [f"{first}-{last}", 22], ["@s0", last]]),
        "dscp": chance.sample([0, 8, 46], 1),
        "source": chance.choice([chance.sample(networks, 2), ["@s2"], ["@s2", networks[0]]]),
        "destination": chance.choice([chance.sample(networks, 1), chance.sample(networks, 2)]),
    }
    given = [field for field in fields if chance.random() < 0.4] or [fields[-1]]
    protocols = ("tcp", "udp", "sctp") if "ports" in given else tuple(PROTOCOLS)
    text = [f'class = "{chance.choice(["critical", "default", "bulk"])}"', f'name = "r-{number}"']
    text += [f'protocol = "{chance.choice(protocols)}"'] if "ports" in given or chance.random() < 0.2 else []
    return f"{{ {', '.join([*text, *(f'{field} = {values[field]}' for field in given)])} }}"


def _random_packet(chance: random.Random) -> Packet:
    networks = chance.choice((NETWORKS[:5], NETWORKS6))
    source, destination = (_edge(chance, chance.choice(networks)) for _ in range(2))
    protocol = chance.choice([p for p in PROTOCOLS if p != ("icmpv6" if networks is NETWORKS6 else "icmp")])
    port = max(1, min(65535, chance.choice(PORTS) + chance.choice((-1, 0, 0, 1))))
    with_port = protocol in ("tcp", "udp", "sctp")
    return Packet(source, destination, protocol, port if with_port else None, chance.choice((0, 8, 46)))


def _flow(number: int, packet: Packet) -> tuple[object, ...]:
    return (number,) if packet.port else (packet.source, packet.destination, packet.protocol)


def _edge(chance: random.Random, network: str) -> str:
    first, last = ip_network(network)[0], ip_network(network)[-1]
    return str(chance.choice((first + 1, last - 1, last + 1) if first != last else (first, first + 1)))


def _send(net: Net, packets: list[Packet]) -> None:
    """Each as the first packet of a flow, from behind lan1."""
    with (
        net.lan.entered(),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw4,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw6,
    ):
        raw4.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan1")
        raw6.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan1")
        for number, packet in enumerate(packets):
            body = _body(packet, 1024 + number)
            ends = ip_address(packet.source).packed + ip_address(packet.destination).packed
            protocol = PROTOCOLS[packet.protocol]
            if ":" in packet.source:
                head = struct.pack(">IHBB", 6 << 28 | packet.dscp << 22, len(body), protocol, 64)
                raw6.sendto(head + ends + body, (packet.destination, 0))
            else:
                head = struct.pack(">BBHHHBBH", 0x45, packet.dscp << 2, 20 + len(body), number, 0, 64, protocol, 0)
                raw4.sendto(head + ends + body, (packet.destination, 0))


def _body(packet: Packet, source_port: int) -> bytes:
    ports = struct.pack(">HH", source_port, packet.port or 0)
    match packet.protocol:
        case "tcp":
            return ports + struct.pack(">IIBBHHH", 1, 0, 5 << 4, 2, 1000, 0, 0)
        case "udp":
            return ports + struct.pack(">HH", 8, 0)
        case _:
            return ports + bytes(16)
