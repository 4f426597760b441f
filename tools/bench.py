"""`make bench`: one tunnel beside the bare path it runs over, on the same topology, A B A B; build/bench.json.

Plain veth between site, router and hub, no delay. "Bare" is the same traffic to the hub's outer address. Worker, hub
worker, generator and receiver share the machine, so that CPU seconds per Gbit are the portable figure.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from mpq_supervisor.plan import TunnelPlan
from tools.lab import Lab
from tools.lab_config import deploy
from tools.ping import Stream
from tools.product import Side
from tools.results import Results
from tools.sockets import Via
from tools.topology import HUB
from tools.traffic import TcpFlow, TcpRun, start_load, start_pings
from tools.udp_load import LoadFlow

OUTPUT = Path("build/bench.json")
TUNNEL = "df2"
RUNS = 5
TCP_SECONDS = 3
UDP_SECONDS = 1.5
UDP_STEPS = 7
MAX_LOSS = 0.01
IP_UDP_HEADERS = 28
SIZES = {"64B": 64 - IP_UDP_HEADERS, "full": 1400 - IP_UDP_HEADERS}
CEILING = 200_000.0  # packets/s; beyond what one generator in Python sends
_PORT = 7200


class Way(NamedTuple):
    """Where a measurement sends to, and how."""

    name: str
    target: str
    via: Via


class Bench:
    """All measurements on one running lab."""

    def __init__(self, lab: Lab, tunnel: TunnelPlan, results: Results) -> None:
        assert tunnel.peer4 is not None
        self._lab = lab
        self._results = results
        self._ways = (
            Way("tunnel", tunnel.peer4, Via(device=tunnel.tun)),
            Way("bare", HUB, Via(device=tunnel.interface)),
        )
        self._workers = {"send": self._process("site", tunnel.name), "receive": self._process("hub", "mt5.default")}

    def tcp(self) -> None:
        """One TCP stream, and what it costs the workers."""
        rates: dict[str, list[float]] = {way.name: [] for way in self._ways}
        costs: dict[str, list[float]] = {end: [] for end in self._workers}
        for _ in range(RUNS):
            for way in self._ways:
                before = self._cpu()
                flow = TcpFlow(target=way.target, port=_PORT, via=way.via)
                mbit = TcpRun(self._lab, "site", "hub", flow, TCP_SECONDS).result().mbit
                rates[way.name].append(mbit)
                if way.name == "tunnel":
                    after = self._cpu()
                    for end in costs:
                        costs[end].append((after[end] - before[end]) / (mbit * TCP_SECONDS / 1000))
        self._add_both("tcp.one_stream", rates, "Mbit/s")
        for end, values in costs.items():
            self._results.add(f"tcp.cpu.{end}", values, "s/Gbit")

    def udp(self) -> None:
        """The highest rate at which at most 1 % is lost, by bisection of the offered rate."""
        for label, size in SIZES.items():
            rates: dict[str, list[float]] = {way.name: [] for way in self._ways}
            for _ in range(3):
                for way in self._ways:
                    rates[way.name].append(self._highest_rate(way, size) / 1000)
            self._add_both(f"udp.{label}", rates, "kpps")

    def rtt(self) -> None:
        """What the tunnel adds to the RTT of an idle path."""
        added: dict[str, list[float]] = {"p50": [], "p99": []}
        for _ in range(RUNS):
            streams = [Stream(name=way.name, target=way.target, rate=200.0, via=way.via) for way in self._ways]
            replies = start_pings(self._lab, "site", streams, 3).result()
            tunnel, bare = replies["tunnel"].window(), replies["bare"].window()
            added["p50"].append(tunnel.p50_ms - bare.p50_ms)
            added["p99"].append(tunnel.p99_ms - bare.p99_ms)
        for name, values in added.items():
            self._results.add(f"rtt.added.{name}", values, "ms")

    def memory(self) -> None:
        """PSS of each idle site worker, nine of them up."""
        status = self._lab.ctl("site", "status").status
        assert status is not None
        pss = [psutil.Process(worker.pid).memory_full_info().pss / 1e6 for worker in status.workers]
        self._results.add("memory.worker.pss", pss, "MB", target=8)

    def _highest_rate(self, way: Way, size: int) -> float:
        low, high = 0.0, CEILING
        rate = self._arrived(way, size, None)[1]  # a flood tells where to begin
        for _ in range(UDP_STEPS):
            loss, arrived = self._arrived(way, size, rate * size * 8 / 1e6)
            if loss <= MAX_LOSS:
                low = max(low, arrived)
            else:
                high = min(high, rate)
            rate = (low + high) / 2 if high < CEILING else rate * 1.3
        return low

    def _arrived(self, way: Way, size: int, mbit: float | None) -> tuple[float, float]:
        """Loss ratio and packets per second that arrived."""
        flow = LoadFlow(name="load", target=way.target, port=_PORT + 1, mbit=mbit, size=size, via=way.via)
        result = start_load(self._lab, "site", "hub", [flow], UDP_SECONDS).result()["load"]
        return 1 - result.received / max(1, result.sent + result.refused), result.received / result.seconds

    def _add_both(self, name: str, values: dict[str, list[float]], unit: str) -> None:
        for way, runs in values.items():
            self._results.add(f"{name}.{way}", runs, unit)
        ratios = [tunnel / bare for tunnel, bare in zip(values["tunnel"], values["bare"], strict=True)]
        self._results.add(f"{name}.ratio", ratios, "1")

    def _cpu(self) -> dict[str, float]:
        times = {end: process.cpu_times() for end, process in self._workers.items()}
        return {end: time.user + time.system for end, time in times.items()}

    def _process(self, side: Side, name: str) -> psutil.Process:
        status = self._lab.ctl(side, "status", name).status
        assert status is not None
        return psutil.Process(status.workers[0].pid)


def main() -> int:
    """Runs everything and prints the table."""
    results = Results.here()
    with Lab(relay=False) as lab:
        deployment = deploy(lab.directory)
        lab.start("hub", deployment.hub)
        begin = time.monotonic()
        lab.start("site", deployment.site)
        lab.wait_up()
        results.add("start.nine_up", [time.monotonic() - begin], "s")
        bench = Bench(lab, deployment.tunnels[TUNNEL], results)
        time.sleep(3)
        for measure in (bench.memory, bench.rtt, bench.tcp, bench.udp):
            print(f"--- {measure.__doc__}", flush=True)
            measure()
    results.write(OUTPUT)
    print(results.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
