"""Planned restarts, and guardians (zygote, supervisor) that die or stand still: running tunnels must not notice.

Everything under numbered probes both ways, 200/s per tunnel and direction.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from mpq_supervisor.requests import Code, Response
from tools.acceptance.ground import RTT_MS, add_outages, longest_outage_ms, running, say, total
from tools.many_sites import LISTENER, ManySites
from tools.probe_report import ProbeStream
from tools.product import Side
from tools.results import Results
from tools.system import SIDES, System
from tools.traffic import start_probes
from tools.wait import end, pause, until

RESTARTS = 50
SPACING = 1.0
SITES = 10
STANDSTILL = 2.0
"""Seconds that a supervisor is away or stopped."""
SETTLE = 2.0
VICTIMS: dict[Side, tuple[str, str]] = {"site": ("br2", "br2"), "hub": ("mt5.bulk", "br2")}
"""The worker that dies while nobody looks, and its tunnel."""


def planned_site(results: Results) -> None:
    """50 planned restarts of site workers, all nine in turn: nothing is lost or overtaken on any tunnel."""
    with running() as system:
        names = list(system.tunnels)
        probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
        pause(SETTLE)
        times, failed = [], 0
        for number in range(RESTARTS):
            times.append(time.monotonic_ns())
            failed += _refused(system.lab.ctl("site", "restart", names[number % len(names)], wait=10))
            pause(SPACING)
        streams = probes.result()
    _report_planned(results, "planned.site", streams, times, failed)


def planned_hub(results: Results) -> None:
    """50 planned restarts of a hub's worker with 10 sites connected: nothing is lost or overtaken."""
    with ManySites(SITES, RTT_MS) as many:
        many.run_all()
        flows = [many.flow(site, "cr1") for site in many.sites]
        probes = start_probes(many, "router", "hub", flows)
        pause(SETTLE)
        times, failed = [], 0
        for _ in range(RESTARTS):
            times.append(time.monotonic_ns())
            failed += _refused(many.ctl("hub", "restart", f"{LISTENER}.critical", wait=10))
            pause(SPACING)
        streams = probes.result()
    _report_planned(results, "planned.hub", streams, times, failed)


def guardians(results: Results) -> None:
    """Zygote and supervisor killed or stopped: no tunnel loses a packet, and who dies meanwhile is back in 1 s."""
    with running() as system:
        for side in SIDES:
            for who in ("zygote", "supervisor"):
                for number in (signal.SIGKILL, signal.SIGSTOP):
                    _guardian(results, system, side, who, number)


# ---------------------------------------------------------------- helpers


def _guardian(results: Results, system: System, side: Side, who: str, number: signal.Signals) -> None:
    victim, tunnel = VICTIMS[side]
    pause(11)  # a worker that dies sooner than 10 s after Ready is restarted with a pause
    probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
    pause(SETTLE)
    pid = system.pids(side)[victim]
    begin = time.monotonic_ns()
    if who == "zygote":
        zygote = system.status(side).zygote_pid
        assert zygote is not None
        os.kill(zygote, number)
        os.kill(pid, signal.SIGKILL)
        until(lambda: system.status(side).zygote_pid not in (None, zygote), seconds=30)
        back = time.monotonic_ns()
    else:
        supervisor = system.products[side].pid
        os.kill(supervisor, number) if number is signal.SIGSTOP else end(supervisor, number)
        os.kill(pid, signal.SIGKILL)
        pause(STANDSTILL)
        if number is signal.SIGSTOP:
            os.kill(supervisor, signal.SIGCONT)
        else:
            system.start(side)
        back = time.monotonic_ns()
    with suppress(TimeoutError):  # then the figures tell
        until(lambda: system.lab.ctl(side, "start", "all", wait=1).code is Code.OK, seconds=20)
    pause(SETTLE)
    streams = probes.result()
    _, others, _ = total(stream for stream in streams if stream.name != tunnel)
    own = [outage for stream in streams if stream.name == tunnel for outage in stream.outages(begin)]
    after = max((outage.end_ns - back for outage in own), default=0) / 1e6
    key = f"guardian.{side}.{who}.{number.name}"
    results.add(f"{key}.others_lost", [others], f"probes of {total(streams)[0]}", target=0)
    results.add(f"{key}.back_after_return", [max(after, 0.0)], "ms", target=1000)
    say(f"{side} {who} {number.name}: others lost {others}; {tunnel} back {after:.0f} ms after its return")


def _report_planned(results: Results, key: str, streams: list[ProbeStream], times: list[int], failed: int) -> None:
    sent, lost, overtaken = total(streams)
    at_rest = sum(len(stream.losses_ns(0, stream.under_way_ns(times[0]))) for stream in streams)
    ends = [*times[1:], 1 << 62]
    outages = [longest_outage_ms(streams, begin, end) for begin, end in zip(times, ends, strict=True)]
    results.add(f"{key}.failed", [failed], f"of {len(times)} restarts", target=0)
    results.add(f"{key}.lost", [lost], f"probes of {sent}", target=0)
    results.add(f"{key}.lost_before_the_first", [at_rest], "probes", target=0)
    results.add(f"{key}.overtaken", [overtaken], f"probes of {sent}", target=0)
    add_outages(results, f"{key}.outage", outages)
    say(f"{len(times)} restarts, {failed} failed: {lost} lost and {overtaken} overtaken of {sent}")


def _refused(response: Response) -> bool:
    if response.code is not Code.OK:
        say(f"restart: {response.code.name}: {'; '.join(response.lines)}")
    return response.code is not Code.OK
