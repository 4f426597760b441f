"""What load on the portal does to the tunnels, and what the portal costs a worker; on a machine that is idle."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import msgspec
import pytest

from tests.netns.portals import PORT, TOKENS, Portal, open_portals
from tests.netns.product import System
from tools.acceptance.ground import echo, load
from tools.http_load import Answers, LoadOrder
from tools.product import Side
from tools.results import Results, percentile
from tools.sockets import Via
from tools.traffic import TcpFlow, TcpRun, start_load, start_pings

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SECONDS = int(os.environ.get("MPQ_SECONDS", "60"))
RATES = {"/api/v1/health": 100.0, "/api/v1/tunnels": 50.0}
P95_MS = 200.0
GROUP = ("cr2", "br2", "df2")
MBIT = 10.0
"""By each of the group, upwards, beside the load."""
BUSY_MBIT = 50.0
"""By the worker whose time is measured."""
TCP_PORT = 7100
PACED = 0.75
"""Share of the time in which three tunnels carry a given rate; in the rest one carries as much TCP as it can."""
UNITS = {
    "mbit": "Mbit/s",
    "received_ratio": "1",
    "pings_lost": "pings",
    "rtt_p50": "ms",
    "rtt_p99": "ms",
    "tcp": "Mbit/s",
}
WINDOW = 1.0
"""Seconds of the stream, with the portals or without; a second's news is what a portal is sent at once."""
PAIRS = 5 * SECONDS
OVERHEAD = 1.0
"""Percent that the portal may cost."""
SCRAPED_EVERY = 7
"""Pairs: about 15 seconds, as the Debian package of Prometheus has it."""


def test_load_on_the_api(running: System, results: Results) -> None:
    """Without and with it in turns, in one run."""
    figures: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    answers: dict[str, Answers] = {}
    with open_portals(running) as portals:
        for _ in range(2):
            figures["without"].append(work(running))
            with asked(portals["site"]) as answers:
                figures["with"].append(work(running))
    for path, answer in answers.items():
        note(results, f"load.{path.rpartition('/')[2]}", answer)
    for what, runs in figures.items():
        for name, unit in UNITS.items():
            results.add(f"load.tunnels.{what}.{name}", [run[name] for run in runs], unit)
    assert all(answer.failed == 0 for answer in answers.values())


def test_what_the_portal_costs_a_worker(running: System, results: Results) -> None:
    """CPU time of br2's workers per packet, in windows in which both ends' portals work or are stopped (SIGSTOP).

    What a stopped portal was sent it does in its next window, and is scraped there. A machine's own speed wanders by
    a tenth within seconds: so the windows are short, many, and in the order A B B A.
    """
    costs: dict[str, dict[Side, list[float]]] = {what: {"site": [], "hub": []} for what in ("without", "with")}
    workers: dict[Side, int] = {"site": running.pids("site")["br2"], "hub": running.pids("hub")["mt5.bulk"]}
    flow = load(running.deployment, "br2", "up", BUSY_MBIT)

    def measure(what: str, scraped: Iterable[Portal] = ()) -> None:
        for side, cost in cost_of_packets(running, workers, scraped).items():
            costs[what][side].append(cost)

    with open_portals(running) as portals:
        stream = start_load(running.lab, "site", "hub", [flow], PAIRS * 2 * (WINDOW + 0.1) + 5)
        time.sleep(2)  # until it flows evenly
        for number in range(PAIRS):
            scraped = portals.values() if number % SCRAPED_EVERY == 0 else ()
            if number % 2:
                measure("with", scraped)
            with stopped(portals):
                measure("without")
            if number % 2 == 0:
                measure("with", scraped)
        assert stream.result()["br2"].received > 0
    for side in workers:
        for what, by_side in costs.items():
            results.add(f"overhead.{side}.{what}", by_side[side], "us/packet")
        pairs = list(zip(costs["with"][side], costs["without"][side], strict=True))
        more = [200 * (one - other) / (one + other) for one, other in pairs]
        results.add(f"overhead.{side}", [mean(more)], "%", target=OVERHEAD)
        results.add(f"overhead.{side}.standard_error", [stdev(more) / sqrt(len(more))], "%")


# ---------------------------------------------------------------- helpers


@contextmanager
def asked(portal: Portal) -> Iterator[dict[str, Answers]]:
    """The API has its load meanwhile; the answers are there at the end."""
    order = LoadOrder(port=PORT, token=TOKENS["viewer"], seconds=SECONDS, rates=RATES)
    argv = [sys.executable, "-m", "tools.http_load", msgspec.json.encode(order).decode()]
    process = portal.system.lab.exec(portal.side, argv, cwd=Path(__file__).parents[2], stdout=-1)
    answers: dict[str, Answers] = {}
    yield answers
    answers |= msgspec.json.decode(process.communicate()[0], type=dict[str, Answers])


def note(results: Results, key: str, answers: Answers) -> None:
    """How long the answers of a path took."""
    ordered = sorted(answers.took_ms)
    results.add(f"{key}.answers", [len(ordered)], "answers")
    results.add(f"{key}.failed", [answers.failed], "answers", target=0)
    results.add(f"{key}.p50", [percentile(ordered, 50)], "ms")
    results.add(f"{key}.p95", [percentile(ordered, 95)], "ms", target=P95_MS)
    results.add(f"{key}.max", [percentile(ordered, 100)], "ms")


def work(running: System) -> dict[str, float]:
    """What three tunnels carry and how long a round trip takes by each of the nine, for the time of the load."""
    lab, deployment, paced = running.lab, running.deployment, SECONDS * PACED
    pings = start_pings(lab, "site", [echo(deployment, name, 20) for name in running.tunnels], paced)
    loads = start_load(lab, "site", "hub", [load(deployment, name, "up", MBIT) for name in GROUP], paced)
    windows = [report.window() for report in pings.result().values()]
    carried = loads.result().values()
    plan = deployment.tunnels[GROUP[0]]
    assert plan.peer4 is not None
    greedy = TcpFlow(target=plan.peer4, port=TCP_PORT, via=Via(device=plan.name))
    tcp = TcpRun(lab, "site", "hub", greedy, max(1, int(SECONDS - paced))).result()
    assert not tcp.error, tcp.error
    return {
        "mbit": sum(one.mbit for one in carried),
        "received_ratio": sum(one.received for one in carried) / sum(one.sent + one.refused for one in carried),
        "pings_lost": sum(window.lost for window in windows),
        "rtt_p50": max(window.p50_ms for window in windows),
        "rtt_p99": max(window.p99_ms for window in windows),
        "tcp": tcp.mbit,
    }


def cost_of_packets(running: System, workers: dict[Side, int], scraped: Iterable[Portal]) -> dict[Side, float]:
    """CPU microseconds per packet that br2's workers spend in a window of a steady stream upwards."""
    packets, before = packets_of(running), {side: cpu_ns(pid) for side, pid in workers.items()}
    end = time.monotonic() + WINDOW
    for portal in scraped:
        portal.get("/metrics")
    time.sleep(max(0.0, end - time.monotonic()))
    after, packets = {side: cpu_ns(pid) for side, pid in workers.items()}, packets_of(running) - packets
    return {side: (after[side] - before[side]) / 1e3 / packets for side in workers}


def packets_of(running: System) -> int:
    """Those that br2 has been given at the site."""
    return running.counters("site")["br2"][1]


def cpu_ns(pid: int) -> int:
    """What the scheduler gave a process (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


@contextmanager
def stopped(portals: dict[Side, Portal]) -> Iterator[None]:
    """None of the portals does anything meanwhile."""
    pids = [portal.pid() for portal in portals.values()]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
