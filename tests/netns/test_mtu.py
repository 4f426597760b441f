"""A path that becomes smaller and says nothing, as the real kernel's: TCP goes on through the tunnel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from mpq_worker.mtu import GRAIN
from mpq_worker.wire import DATAGRAM_OVERHEAD
from tools import namespaces
from tools.bench.bed import INNER_MTU, SIDES
from tools.bench.mpq import Mpq
from tools.sockets import Via
from tools.traffic import TcpFlow, TcpRun
from tools.wait import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

IP_UDP = 28
NARROW = 1300
_BLACK_HOLE = f"""
table ip narrow {{
    chain prerouting {{
        type filter hook prerouting priority raw;
        udp dport 45010 meta length > {NARROW} drop
        udp sport 45010 meta length > {NARROW} drop
    }}
}}
"""


@pytest.fixture
def bed() -> Iterator[Mpq]:
    with Mpq(f"mpqm{os.getpid()}") as bed:
        yield bed


def datagram_size(bed: Mpq) -> int:
    """The largest UDP payload that the site sends, as it says."""
    status = bed.ctl("site", "status").status
    assert status is not None
    path = status.workers[0].path
    return path.datagram_size if path is not None else 0


@pytest.mark.parametrize("reverse", [False, True])
def test_tcp_goes_on_when_large_packets_no_longer_pass(bed: Mpq, reverse: bool) -> None:
    until(lambda: datagram_size(bed) == INNER_MTU + DATAGRAM_OVERHEAD)
    for side, device in zip(SIDES, ("wan1", "up1"), strict=True):
        inside = namespaces.enter(bed.name(side))
        # each datagram by itself, as a network sees them
        subprocess.run([*inside, "ethtool", "-K", device, "tx-udp-segmentation", "off"], check=True)
        namespaces.feed([*inside, "nft", "-f", "-"], _BLACK_HOLE)
    flow = TcpFlow(target=bed.far, port=7200, reverse=reverse, via=Via(device=bed.device))
    assert TcpRun(bed, "site", "hub", flow, 4).result().mbit > 1
    if not reverse:  # the site sent what is large
        until(lambda: NARROW - IP_UDP - GRAIN < datagram_size(bed) <= NARROW - IP_UDP)
