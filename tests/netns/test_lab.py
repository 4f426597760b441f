"""The lab by itself: what it does to packets is what it was told, and nothing outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tools import namespaces
from tools.lab import Count, Lab
from tools.ping import Stream
from tools.ping_report import StreamReport
from tools.sockets import Via
from tools.topology import HUB, HUB6, ROLES, SERVER, SERVER6, WANS, Flow, Role
from tools.traffic import Echo, LoadResult, TcpFlow, TcpRun, start_load, start_pings
from tools.udp_load import LoadFlow

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SECONDS = 0.7
_UP: tuple[Role, Role] = ("site", "hub")
_DOWN: tuple[Role, Role] = ("hub", "site")


@pytest.fixture(scope="module")
def built() -> Iterator[Lab]:
    with Lab(f"mpqt{os.getpid()}") as lab:
        yield lab


@pytest.fixture
def lab(built: Lab) -> Lab:
    """The lab of this file, without loss, with 20 ms."""
    built.clear_loss()
    for wan in WANS:
        built.delay(wan, 20)
        built.reorder(wan, 0, 0)
        built.rate(wan, None)
    return built


def ping(lab: Lab, seconds: float, *streams: Stream) -> dict[str, StreamReport]:
    return start_pings(lab, "site", list(streams), seconds, linger=0.2).result()


def load(lab: Lab, up: bool, *flows: LoadFlow) -> dict[str, LoadResult]:
    sender, receiver = _UP if up else _DOWN
    return start_load(lab, sender, receiver, list(flows), SECONDS).result()


def flow_to_hub(port: int, wan: int = 5, mbit: float = 15) -> LoadFlow:
    return LoadFlow(name=str(port), target=HUB, port=port, mbit=mbit, via=Via(device=f"wan{wan}"))


def test_delay_is_kept_by_each_wan_for_every_kind_of_probe(lab: Lab) -> None:
    lab.delay(6, 60)
    echo = Echo(lab, "hub", [7000])
    streams = [
        Stream(name=f"{wan} {target} {port}", target=target, port=port, via=Via(device=f"wan{wan}"))
        for wan in WANS
        for target in (HUB, HUB6)
        for port in (0, 7000)
    ]
    reports = ping(lab, 0.5, *streams)
    echo.stop()
    for name, report in reports.items():
        window = report.window()
        assert (window.sent, window.lost, report.duplicated) == (50, 0, 0), name
        expected = 60 if name.startswith("6") else 20
        fastest = min(rtt for rtt in report.rtt_us if rtt is not None) / 1000  # the others may have waited for a CPU
        assert expected - 0.5 <= fastest <= expected + 1, name


def test_loss_hits_the_flow_it_is_aimed_at_and_not_its_neighbour(lab: Lab) -> None:
    hit, spared = Flow(port=7001), Flow(port=7002)
    lab.loss(hit, 30, "up")
    lab.loss(spared, 0)
    results = load(lab, True, flow_to_hub(7001), flow_to_hub(7002))
    sent, received = results["7001"].sent, results["7001"].received
    assert lab.loss_counts() == {hit: Count(sent, sent - received), spared: Count(results["7002"].sent, 0)}
    assert results["7002"].received == results["7002"].sent
    assert sent == int(SECONDS * 15e6 / 8 / 1200)
    assert abs(received / sent - 0.7) < 5 * (0.3 * 0.7 / sent) ** 0.5  # five standard deviations


def test_loss_downwards_is_aimed_by_the_port_of_the_site(lab: Lab) -> None:
    hit, dead = Flow(sports=(7003,), wan=5), Flow(wan=6)
    lab.loss(hit, 10, "down")
    lab.drop_all(dead)
    flows = [
        LoadFlow(name="hit", target="100.64.5.2", port=7003, mbit=15),
        LoadFlow(name="spared", target="100.64.5.2", port=7004, mbit=15),
        LoadFlow(name="dead", target="100.64.6.2", port=7005, mbit=1),
    ]
    results = load(lab, False, *flows)
    sent, received = results["hit"].sent, results["hit"].received
    assert abs(received / sent - 0.9) < 5 * (0.1 * 0.9 / sent) ** 0.5
    assert results["spared"].received == results["spared"].sent
    assert results["dead"].received == 0
    assert lab.loss_counts() == {
        hit: Count(sent, sent - received),
        dead: Count(results["dead"].sent, results["dead"].sent),
    }


def test_rate_limits_one_direction_of_one_wan(lab: Lab) -> None:
    lab.rate(4, 10, "up")
    lab.rate(5, 10, "down")
    before = lab.relay_stats(4)["up"].refused
    start = start_load(lab, "site", "hub", [flow_to_hub(7000 + wan, wan, 20) for wan in (4, 5)], SECONDS)
    flows = [LoadFlow(name=f"{7000 + k}", target=f"100.64.{k}.2", port=7000 + k, mbit=20) for k in (4, 5)]
    down = load(lab, False, *flows)
    up = start.result()
    limited, free = (up["7004"], down["7005"]), (up["7005"], down["7004"])
    for result in limited:
        assert 9.5 < result.mbit * (1200 + 42) / 1200 < 11.2  # the queue of 50 ms comes on top
    for result in free:
        assert result.received == result.sent
    # What a full TBF refuses the relay counts.
    assert lab.relay_stats(4)["up"].refused - before == limited[0].sent - limited[0].received


def test_reordering_loses_nothing_and_is_counted_alike(lab: Lab) -> None:
    before = lab.relay_stats(5)["up"].reordered
    lab.reorder(5, 5, 8, "up")
    result = load(lab, True, flow_to_hub(7001))["7001"]
    held = lab.relay_stats(5)["up"].reordered - before
    assert (result.received, result.duplicated) == (result.sent, 0)
    assert 0.5 * held <= result.reordered <= held  # the last ones may have had nobody to overtake them
    assert abs(held / result.sent - 0.05) < 0.03


def test_tcp_crosses_the_lab_both_ways(lab: Lab) -> None:
    for port, reverse in ((5201, False), (5202, True)):
        result = TcpRun(lab, "site", "server", TcpFlow(target=SERVER6, port=port, reverse=reverse), 1).result()
        assert result.error == ""
        assert result.mbit > 50


def test_carrier_and_address_change_under_a_running_stream(lab: Lab) -> None:
    def answered(device: str, target: str) -> bool:
        return ping(lab, 0.1, Stream(name="x", target=target, via=Via(device=device)))["x"].window().lost == 0

    lab.carrier(4, False)
    assert "NO-CARRIER" in lab.run("site", ["ip", "link", "show", "wan4"]).stdout
    assert not answered("wan4", HUB)
    lab.carrier(4, True)
    streams = [Stream(name=target, target=target, via=Via(device="wan4")) for target in (HUB, HUB6)]
    for report in ping(lab, 1.3, *streams).values():
        assert report.rtt_us[-1] is not None
    lab.address(5, "100.64.55.2/24")
    lab.address(5, "2001:db8:55::2/64")
    routes = lab.run("site", ["ip", "route", "show", "default", "dev", "wan5"]).stdout
    assert routes.strip() == "default via 100.64.55.1 proto dhcp metric 105"
    assert answered("wan5", HUB)
    assert answered("wan5", HUB6)
    lab.address(5, "100.64.5.2/24")
    lab.address(5, "2001:db8:5::2/64")


def test_lan_traffic_in_clear_is_seen(lab: Lab) -> None:
    before = lab.leaks()
    with lab.capture("site", "lan3", "icmp") as capture:
        streams = [Stream(name="4", target=SERVER, via=Via(source="172.16.3.9"))]
        report = start_pings(lab, "lan", streams, 0.1, linger=0.2).result()["4"]
    assert report.window().lost == report.window().sent == 10
    assert capture.packets == 10  # source rules: by the LAN of its address
    assert (lab.leaks().site - before.site, lab.leaks().hub) == (10, 0)


def alive(pid: int) -> bool:
    """Whether it runs; an orphan may be a zombie until init looks after it."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def assert_gone(prefix: str) -> None:
    assert not [name for name in os.listdir(namespaces.NETNS) if name.startswith(prefix)]
    assert not namespaces.directory_of(prefix).exists()


def test_nothing_is_left_after_an_exception() -> None:
    prefix = f"mpqu{os.getpid()}"
    pids: list[int] = []

    def fail() -> None:
        with Lab(prefix) as lab:
            forking = ["sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait"]
            shell = lab.exec("site", forking, stdout=subprocess.PIPE)
            assert shell.stdout
            pids.extend([lab.relay.pid, shell.pid, int(shell.stdout.readline())])
            assert set(pids) <= set(namespaces.pids(lab.name(role) for role in ROLES))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not [pid for pid in pids if alive(pid)]
    assert_gone(prefix)


def test_the_lab_of_a_killed_maker_goes_when_the_next_starts() -> None:
    code = (
        "import os, subprocess; from tools.lab import Lab\n"
        "lab = Lab().__enter__()\n"
        "lab.exec('hub', ['sleep', '600'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(lab.prefix, flush=True); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    prefix = done.stdout.strip()
    assert [name for name in os.listdir(namespaces.NETNS) if name.startswith(prefix)]
    namespaces.remove_stale()
    assert_gone(prefix)
