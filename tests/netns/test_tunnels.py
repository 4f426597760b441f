"""Nine tunnels on the real kernel: what each carries, by which interface, and what that looks like outside."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product

import pytest

from mpq_supervisor import pki
from mpq_supervisor.lifecycle import State
from mpq_worker.contract import slot_of
from tests.netns.outer import sniffed
from tests.netns.product import System, ok, wan_of
from tools.ping import Stream
from tools.product import Product
from tools.sockets import Via
from tools.system import SIDES
from tools.topology import HUB, HUB6, LANS, SERVER, SERVER6, WANS, Role, lan_address
from tools.traffic import start_pings
from tools.transfer import Transfer
from tools.wait import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CRITICAL, DEFAULT, BULK = "cr", "df", "br"
NOISE = 5
"""Packets of the kernel's own (router solicitations, MLD) that a TUN may count meanwhile."""
INNER_MTU = 1400
UDP4, UDP6 = 28, 48  # bytes of IP and UDP header
IP_MTU, IPV6_MTU = 14, 24  # linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2


# ---------------------------------------------------------------- the nine


def test_nine_tunnels_are_up_and_carry_both_families_both_ways(system: System) -> None:
    site, hub = system.workers("site"), system.workers("hub")
    assert (len(site), len(hub)) == (9, 9)
    assert {worker.state for worker in (*site.values(), *hub.values())} == {State.UP}
    until(lambda: {tuple(s.site for s in w.sites) for w in system.workers("hub").values()} == {("ship1",)})
    up, down = [], []
    for name, tunnel in system.tunnels.items():
        for peer in tunnel.peers:
            up.append(Stream(name=f"{name} {peer}", target=peer, rate=20, via=Via(device=name)))
        down += [Stream(name=f"{name} {inner}", target=inner, rate=20) for inner in tunnel.inner]
    runs = [start_pings(system.lab, "site", up, 0.5), start_pings(system.lab, "hub", down, 0.5)]
    for run in runs:
        reports = run.result()
        assert len(reports) == 18
        assert {name: report.window().lost for name, report in reports.items()} == dict.fromkeys(reports, 0)


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("port", "dscp", "expected"),
    [
        (5060, 0, CRITICAL),
        (10000, 0, CRITICAL),
        (20000, 0, CRITICAL),
        (4000, 46, CRITICAL),
        (443, 46, CRITICAL),
        (4000, 0, BULK),
        (443, 0, BULK),
        (20001, 0, BULK),
    ],
)
@pytest.mark.parametrize("server", [SERVER, SERVER6])
def test_udp_takes_the_tunnel_of_its_wan_and_class(
    system: System, server: str, port: int, dscp: int, expected: str
) -> None:
    counts = {lan: 20 * lan for lan in LANS}
    with counted(system) as sent, ExitStack() as stack:
        echo = stack.enter_context(bound(system, "server", server, port))
        for lan, count in counts.items():
            client = stack.enter_context(bound(system, "lan", _lan_host(lan, server), dscp=dscp))
            exchange(client, echo, server, [bytes([lan]) * (100 + i) for i in range(count)])
    assert_carried(sent, {f"{expected}{lan}": count for lan, count in counts.items()})


@pytest.mark.parametrize(("port", "expected"), [(80, DEFAULT), (443, DEFAULT), (8443, DEFAULT), (22, BULK)])
def test_tcp_takes_the_tunnel_of_its_wan_and_class(system: System, port: int, expected: str) -> None:
    with counted(system) as sent:
        for lan in LANS:
            transfer(system, lan_address(lan), SERVER, port, 50_000)
    names = {f"{expected}{lan}" for lan in LANS}
    assert {tun for tun, (rx, tx) in sent.items() if rx > 20 and tx > 20} == names
    assert all(max(both) <= NOISE for tun, both in sent.items() if tun not in names), sent


def test_icmp_is_bulk(system: System) -> None:
    with counted(system) as sent:
        streams = [Stream(name=str(lan), target=SERVER, rate=200, via=Via(source=lan_address(lan))) for lan in LANS]
        reports = start_pings(system.lab, "lan", streams, 0.1, linger=0.5).result()
    assert all(report.window().lost == 0 for report in reports.values())
    assert_carried(
        sent, {f"{BULK}{lan}": report.window().sent for lan, report in zip(LANS, reports.values(), strict=True)}
    )


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("server", [SERVER, SERVER6])
def test_datagrams_of_3000_bytes_arrive_whole_both_ways(system: System, server: str) -> None:
    with bound(system, "server", server, 4000) as echo:
        for lan in LANS:
            for dscp in (0, 46):
                with bound(system, "lan", _lan_host(lan, server), dscp=dscp) as client:
                    for sock in (client, echo):
                        if ":" in server:  # only its sender fragments an IPv6 packet
                            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, INNER_MTU)
                    exchange(client, echo, server, [os.urandom(3000) for _ in range(5)])


@pytest.mark.parametrize("server", [SERVER, SERVER6])
def test_too_big_with_df_is_answered_with_the_tunnels_mtu(system: System, server: str) -> None:
    headers = UDP6 if ":" in server else UDP4
    with (
        bound(system, "server", server, 4000) as far,
        bound(system, "lan", _lan_host(2, server)) as near,
    ):
        exchange(near, far, server, [b"flow"])
        near.connect((server, 4000))
        far.connect(_heard_from(near, far))
        for sender, receiver in ((near, far), (far, near)):
            _forbid_fragments(sender)
            assert _path_mtu(sender) == 1500
            sender.send(bytes(INNER_MTU + 1 - headers))
            until(lambda: _path_mtu(sender) == INNER_MTU)  # noqa: B023 - used up at once
            assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
            full = os.urandom(INNER_MTU - headers)
            sender.send(full)
            assert _receive(receiver) == full


# ---------------------------------------------------------------- TCP


@pytest.mark.parametrize("server", [SERVER, SERVER6])
def test_megabytes_of_tcp_arrive_unchanged_both_ways_at_once(system: System, server: str) -> None:
    sent, received = transfer(system, _lan_host(1, server), server, 443, 2_000_000)
    assert sent == received


@pytest.mark.parametrize("up", [True, False])
def test_tcp_arrives_unchanged_by_a_path_that_loses_and_reorders(system: System, up: bool) -> None:
    """`make transfer` does it with gigabytes."""
    tunnel, size = system.tunnels["df2"], 1_000_000
    ends: tuple[Role, Role] = ("site", "hub") if up else ("hub", "site")
    target, via = (tunnel.peer4, Via(device=tunnel.tun)) if up else (tunnel.inner4, Via())
    assert target is not None
    flow = system.deployment.flow("df2")
    system.lab.loss(flow, 1)
    system.lab.reorder(WANS[1], 1, 5)
    try:
        received = Transfer(system.lab, *ends, target, 7500, size, via).result()
        assert system.lab.loss_counts()[flow].lost > 0
    finally:
        system.lab.clear_loss()
        system.lab.reorder(WANS[1], 0, 0)
    assert (received.size, received.wrong_at) == (size, None)


# ---------------------------------------------------------------- outside


def test_outside_there_is_nothing_but_quic_v1_of_each_class(system: System) -> None:
    """From the first Initial of every tunnel on; the router's WAN ports are watched."""
    with sniffed(system) as outer:
        ok(system.lab.ctl("site", "restart", "all", wait=10))
        system.until_answered()
    known = {}
    for name, tunnel in system.tunnels.items():
        k = wan_of(name)
        six = k == WANS[-1]
        address = f"2001:db8:{k}::2" if six else f"100.64.{k}.2"
        for port in tunnel.source_ports:
            known[address, port, HUB6 if six else HUB, tunnel.hub_port] = tunnel
    seen: Counter[tuple[str, bool, bool]] = Counter()
    for packet in outer:
        plan = known[(*packet.site, *packet.hub)]
        assert packet.wan == wan_of(plan.name)
        assert packet.dscp == plan.dscp, (plan.name, packet)
        long = bool(packet.payload[0] & 0x80)
        assert packet.payload[0] & 0x40, "the fixed bit, RFC 9000 section 17"
        if long:
            assert packet.payload[1:5] == b"\0\0\0\1", "version 1"
            assert len(packet.payload) >= 1200 or packet.payload[0] >> 4 != 0xC, "Initials are padded"
        if packet.up:
            slots = {slot_of(plan.traffic_class, generation) for generation in (0, 1)}
            first = packet.payload[6 if long else 1]
            assert first in slots | ({plan.door} if long else set()), "slot or door in the connection ID"
        seen[plan.name, packet.up, long] += 1
    assert set(seen) == set(product(system.tunnels, (True, False), (True, False)))


# ---------------------------------------------------------------- other layouts

_HUB = """
role = "hub"
identity = {{ certificate = "{pki}/hub.lab.crt", key = "{pki}/hub.lab.key", ca = "{pki}/ca.crt" }}
supervisor = {{ state_directory = "{state}/hub", uid_base = 47100, control_group = "root", on_stop = "open" }}
listener = [
    {{ name = "mt4", port = 45010, ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64", workers = "shared" }},
    {{ name = "mt5", port = 45011, ipv4 = "10.200.11.0/24", ipv6 = "fd6d:7071:0:1::/64" }},
]
site = [{{ name = "ship1", number = 0 }}, {{ name = "ship2", number = 1 }}]
"""
_SITE = """
role = "site"
identity = {{ certificate = "{pki}/{name}.crt", key = "{pki}/{name}.key", ca = "{pki}/ca.crt" }}
supervisor = {{ state_directory = "{state}/{name}", uid_base = {uids}, control_group = "root", on_stop = "open" }}
hub = {{ name = "hub.lab", address = "198.51.100.2" }}
inner = {{ ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64", number = {number} }}
"""
_SHIP1 = """
wan = [{ name = "wan4", interface = "wan4" }, { name = "wan5", interface = "wan5" }]
matrix = { wan4 = [] }
"""
_SHIP2 = """
wan = [{{ name = "wan4", interface = "eth0", suffix = {suffix} }}]
"""


def test_shared_listener_and_plain_tunnel_and_a_second_site(system: System) -> None:
    """ship2 runs beside the server, behind the hub; its only WAN goes to each of the two listeners in turn."""
    directory, pki_directory = system.lab.directory, system.deployment.pki
    pki.save(pki.issue_site(pki.load_authority(pki_directory), "ship2"), pki_directory, "ship2")
    names = {"pki": pki_directory, "state": directory}
    ships = [_SITE.format(**names, name=f"ship{n}", number=n - 1, uids=46900 + 100 * n) for n in (1, 2)]
    for side, text in (("hub", _HUB.format(**names)), ("site", ships[0] + _SHIP1)):
        system.stop(side)  # type: ignore[arg-type]  # a side
        system.configs[side].write_text(text)  # type: ignore[index]  # a side
    system.start("hub", "site")
    home = directory / "ship2"
    home.mkdir()
    config = home / "ship2.toml"
    config.write_text(ships[1] + _SHIP2.format(suffix=1))
    second = Product(lambda _, argv, **popen: system.lab.exec("server", argv, **popen), "site", config, home)
    try:
        second.wait_ready()
        tunnels = {"site": ["mpq4", "cr2", "br2", "df2"], "server": ["cr1", "br1", "df1"]}
        system.until_state("site", State.UP, *tunnels["site"])
        assert set(system.workers("hub")) == {"mt4", "mt5.critical", "mt5.default", "mt5.bulk"}
        for suffix in (1, 2):
            tunnels["server"] = [f"{c}{suffix}" for c in (CRITICAL, BULK, DEFAULT)]
            config.write_text(ships[1] + _SHIP2.format(suffix=suffix))
            ok(second.ctl("reload"))
            ok(second.ctl("start", *tunnels["server"], wait=10))
            runs = []
            for role in ("site", "server"):
                streams = [
                    Stream(name=f"{tun} {v}", target=target, via=Via(device=tun))
                    for tun in tunnels[role]
                    for v, target in zip("46", _hub_inner(tun), strict=True)
                ]
                runs.append(start_pings(system.lab, role, streams, 0.3))
            for run in runs:
                lost = {name: report.window().lost for name, report in run.result().items()}
                assert lost == dict.fromkeys(lost, 0)
        sites = {w.name: sorted(s.site for s in w.sites) for w in system.workers("hub").values()}
        assert sites["mt5.bulk"] == ["ship1", "ship2"]
    finally:
        assert second.stop() == 0
        for side in SIDES:
            assert system.stop(side) == 0


def _hub_inner(tunnel: str) -> tuple[str, str]:
    n = 0 if tunnel == "mpq4" else int(tunnel[-1]) - 1
    return f"10.200.{10 + n}.254", f"fd6d:7071:0:{n}::fe"


# ---------------------------------------------------------------- helpers


def _lan_host(lan: int, server: str) -> str:
    return f"fd00:16:{lan}::9" if ":" in server else lan_address(lan)


@contextmanager
def counted(system: System) -> Iterator[dict[str, tuple[int, int]]]:
    """Packets that each TUN of the site received and sent meanwhile (from the kernel's view: sent is outwards)."""
    before = system.counters("site")
    sent: dict[str, tuple[int, int]] = {}
    yield sent
    after = system.counters("site")
    sent.update({tun: (after[tun][0] - before[tun][0], after[tun][1] - before[tun][1]) for tun in system.tunnels})


def assert_carried(sent: dict[str, tuple[int, int]], expected: dict[str, int]) -> None:
    """Each tunnel carried its number of packets, both ways, and the others none."""
    for tun, both in sent.items():
        for count in both:
            assert expected.get(tun, 0) <= count <= expected.get(tun, 0) + NOISE, (sent, expected)


def bound(system: System, role: str, address: str, port: int = 0, dscp: int = 0) -> socket.socket:
    """A non-blocking UDP socket in a namespace."""
    with system.inside(role):  # type: ignore[arg-type]  # a role
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    sock.bind((address, port))
    return sock


def exchange(client: socket.socket, echo: socket.socket, server: str, payloads: list[bytes]) -> None:
    """Every datagram arrives unchanged, is sent back and arrives again."""
    for payload in payloads:
        client.sendto(payload, (server, echo.getsockname()[1]))
    for payload in payloads:
        data, peer = _receive_from(echo)
        assert data == payload
        echo.sendto(data, peer)
    assert [_receive(client) for _ in payloads] == payloads


def _receive_from(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    assert select.select([sock], [], [], 5)[0], "nothing came"
    data, peer = sock.recvfrom(65_536)
    return data, peer


def _receive(sock: socket.socket) -> bytes:
    return _receive_from(sock)[0]


def _heard_from(near: socket.socket, far: socket.socket) -> tuple[str, int]:
    near.send(b"who am I")
    return _receive_from(far)[1]


def _forbid_fragments(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)


def _path_mtu(sock: socket.socket) -> int:
    if sock.family == socket.AF_INET6:
        return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
    return sock.getsockopt(socket.IPPROTO_IP, IP_MTU)


def transfer(system: System, source: str, server: str, port: int, size: int) -> tuple[list[str], list[str]]:
    """`size` random bytes each way over one TCP connection; digests as (sent, received)."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with ExitStack() as stack:
        with system.inside("server"):
            listener = stack.enter_context(socket.create_server((server, port), family=family))
        with system.inside("lan"):
            near = stack.enter_context(socket.create_connection((server, port), 5, (source, 0)))
        far = stack.enter_context(listener.accept()[0])
        ends = (near, far)
        left = {end: memoryview(os.urandom(size)) for end in ends}
        sent = [hashlib.sha256(left[end]).hexdigest() for end in ends]
        digests = {end: hashlib.sha256() for end in ends}
        missing = dict.fromkeys(ends, size)
        for end in ends:
            end.setblocking(False)
        while any(missing.values()):
            readable, writable, _ = select.select(ends, [end for end in ends if left[end]], [], 10)
            assert readable or writable, f"stuck with {list(missing.values())} bytes to come"
            for end in writable:
                with suppress(BlockingIOError):
                    left[end] = left[end][end.send(left[end][:65_536]) :]
            for end in readable:
                data = end.recv(262_144)
                assert data, "closed"
                digests[end].update(data)
                missing[end] -= len(data)
        for end in ends:
            end.setblocking(True)
            end.shutdown(socket.SHUT_WR)
        assert [end.recv(1) for end in ends] == [b"", b""]  # nothing of it is under way any more
        return sent, [digests[end].hexdigest() for end in reversed(ends)]
