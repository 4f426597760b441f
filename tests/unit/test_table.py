"""Status as people see it."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.lifecycle import State
from mpq_supervisor.status import HostStatus, WorkerStatus
from mpq_supervisor.table import duration, host_table, worker_page
from mpq_worker.contract import PathStats, SiteStatus

WORKER = WorkerStatus(
    name="cr2", traffic_class="critical", wan="wan5", tun="cr2", state=State.UP, reason="", since=3.25,
    uptime=3.25, pid=4711, uid=47003, restarts=1, failures=0, last_exit="killed by signal 9", rtt=0.0214,
    rtt_min=0.02, probe_rtt=None, jitter=0.0003, loss_tx=0.001, loss_rx=None, bytes_in=1, bytes_out=2,
    packets_in=3, packets_out=4, rate_in=15_000_000.0, rate_out=0.0, drops={"codel": 2, "queue_full": 3},
    refusals={}, reconnects=0, key_updates=0, pss=8_000_000, loop_lag=0.001, inner=("10.200.11.1",),
    remote="198.51.100.2 port 45011", sites=(),
)  # fmt: skip
HOST = HostStatus("site", "ship1", 1, 61.0, 2, 0, (WORKER,), ())


def test_site() -> None:
    title, _, head, row = host_table(HOST).splitlines()
    assert title == "site ship1, up 1m01s"
    cells = dict(zip(head.split("  "), row.split("  "), strict=False))
    assert cells["NAME"] == "cr2"
    assert row.split() == [
        "cr2", "critical", "wan5", "UP", "3.2s", "4711", "21.4", "0.3", "0.1%", "-", "15.0", "0.0", "5", "1", "8.0",
    ]  # fmt: skip
    assert head.index("STATE") == row.index("UP")


def test_hub_lists_connections_and_sites_without_one() -> None:
    site = SiteStatus("ship1", ("192.0.2.1", 46010), 7200.0, PathStats(rtt=0.02), 10, 20)
    worker = msgspec.structs.replace(WORKER, name="mt5.critical", sites=(site,))
    hub = msgspec.structs.replace(HOST, role="hub", workers=(worker,), sites=("ship1", "ship2"))
    lines = [line.split() for line in host_table(hub).splitlines()]
    assert lines[-2] == ["ship1", "mt5.critical", "192.0.2.1", "port", "46010", "2h00m", "20.0", "-", "10", "20"]
    assert lines[-1] == ["ship2", *["-"] * 7]


def test_connections_beyond_those_that_are_named_are_counted() -> None:
    site = SiteStatus("ship1", ("192.0.2.1", 46010), 7200.0, PathStats(), 10, 20)
    worker = msgspec.structs.replace(WORKER, name="mt5.critical", sites=(site,), connected=301)
    hub = msgspec.structs.replace(HOST, role="hub", workers=(worker,), sites=("ship1", "ship2"))
    assert host_table(hub).splitlines()[-1] == "mt5.critical: 300 more are connected"


def test_page_says_everything() -> None:
    page = worker_page(WORKER)
    for text in ("pid 4711, uid 47003", "killed by signal 9", "codel 2, queue_full 3", "15.00 Mbit/s", "8.0 MB"):
        assert text in page


def test_page_of_a_worker_without_a_round_trip_time() -> None:
    """As a hub's is: each of its connections has its own."""
    page = worker_page(msgspec.structs.replace(WORKER, rtt=None, rtt_min=None, jitter=None))
    assert "- ms" not in page
    assert "-, least -" in page


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0s"), (59.94, "59.9s"), (185, "3m05s"), (25_920, "7h12m"), (1_047_600, "12d03h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
