"""`make acceptance`: what mpq promises, measured in the lab. RTT 20 ms, 15 Mbit/s per tunnel, unless said otherwise.

    python -m tools.acceptance [isolation|tcp|shared|cpu|kills|start …]      all of them without an argument

Every experiment builds a lab of its own, adds rows to `build/acceptance.json` and prints a line as it goes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tools.lab import Lab
from tools.lab_config import Deployment, deploy
from tools.ping import Stream
from tools.ping_report import StreamReport, Window
from tools.results import Results, percentile
from tools.sockets import Via
from tools.topology import HUB, WANS, Role
from tools.traffic import TcpFlow, TcpRun, start_load, start_pings
from tools.udp_load import LoadFlow

OUTPUT = Path("build/acceptance.json")
RTT_MS = 20
MBIT = 15.0
GROUP = ("cr2", "br2", "df2")
LOSSES = (0, 10, 30)
PINGS = 1000
KILLS = 50
KILL_SPACING = 2.5
AFTER_KILL = 10.0
STARTS = 5
_PORT = 7000

Way = Literal["up", "down"]
ENDS: dict[Way, tuple[Role, Role]] = {"up": ("site", "hub"), "down": ("hub", "site")}
WAYS: tuple[Way, ...] = ("up", "down")


@contextmanager
def nine(
    *,
    rate_mbit: float | None = None,
    site_cpus: tuple[int, ...] = (),
    hub_cpus: tuple[int, ...] = (),
) -> Iterator[tuple[Lab, Deployment]]:
    """A lab with all nine tunnels up."""
    with Lab() as lab:
        for wan in WANS:
            lab.delay(wan, RTT_MS)
        deployment = deploy(lab.directory, rate_mbit=rate_mbit, site_cpus=site_cpus, hub_cpus=hub_cpus)
        lab.start("hub", deployment.hub)
        lab.start("site", deployment.site)
        lab.wait_up()
        yield lab, deployment


def echo(deployment: Deployment, tunnel: str, rate: float = 100.0) -> Stream:
    """Pings from the site through one tunnel to the hub's inner address."""
    plan = deployment.tunnels[tunnel]
    assert plan.peer4 is not None
    return Stream(name=tunnel, target=plan.peer4, rate=rate, via=Via(device=tunnel))


def load(deployment: Deployment, tunnel: str, way: Way, mbit: float | None, size: int = 1200) -> LoadFlow:
    """UDP through one tunnel: from the site to the hub's inner address, or from the hub to the site's."""
    plan = deployment.tunnels[tunnel]
    target, via = (plan.peer4, Via(device=tunnel)) if way == "up" else (plan.inner4, Via())
    assert target is not None
    return LoadFlow(name=tunnel, target=target, port=_PORT + plan.index, mbit=mbit, size=size, via=via)


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
                flow = TcpFlow(target=plan.peer4, port=_PORT + plan.index, via=Via(device=tunnel))
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


def kills(results: Results) -> None:
    """kill -9 of each site worker in turn: the other eight lose nothing, and it is back at once."""
    with nine() as (lab, deployment):
        names = list(deployment.tunnels)
        seconds = 2 + KILLS * KILL_SPACING + AFTER_KILL + 1
        pings = start_pings(lab, "site", [echo(deployment, name) for name in names], seconds)
        time.sleep(2)
        killed: list[tuple[str, int]] = []
        for number in range(KILLS):
            name = names[number % len(names)]
            os.kill(worker_pid(lab, name), signal.SIGKILL)
            killed.append((name, time.monotonic_ns()))
            time.sleep(KILL_SPACING)
        replies = pings.result()
    back, lost_after, foreign = [], [], 0
    for name, when in killed:
        answer = replies[name].first_answer_ns(when)
        back.append(float("nan") if answer is None else (answer - when) / 1e6)
        settled = (answer or when) + 1
        lost_after.append(replies[name].window(settled, when + int(AFTER_KILL * 1e9)).lost)
    for name, report in replies.items():
        foreign += losses_apart_from(report, [when for victim, when in killed if victim == name])
    ordered = sorted(back)
    results.add("kill.to_first_reply.p50", [percentile(ordered, 50)], "ms", target=80)
    results.add("kill.to_first_reply.p99", [percentile(ordered, 99)], "ms")
    results.add("kill.lost_in_10s_after_first_reply", [sum(lost_after)], f"pings in {KILLS} kills", target=0)
    total = sum(report.window().sent for report in replies.values())
    results.add("kill.neighbours.pings_lost", [foreign], f"of {total}", target=0)
    say(f"{KILLS} kills: back after p50 {percentile(ordered, 50):.0f} ms, p99 {percentile(ordered, 99):.0f} ms; ")
    say(f"then {sum(lost_after)} lost in 10 s; neighbours lost {foreign} of {total}")


def start(results: Results) -> None:
    """From `run` to nine UP, and the memory of an idle worker with nine of them up."""
    until_up, pss = [], []
    for _ in range(STARTS):
        with Lab() as lab:
            for wan in WANS:
                lab.delay(wan, RTT_MS)
            deployment = deploy(lab.directory)
            lab.start("hub", deployment.hub).wait_ready()
            time.sleep(2)
            begin = time.monotonic()
            lab.start("site", deployment.site)
            lab.wait_up()
            until_up.append(time.monotonic() - begin)
            time.sleep(12)  # the workers look at their own memory every ten seconds
            status = lab.ctl("site", "status").status
            assert status is not None
            pss += [worker.pss / 1e6 for worker in status.workers]
    results.add("start.site.nine_up", until_up, "s")
    results.add("start.worker.pss", pss, "MB", target=8)
    say(f"nine UP after {sorted(until_up)[len(until_up) // 2]:.2f} s; PSS of a worker {max(pss):.1f} MB at most")


# ---------------------------------------------------------------- helpers


def quiet_pings(lab: Lab, deployment: Deployment) -> Window:
    """1,000 pings through cr2."""
    return start_pings(lab, "site", [echo(deployment, "cr2")], PINGS / 100).result()["cr2"].window()


def pings_beside(lab: Lab, deployment: Deployment) -> dict[str, Window]:
    """1,000 pings through cr2, and beside them 1,000 to the hub's outer address without a tunnel."""
    bare = Stream(name="bare", target=HUB, via=Via(device="wan5"))
    replies = start_pings(lab, "site", [echo(deployment, "cr2"), bare], PINGS / 100).result()
    return {name: report.window() for name, report in replies.items()}


def losses_apart_from(report: StreamReport, kills: list[int]) -> int:
    """Losses of a stream at times when its own worker was not the one that had just been killed."""
    grace = int(KILL_SPACING * 1e9)
    return sum(1 for lost in report.losses_ns() if not any(-1e8 <= lost - when < grace for when in kills))


def worker_pid(lab: Lab, name: str) -> int:
    """The process of a site's tunnel, as the supervisor tells it."""
    status = lab.ctl("site", "status", name).status
    assert status is not None
    pid = status.workers[0].pid
    assert pid is not None
    return pid


def describe(window: Window) -> str:
    """A window in words."""
    return f"{window.lost} of {window.sent} pings lost, RTT p50 {window.p50_ms:.1f} p99 {window.p99_ms:.1f} ms"


def say(text: str) -> None:
    print(text, flush=True)


EXPERIMENTS: dict[str, Callable[[Results], None]] = {
    "isolation": isolation,
    "tcp": tcp,
    "shared": shared,
    "cpu": cpu,
    "kills": kills,
    "start": start,
}


def main(names: list[str]) -> int:
    """Runs the named experiments; 0 if every target was met, 1 if not, 2 for a name that is none."""
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        print(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}", file=sys.stderr)
        return 2
    results = Results.here()
    for name in names or EXPERIMENTS:
        say(f"--- {name}: {(EXPERIMENTS[name].__doc__ or '').splitlines()[0]}")
        EXPERIMENTS[name](results)
        results.write(OUTPUT)  # what was measured stays, even if the next experiment fails
    print(results.table())
    return 0 if all(row.met is not False for row in results.rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
