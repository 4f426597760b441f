"""The bench's own tools: the copy carries, the generator and the receiver count alike."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tools.bench import load
from tools.bench.contenders import Copy
from tools.sockets import Via
from tools.traffic import TcpFlow, TcpRun

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    with Copy(f"mpqcopy{os.getpid()}") as copy:
        yield copy


@pytest.mark.parametrize("size", [8, 36, 1372])
def test_a_rate_that_is_no_strain_arrives_whole(copy: Copy, size: int) -> None:
    arrived = load.send(copy, size, 2000)
    assert arrived.loss == 0
    assert arrived.offered == pytest.approx(2000, rel=0.05)


def test_round_trips_are_all_accounted_for(copy: Copy) -> None:
    times = load.ping(copy, 5000, 0.5)
    assert len(times) == 100
    assert all(time is not None and time > 0 for time in times)


@pytest.mark.parametrize("reverse", [False, True])
def test_tcp_finds_nothing_wrong_with_what_was_cut_and_joined(copy: Copy, reverse: bool) -> None:
    flow = TcpFlow(target=copy.far, port=7200, reverse=reverse, streams=2, via=Via(device=copy.device))
    result = TcpRun(copy, "site", "hub", flow, 1).result()
    assert not result.error
    assert result.mbit > 0
    errors = copy.run("hub", ["nstat", "-asz", "TcpInCsumErrors"]).stdout.split()
    assert float(errors[errors.index("TcpInCsumErrors") + 1]) == 0
