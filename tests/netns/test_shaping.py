"""HTB in a real kernel: `shaping`."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from mpq_supervisor import shaping
from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.plan import make_plan
from mpq_supervisor.shaper import shaper
from tests.netns.namespace import run
from tests.netns.site import LOG, SITE, Net, received, udp_of, wait_for

pytestmark = pytest.mark.root


def test_critical_goes_first_on_a_full_link_then_default(net: Net) -> None:
    plan = make_plan(parse(SITE.replace('interface = "wan4"', 'interface = "wan4", rate_mbit = 1.0')))
    with net.internet.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with net.site.entered(), receiver, closing(Netlink()) as netlink:
        receiver.bind(("198.51.100.2", 45010))
        receiver.setblocking(False)
        host = Host(plan, LOG)
        host.up()
        assert shaping.read(netlink, "wan4", host.links["wan4"].index) == shaper(plan.wans[0], plan.classes)
        before = host.changes
        host.up()
        assert host.changes == before

        order: list[bytes] = []

        def arrived(mark: bytes, count: int) -> bool:
            order.extend(packet[:1] for packet in received(receiver))
            return order.count(mark) >= count

        with (
            udp_of(host, plan, "br1") as bulk,
            udp_of(host, plan, "df1") as default,
            udp_of(host, plan, "cr1") as critical,
        ):
            bulk.send(b"first, to find the neighbour")
            assert wait_for(lambda: arrived(b"f", 1))
            for _ in range(40):
                bulk.send(b"b" * 1400)
            for sock, mark in ((default, b"d"), (critical, b"c")):
                for _ in range(10):
                    sock.send(mark * 1400)
            assert wait_for(lambda: arrived(b"c", 10) and arrived(b"d", 10))
            assert wait_for(lambda: arrived(b"b", 10))
        lower_before_critical = [mark for mark in order[: last(order, b"c")] if mark in b"db"]
        assert len(lower_before_critical) <= 6, "only what was under way already, and what they are assured"
        assert order[: last(order, b"d")].count(b"b") <= 6
        assert not wait_for(lambda: arrived(b"b", 20), 0.1), "a leaf is short"
        host.apply(make_plan(parse(SITE)))
        assert "htb" not in run("tc qdisc show dev wan4")
        host.down("open")


def last(order: list[bytes], mark: bytes) -> int:
    """The place of the last packet with this mark."""
    return len(order) - 1 - order[::-1].index(mark)
