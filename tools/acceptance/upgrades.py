"""The whole supervisor restarted as systemd does it, and as another release: running tunnels must not notice.

Everything under numbered probes both ways, 200/s per tunnel and direction.
"""

from __future__ import annotations

import time

from mpq_supervisor.lifecycle import State
from tools.acceptance.ground import longest_outage_ms, running, say, total
from tools.lab import Lab
from tools.product import Side
from tools.results import Results
from tools.system import SIDES, System
from tools.traffic import start_probes
from tools.wait import pause, until

RESTARTS = 20
SPACING = 1.0
LAST_RELEASE = "tests.frozen.host"
"""This release's processes, with the last one's messages between them."""
_PATIENCE = 90.0


def supervisor(results: Results) -> None:
    """The supervisor restarted 20 times, at each end in turn: its workers are adopted, nothing is lost."""
    with running() as system:
        before = {side: system.pids(side) for side in SIDES}
        probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
        pause(SPACING)
        for number in range(RESTARTS):
            system.restart(SIDES[number % len(SIDES)])
            pause(SPACING)
        streams = probes.result()
        replaced = sum(system.pids(side)[name] != pid for side in SIDES for name, pid in before[side].items())
    sent, lost, overtaken = total(streams)
    results.add("supervisor.lost", [lost], f"probes of {sent} in {RESTARTS} restarts", target=0)
    results.add("supervisor.overtaken", [overtaken], f"probes of {sent}", target=0)
    results.add("supervisor.workers_not_adopted", [replaced], "workers", target=0)
    say(f"{RESTARTS} restarts: {lost} lost and {overtaken} overtaken of {sent}, {replaced} workers replaced")


def upgrade(results: Results) -> None:
    """Each end to the last release and back to this one: all its workers adopted and replaced, nothing is lost."""
    with running() as system:
        for side in SIDES:
            for release, name in ((LAST_RELEASE, "back"), (Lab.release, "up")):
                probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
                pause(SPACING)
                begin, system.lab.release = time.monotonic_ns(), release
                workers = change_release(system, side)
                seconds = (time.monotonic_ns() - begin) / 1e9
                pause(SPACING)
                streams = probes.result()
                sent, lost, overtaken = total(streams)
                key = f"upgrade.{side}.{name}"
                results.add(f"{key}.lost", [lost], f"probes of {sent}", target=0)
                results.add(f"{key}.overtaken", [overtaken], f"probes of {sent}", target=0)
                results.add(f"{key}.outage.max", [longest_outage_ms(streams, begin, 1 << 62)], "ms")
                say(f"{side}, {name}: {workers} workers replaced in {seconds:.0f} s")
                say(f"{lost} lost and {overtaken} overtaken of {sent}")


def change_release(system: System, side: Side) -> int:
    """Restart a supervisor as the release that the lab has now; returns how many workers that has replaced."""
    before = set(system.pids(side).values())
    system.restart(side)
    until(lambda: not before & set(system.pids(side).values()), seconds=_PATIENCE)
    until(lambda: all(worker.state is State.UP for worker in system.workers(side).values()))
    return len(before)
