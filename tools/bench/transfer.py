"""`make transfer`: long transfers through a tunnel, compared byte for byte; writes build/transfer.json.

    python -m tools.bench.transfer [--share 0.01]       of the sizes, for a short run

10 GB of TCP each way over plain veth; 200 MB each way under 1 % loss, and under reordering; and numbered UDP under
reordering by 500 packets, of which none may be lost by it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bench.mpq import Mpq
from tools.lab import Lab
from tools.lab_config import Deployment, deploy
from tools.product import Side
from tools.results import Results
from tools.sockets import Via
from tools.topology import WANS
from tools.traffic import start_load
from tools.transfer import Transfer
from tools.udp_load import LoadFlow

OUTPUT = Path("build/transfer.json")
LONG, SHORT = 10_000_000_000, 200_000_000
RTT_MS = 20
LOSS_PERCENT = 1.0
REORDERED_PERCENT = 1.0
DEPTH = 500
"""Packets that overtake one that is held back."""
RATE = 2500.0
"""UDP packets per second, each too large to share a QUIC packet, while some are held back as long as `DEPTH` take."""
UDP_SECONDS = 10
UDP_SIZE = 1200
TUNNEL = "df2"
WAN = WANS[1]
_PORT = 7500
WAYS: dict[str, tuple[Side, Side]] = {"up": ("site", "hub"), "down": ("hub", "site")}


def plain(results: Results, share: float) -> None:
    """10 GB each way, no delay."""
    with Mpq(f"mpqtransfer{os.getpid()}") as mpq:
        tunnel = mpq.tunnels[0]
        for way, (sender, receiver) in WAYS.items():
            target, via = (tunnel.far, Via(device=tunnel.device)) if way == "up" else (tunnel.near, Via())
            run = Transfer(mpq, sender, receiver, target, _PORT, round(LONG * share), via)
            _add(results, f"transfer.plain.{way}", run)


def loss(results: Results, share: float) -> None:
    """200 MB each way while 1 % of the tunnel's packets are lost."""
    with _lab() as (lab, deployment):
        lab.loss(deployment.flow(TUNNEL), LOSS_PERCENT)
        _both_ways(results, "transfer.loss", lab, deployment, share)


def reordering(results: Results, share: float) -> None:
    """200 MB each way, and UDP at 2,500 packets/s, while one packet in 100 comes 500 packets late."""
    with _lab() as (lab, deployment):
        lab.reorder(WAN, REORDERED_PERCENT, DEPTH / RATE * 1000)
        for way, (sender, receiver) in WAYS.items():
            target, via = _end(deployment, way)
            flow = LoadFlow(name=way, target=target, port=_PORT, mbit=RATE * UDP_SIZE * 8e-6, size=UDP_SIZE, via=via)
            result = start_load(lab, sender, receiver, [flow], max(1.0, UDP_SECONDS * share)).result()[way]
            lost = result.sent - result.received
            results.add(f"transfer.reordering.{way}.lost", [lost], f"of {result.sent}", target=0)
            results.add(f"transfer.reordering.{way}.late", [result.reordered], f"of {result.sent}")
            print(f"    {way}: {lost} of {result.sent} lost, {result.reordered} late", flush=True)
        _both_ways(results, "transfer.reordering", lab, deployment, share)


@contextmanager
def _lab() -> Iterator[tuple[Lab, Deployment]]:
    with Lab() as lab:
        lab.delay(WAN, RTT_MS)
        deployment = deploy(lab.directory)
        lab.start("hub", deployment.hub)
        lab.start("site", deployment.site)
        lab.wait_up()
        yield lab, deployment


def _both_ways(results: Results, name: str, lab: Lab, deployment: Deployment, share: float) -> None:
    for way, (sender, receiver) in WAYS.items():
        target, via = _end(deployment, way)
        _add(results, f"{name}.{way}", Transfer(lab, sender, receiver, target, _PORT, round(SHORT * share), via))


def _end(deployment: Deployment, way: str) -> tuple[str, Via]:
    """What the sender of a direction sends to, and how."""
    plan = deployment.tunnels[TUNNEL]
    assert plan.peer4 is not None
    assert plan.inner4 is not None
    return (plan.peer4, Via(device=plan.tun)) if way == "up" else (plan.inner4, Via())


def _add(results: Results, name: str, run: Transfer) -> None:
    """A row for the bytes that were right, and one for the rate."""
    received = run.result()
    right = received.size if received.wrong_at is None else received.wrong_at
    results.add(f"{name}.right", [right], "bytes", target=run.size, better="higher")
    results.add(f"{name}.rate", [received.mbit], "Mbit/s")
    print(f"    {name}: {right} of {run.size} bytes right, {received.mbit:.0f} Mbit/s", flush=True)


def main(arguments: list[str]) -> int:
    """Runs all; 0 if nothing was wrong or lost by reordering, 1 if something was."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.transfer")
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes")
    share = parser.parse_args(arguments).share
    results = Results.here()
    for experiment in (plain, loss, reordering):
        print(f"--- {experiment.__doc__}", flush=True)
        experiment(results, share)
        results.write(OUTPUT)
    print(results.table())
    return 0 if all(row.met is not False for row in results.rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
