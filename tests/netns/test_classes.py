"""Traffic of all classes of all LANs at once, end to end: counted in every TUN and on every WAN."""

from __future__ import annotations

import os
import select
import socket
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.netns.outer import sniffed
from tests.netns.product import System, lan_of, ok, wan_of
from tests.netns.test_tunnels import NOISE, counted
from tools.sockets import Via, open_datagram
from tools.topology import LANS, SERVER, SERVER6, lan_address
from tools.traffic import Echo
from tools.wait import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PORT = 4000
SIZE = 720
"""Bytes of payload: two of these do not share a packet of the tunnel."""
VLANS = {f"{prefix}{lan}": 10 * lan + n for lan in LANS for n, prefix in enumerate(("cr", "br", "df"), 1)}
CLASSES = {"cr": "critical", "br": "bulk", "df": "default"}


@pytest.fixture(scope="module")
def trunk(running: System) -> System:
    """Nine interfaces with the names of VLANs; behind the three of a LAN is the same host."""
    lab, text = running.lab, ""
    for lan in LANS:
        lab.run("lan", ["ip", "address", "add", f"192.168.{lan}.9/32", "dev", "lo"])
        lab.run("lan", ["ip", "address", "add", f"fd00:192:{lan}::9/128", "dev", "lo"])
    for tunnel, n in VLANS.items():
        name, lan = f"enp6s20.{n}", lan_of(tunnel)
        veth = f"link add {name} netns {lab.name('site')} type veth peer name {name} netns {lab.name('lan')}"
        for role, line in (
            ("lan", veth),
            ("site", f"link set {name} up"),
            ("lan", f"link set {name} up"),
            ("lan", f"address add 172.16.{n}.2/30 dev {name}"),
            ("lan", f"address add fd00:{n}::2/64 dev {name} nodad"),
            ("lan", f"route add default via 172.16.{n}.1 dev {name} metric {n}"),
            ("lan", f"route add ::/0 via fd00:{n}::1 dev {name} metric {n}"),
        ):
            lab.run(role, ["ip", *line.split()])
        text += (
            f'[[lan]]\nname = "{tunnel}"\ninterface = "{name}"\nwan = "wan{wan_of(tunnel)}"\n'
            f'class = "{CLASSES[tunnel[:2]]}"\naddress = ["172.16.{n}.1/30", "fd00:{n}::1/64"]\n'
            f'prefixes = ["192.168.{lan}.0/24", "fd00:192:{lan}::/64"]\ngateway = ["172.16.{n}.2", "fd00:{n}::2"]\n'
        )
    running.configs["site"].write_text(running.configs["site"].read_text() + text)
    ok(lab.ctl("site", "reload"))
    return running


@pytest.mark.parametrize("server", [SERVER, SERVER6])
@pytest.mark.parametrize("by", ["mark", "interface"])
def test_nine_flows_at_once_take_nine_tunnels(trunk: System, server: str, by: str) -> None:
    """By interface all of a LAN's three come from one address and port; each is answered where it came from."""
    wanted = {tunnel: (NOISE + 1) * n for n, tunnel in enumerate(trunk.tunnels, 1)}
    with ExitStack() as stack:
        stack.callback(Echo(trunk.lab, "server", [PORT]).stop)
        with trunk.inside("lan"):
            flows = {tunnel: stack.enter_context(_open(trunk, tunnel, server, by)) for tunnel in wanted}
        for sock in flows.values():  # then the neighbours are known
            until(lambda: _answered({"": sock}, server, 1))  # noqa: B023 - used up at once
        with sniffed(trunk) as outer, counted(trunk) as inner:
            answered: Counter[str] = Counter()
            for number in range(max(wanted.values())):
                sending = {tunnel: sock for tunnel, sock in flows.items() if number < wanted[tunnel]}
                answered.update(_answered(sending, server, SIZE + number))
    assert answered == wanted
    for tunnel, count in wanted.items():
        assert all(count <= seen <= count + NOISE for seen in inner[tunnel]), (tunnel, inner)
    names = {(wan_of(t), port): t for t, plan in trunk.tunnels.items() for port in plan.source_ports}
    seen = Counter((names[p.wan, p.site[1]], p.up) for p in outer if len(p.payload) > SIZE)
    for tunnel, count in wanted.items():
        assert all(count <= seen[tunnel, up] <= count + NOISE for up in (True, False)), (tunnel, seen)


def _open(system: System, tunnel: str, server: str, by: str) -> socket.socket:
    """A socket of the LAN host whose traffic belongs into a tunnel."""
    lan, six = lan_of(tunnel), ":" in server
    if by == "mark":
        source = f"fd00:16:{lan}::9" if six else lan_address(lan)
        return open_datagram(server, 0, Via(source=source, dscp=system.deployment.via(tunnel).dscp))
    sock = open_datagram(server, 0, Via(device=f"enp6s20.{VLANS[tunnel]}", dscp=46))
    sock.bind((f"fd00:192:{lan}::9" if six else f"192.168.{lan}.9", PORT))
    return sock


def _answered(flows: dict[str, socket.socket], server: str, size: int) -> list[str]:
    """Sends a datagram by each flow; those that got it back."""
    for sock in flows.values():
        sock.sendto(bytes(size), (server, PORT))
    return [
        name for name, sock in flows.items() if select.select([sock], [], [], 0.5)[0] and len(sock.recv(2000)) == size
    ]
