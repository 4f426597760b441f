"""A hub's worker under many sites: what its crash costs them, and what a thousand reconnects leave behind."""

from __future__ import annotations

import os
import signal
import time

import psutil

from mpq_supervisor.lifecycle import State
from tools.acceptance.ground import RTT_MS, running, say, total
from tools.many_sites import LISTENER, ManySites
from tools.probe_report import ProbeStream
from tools.results import Results, percentile
from tools.stage import Stage
from tools.system import System, open_files
from tools.traffic import start_probes
from tools.wait import pause, until

BUSY = 10
IDLE = 10
KILLS = 10
SETTLE = 2.0
HEALTHY = 11.0
"""Seconds between two kills: who dies sooner than 10 s after Ready is restarted with a pause."""
RECONNECTS = 1000
TIDY = 75.0
"""Seconds in which a worker has given back what it does not need."""
TUNNEL, WORKER = "br2", "mt5.bulk"
_SECOND = 1_000_000_000
_TUN = "/dev/net/tun"


def hub_crash(results: Results) -> None:
    """kill -9 of a hub's worker with 10 busy and 10 idle sites: all back in 0.5 s, the other class loses nothing."""
    victim = f"{LISTENER}.critical"
    with ManySites(BUSY + IDLE, RTT_MS) as many:
        many.run_all()
        busy = [many.flow(site, "cr1") for site in many.sites[:BUSY]]
        others = [many.flow(site, "br1") for site in many.sites[:BUSY]]
        times, idle_back = [], []
        probes = start_probes(many, "router", "hub", busy)
        neighbours = start_probes(many, "router", "hub", others, 20.0)
        for _ in range(KILLS):
            pause(HEALTHY)
            pid = _pid(many, victim)
            times.append(time.monotonic_ns())
            os.kill(pid, signal.SIGKILL)
            idle_back.append(_until_connected(many, victim, pid, set(many.sites[BUSY:]), times[-1]))
        pause(SETTLE)
        streams, beside = probes.result(), neighbours.result()
    back = [_back_ms(streams, begin) for begin in times]
    ends = [*times[1:], 1 << 62]
    later = sum(
        len(stream.losses_ns(begin + _SECOND, stream.under_way_ns(end)))
        for stream in streams
        for begin, end in zip(times, ends, strict=True)
    )
    results.add("hub_crash.busy.lost_later", [later], "probes sent a second after a kill or later", target=0)
    sent, lost, _ = total(beside)
    for name, values in (("busy", back), ("idle", idle_back)):
        results.add(f"hub_crash.{name}.all_back.p50", values, "ms", target=500)
        results.add(f"hub_crash.{name}.all_back.p99", [percentile(sorted(values), 99)], "ms", target=500)
        say(f"{KILLS} kills, {name} sites all back after {', '.join(f'{v:.0f}' for v in sorted(values))} ms")
    results.add("hub_crash.other_class.lost", [lost], f"probes of {sent}", target=0)
    say(f"the other class lost {lost} of {sent}")


def reconnects(results: Results) -> None:
    """1,000 times kill -9 of one site's worker: the hub's worker has what it had."""
    with running(edit=_restarted_at_once) as system:
        pid = system.pids("hub")[WORKER]
        for _ in range(20):  # what it needs once, it has by now
            _reconnect(system)
        pause(TIDY)
        before = _holdings(pid)
        for _ in range(RECONNECTS):
            _reconnect(system)
        until(lambda: len(system.workers("hub")[WORKER].sites) == 1)
        pause(TIDY)  # connections that were given up are forgotten, and their memory
        after = _holdings(pid)
        same = system.pids("hub")[WORKER] == pid
    (fds, tuns, pss), (fds_after, tuns_after, pss_after) = before, after
    results.add("reconnects.hub.same_process", [float(same)], "1", target=1, better="higher")
    results.add("reconnects.hub.descriptors", [fds_after - fds], f"more than {fds}", target=0)
    results.add("reconnects.hub.tun_readers", [tuns_after], "descriptors", target=tuns)
    growth = 100 * (pss_after / pss - 1)
    results.add("reconnects.hub.pss", [growth], f"% more than {pss / 1e6:.2f} MB", target=2)
    say(f"{RECONNECTS} reconnects: descriptors {fds} → {fds_after}, TUNs {tuns} → {tuns_after}, PSS {growth:+.2f} %")


# ---------------------------------------------------------------- helpers


def _pid(stage: Stage, worker: str) -> int:
    status = stage.ctl("hub", "status", worker).status
    assert status is not None
    pid = status.workers[0].pid
    assert pid is not None
    return pid


def _until_connected(stage: Stage, worker: str, old: int, sites: set[str], begin: int) -> float:
    """Milliseconds from `begin` until the last of these sites was connected to the worker's next process.

    A worker reports once a second for how long each connection has been up, so that a report that is seen at once
    tells the moment.
    """
    back: dict[str, float] = {}

    def complete() -> bool:
        status = stage.ctl("hub", "status", worker).status
        now = time.monotonic_ns()
        assert status is not None
        if status.workers[0].pid != old:
            for site in status.workers[0].sites:
                back.setdefault(site.site, (now - begin) / 1e6 - site.since * 1e3)
        return sites <= set(back)

    until(complete, lambda: f"{sorted(sites - set(back))} not connected", seconds=60)
    return max(back[site] for site in sites)


def _back_ms(streams: list[ProbeStream], begin: int) -> float:
    """From `begin` to the end of the last outage that had begun by a second after it."""
    ends = [o.end_ns for stream in streams for o in stream.outages(stream.under_way_ns(begin), begin + _SECOND)]
    return (max(ends) - begin) / 1e6 if ends else 0.0


def _restarted_at_once(text: str) -> str:
    """The configuration of a host on which a worker may die again and again without a pause."""
    return text.replace("supervisor = {", "watchdog = { healthy_after = 0.01 }\nsupervisor = {")


def _reconnect(system: System) -> None:
    """The site's worker dies without a word, and the next one has the hub's answer. Raises TimeoutError if not."""
    pid = system.pids("site")[TUNNEL]
    os.kill(pid, signal.SIGKILL)
    until(lambda: (w := system.workers("site")[TUNNEL]).state is State.UP and w.pid != pid)


def _holdings(pid: int) -> tuple[int, int, int]:
    """A process's descriptors, how many of them are a TUN, and its PSS in bytes."""
    files = open_files(pid)
    return len(files), files.count(_TUN), psutil.Process(pid).memory_full_info().pss
