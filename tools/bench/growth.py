"""mpq as it grows: more tunnels at once, all busy."""

from __future__ import annotations

import os
from collections import defaultdict

from mpq_supervisor.arithmetic import TUNNEL_ORDER
from mpq_worker.contract import TrafficClass
from tools.bench.bed import SIDES
from tools.bench.mpq import Mpq, Tunnel
from tools.results import Results, ratio
from tools.sockets import Via
from tools.traffic import TcpFlow, TcpRun

SIZES: dict[int, tuple[int, tuple[TrafficClass, ...]]] = {
    1: (1, (TrafficClass.DEFAULT,)),
    3: (1, TUNNEL_ORDER),
    9: (3, TUNNEL_ORDER),
    18: (6, TUNNEL_ORDER),
}
"""WANs and classes of so many tunnels."""
SECONDS = 3
SUM_OF_NINE = 0.9
IDLE_MB = 8
UNITS = {"sum": "Mbit/s", "least": "Mbit/s", "cpu": "s/Gbit", "start": "s", "pss": "MB"}
_PORT = 7400


def growth(results: Results, runs: int) -> None:
    """1, 3, 9 and 18 tunnels, a TCP stream in each at once: the sum, CPU of all workers, start-up, idle memory."""
    samples: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in SIZES}
    for _ in range(runs):
        for count, (wans, classes) in SIZES.items():
            with Mpq(f"mpqgrowth{os.getpid()}", wans, classes) as mpq:
                for name, values in _measure(mpq).items():
                    samples[count][name] += values
    for count, figures in samples.items():
        for name, values in figures.items():
            results.add(f"growth.{count}.{name}", values, UNITS[name])
    for count in SIZES:
        ratios = [ratio(*sums) for sums in zip(samples[count]["sum"], samples[1]["sum"], strict=True)]
        target = SUM_OF_NINE if count == 9 else None
        results.add(f"growth.{count}.ratio", ratios, "1", target=target, better="higher")
    results.add("start.nine_up", samples[9]["start"], "s")
    results.add("memory.worker.pss", samples[9]["pss"], "MB", target=IDLE_MB)


def _measure(mpq: Mpq) -> dict[str, list[float]]:
    """One run of each figure; of `pss` one for each of the site's workers."""
    pss = mpq.pss("site")
    before = sum(mpq.cpu(side) for side in SIDES)
    streams = [TcpRun(mpq, "site", "hub", _flow(tunnel, i), SECONDS) for i, tunnel in enumerate(mpq.tunnels)]
    rates = [stream.result().mbit for stream in streams]
    cost = ratio(sum(mpq.cpu(side) for side in SIDES) - before, sum(rates) * SECONDS / 1000)
    return {"sum": [sum(rates)], "least": [min(rates)], "cpu": [cost], "start": [mpq.up_after], "pss": pss}


def _flow(tunnel: Tunnel, place: int) -> TcpFlow:
    return TcpFlow(target=tunnel.far, port=_PORT + place, via=Via(device=tunnel.device))
