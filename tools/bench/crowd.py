"""A hub with many connections: what one more packet costs it, and what the idle ones do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from tools import light_sites
from tools.bench import load
from tools.bench.mpq import GUEST, Mpq
from tools.lab_config import HUB_NAME
from tools.results import Results, ratio
from tools.sockets import Via
from tools.topology import HUB

CONNECTIONS = (1, 100, 1000)
COST_RATIO = 1.1
SIZE = 172
"""UDP payload of the busy connection, 200 bytes in all."""
SHARE = 0.5
"""Of the rate that is free of loss where there is one connection: the hub is busy, but not overrun."""
SECONDS = 2.0
IDLE_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parent.parent.parent


class Hub(NamedTuple):
    """A hub with one real site and a crowd of light ones, all connected."""

    mpq: Mpq
    ready: light_sites.Ready


def crowd(results: Results, runs: int) -> None:
    """A hub worker with 1, 100 and 1,000 connections, one of them busy: CPU per packet, idle CPU, memory."""
    samples: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in CONNECTIONS}
    with ExitStack() as stack:
        hubs = {
            count: stack.enter_context(crowd_of(f"mpqcrowd{count}x{os.getpid()}", count)) for count in CONNECTIONS
        }
        rate = SHARE * load.highest_rate(hubs[1].mpq, SIZE)
        for _ in range(runs):
            for count, hub in hubs.items():
                for name, value in _measure(hub.mpq, rate).items():
                    samples[count][name].append(value)
        for count, hub in hubs.items():
            if hub.ready.sites:
                handshakes = [hub.ready.sites / hub.ready.seconds]
                results.add(f"hub.{count}.handshakes", handshakes, "1/s")
    units = {"idle_cpu": "s/s", "up.cost": "µs/packet", "down.cost": "µs/packet", "pss": "MB"}
    for count, figures in samples.items():
        for name, values in figures.items():
            results.add(f"hub.{count}.{name}", values, units[name])
    for way in ("up", "down"):
        costs = zip(samples[max(CONNECTIONS)][f"{way}.cost"], samples[1][f"{way}.cost"], strict=True)
        ratios = [ratio(many, one) for many, one in costs]
        results.add(f"hub.{max(CONNECTIONS)}.{way}.cost.ratio", ratios, "1", target=COST_RATIO)


@contextmanager
def crowd_of(prefix: str, connections: int) -> Iterator[Hub]:
    """A hub with so many connections, one of them of a real site; it says at the end how often others fell silent."""
    with Mpq(prefix, guests=connections - 1) as mpq:
        order = light_sites.Order(
            pki=str(mpq.pki),
            hub_name=HUB_NAME,
            hub=HUB,
            port=45010,
            inner="10.200.0.0/16",
            count=connections - 1,
            prefix=GUEST,
            via=Via(device="wan1"),
        )
        argv = [sys.executable, "-m", "tools.light_sites", msgspec.json.encode(order).decode()]
        process = mpq.exec("site", argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = cast(IO[bytes], process.stdout).readline()
        if not line:
            raise RuntimeError("the light sites did not connect")
        yield Hub(mpq, msgspec.json.decode(line, type=light_sites.Ready))
        report = msgspec.json.decode(process.communicate()[0], type=light_sites.Report)
        if report.silent:
            print(f"    of {connections} connections, some fell silent: {report.silent} times in all", flush=True)


def _measure(mpq: Mpq, rate: float) -> dict[str, float]:
    """The worker at rest, then with packets each way; what it takes at rest is not the packets' cost."""
    before = mpq.cpu("hub")
    time.sleep(IDLE_SECONDS)
    idle = (mpq.cpu("hub") - before) / IDLE_SECONDS
    figures = {"idle_cpu": idle, "pss": mpq.pss("hub")[0]}
    for way in ("up", "down"):
        before, start = mpq.cpu("hub"), time.monotonic()
        arrived = load.send(mpq, SIZE, rate, SECONDS, down=way == "down")
        spent = mpq.cpu("hub") - before - idle * (time.monotonic() - start)
        figures[f"{way}.cost"] = ratio(spent, arrived.received * SECONDS) * 1e6
    return figures
