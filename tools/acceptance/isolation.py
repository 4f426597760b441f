"""Loss storms, a shared link, a shared core: what happens to one tunnel must not happen to its neighbours."""

from __future__ import annotations

import os
import time

from tools.acceptance.ground import ENDS, LOAD_PORT, MBIT, WAYS, describe, echo, load, nine, say
from tools.lab import Lab
from tools.lab_config import Deployment
from tools.ping import Stream
from tools.ping_report import Window
from tools.results import Results
from tools.sockets import Via
from tools.topology import HUB
from tools.traffic import TcpFlow, TcpRun, start_load, start_pings

GROUP = ("cr2", "br2", "df2")
LOSSES = (0, 10, 30)
PINGS = 1000


def isolation(results: Results) -> None:
    """0, 10, 30 % loss on the outer flow of br2, each direction: its neighbours must not notice."""
    seconds = PINGS / 100
    with nine() as (lab, deployment):
        for way in WAYS:
            for percent in LOSSES:
                lab.loss(deployment.flow("br2"), percent, way)
                flows = [load(deployment, tunnel, way, MBIT) for tunnel in GROUP]
                loads = start_load(lab, *ENDS[way], flows, seconds + 1)
                pings = start_pings(lab, "site", [echo(deployment, tunnel) for tunnel in GROUP], seconds)
                replies, delivered = pings.result(), loads.result()
                for tunnel in GROUP:
                    key = f"isolation.{way}.br2_{percent}.{tunnel}"
                    victim = tunnel == "br2" and percent > 0
                    window, result = replies[tunnel].window(), delivered[tunnel]
                    ratio = result.received / (result.sent + result.refused)
                    results.add(
                        f"{key}.received_ratio", [ratio], "1", target=None if victim else 0.999, better="higher"
                    )
                    results.add(f"{key}.pings_lost", [window.lost], f"of {window.sent}", target=None if victim else 0)
                    results.add(f"{key}.rtt_p50", [window.p50_ms], "ms")
                    results.add(f"{key}.rtt_p99", [window.p99_ms], "ms")
                    say(f"{way:4} br2 {percent:2} %: {tunnel} {100 * ratio:6.2f} % received, {describe(window)}")


def tcp(results: Results) -> None:
    """The same with one TCP stream per tunnel; br2 suffers as TCP does, which loss repair will answer one day."""
    with nine() as (lab, deployment):
        for percent in LOSSES:
            lab.loss(deployment.flow("br2"), percent, "both")
            runs = {}
            for tunnel in GROUP:
                plan = deployment.tunnels[tunnel]
                assert plan.peer4 is not None
                flow = TcpFlow(target=plan.peer4, port=LOAD_PORT + plan.index, via=Via(device=tunnel))
                runs[tunnel] = TcpRun(lab, "site", "hub", flow, 8)
            for tunnel, run in runs.items():
                result = run.result()
                results.add(f"isolation_tcp.br2_{percent}.{tunnel}.rate", [result.mbit], "Mbit/s")
                say(f"TCP, br2 {percent:2} %: {tunnel} {result.mbit:6.2f} Mbit/s, {result.retransmits} retransmits")


def shared(results: Results) -> None:
    """A WAN of 20 Mbit/s, HTB at the site set to 18: cr2 while br2 saturates it."""
    with nine(rate_mbit=18) as (lab, deployment):
        lab.rate(5, 20, "up")
        idle = quiet_pings(lab, deployment)
        loads = start_load(lab, "site", "hub", [load(deployment, "br2", "up", 40.0)], 12)
        time.sleep(1)
        busy = quiet_pings(lab, deployment)
        filled = loads.result()["br2"].mbit
    for name, window in (("idle", idle), ("saturated", busy)):
        results.add(f"shared_link.{name}.cr2.rtt_p50", [window.p50_ms], "ms")
        target = idle.p99_ms + 10 if name == "saturated" else None
        results.add(f"shared_link.{name}.cr2.rtt_p99", [window.p99_ms], "ms", target=target)
        results.add(f"shared_link.{name}.cr2.pings_lost", [window.lost], f"of {window.sent}", target=0)
        say(f"shared link, {name}: cr2 {describe(window)}")
    results.add("shared_link.saturated.br2.rate", [filled], "Mbit/s")
    say(f"shared link: br2 got {filled:.1f} Mbit/s of 18")


def cpu(results: Results) -> None:
    """Every worker of a host on one core, br2 flooded with small packets at full speed; tools on the other core."""
    for way in WAYS:
        host = ENDS[way][0]
        site_cpus, hub_cpus = ((1,), (0,)) if host == "site" else ((0,), (1,))
        others = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {0})
        try:
            with nine(site_cpus=site_cpus, hub_cpus=hub_cpus) as (lab, deployment):
                quiet = pings_beside(lab, deployment)
                loads = start_load(lab, *ENDS[way], [load(deployment, "br2", way, None, 22)], 12)
                time.sleep(1)
                busy = pings_beside(lab, deployment)
                flooded = loads.result()["br2"]
        finally:
            os.sched_setaffinity(0, others)
        for name, windows in (("rest", quiet), ("flood", busy)):
            window, bare = windows["cr2"], windows["bare"]
            target = quiet["cr2"].p99_ms + 5 if name == "flood" else None
            results.add(f"cpu.{host}.{name}.cr2.rtt_p50", [window.p50_ms], "ms")
            results.add(f"cpu.{host}.{name}.cr2.rtt_p99", [window.p99_ms], "ms", target=target)
            results.add(f"cpu.{host}.{name}.cr2.pings_lost", [window.lost], f"of {window.sent}")
            results.add(f"cpu.{host}.{name}.bare.rtt_p99", [bare.p99_ms], "ms")
            say(f"one core, {host}, {name}: cr2 {describe(window)}; bare WAN {describe(bare)}")
        rate = flooded.sent / flooded.seconds
        results.add(f"cpu.{host}.flood.offered", [rate], "packets/s")
        say(
            f"one core, {host}: {rate:.0f} packets/s offered to br2, {flooded.received / flooded.seconds:.0f} arrived"
        )


# ---------------------------------------------------------------- helpers


def quiet_pings(lab: Lab, deployment: Deployment) -> Window:
    """1,000 pings through cr2."""
    return start_pings(lab, "site", [echo(deployment, "cr2")], PINGS / 100).result()["cr2"].window()


def pings_beside(lab: Lab, deployment: Deployment) -> dict[str, Window]:
    """1,000 pings through cr2, and beside them 1,000 to the hub's outer address without a tunnel."""
    bare = Stream(name="bare", target=HUB, via=Via(device="wan5"))
    replies = start_pings(lab, "site", [echo(deployment, "cr2"), bare], PINGS / 100).result()
    return {name: report.window() for name, report in replies.items()}
