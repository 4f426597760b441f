"""`make chaos`: faults of every kind, one after the other, under numbered probes; build/chaos.json and chaos.png.

    make chaos                                      about four minutes
    make chaos HOURS=1 SEED=7                       a fault every three seconds or so
    python -m tools.chaos --faults 40 --kinds worker.kill zygote.stop --rate 100 --mbit 1

The plan comes from the seed alone and is printed as it goes. After each fault both ends must be UP within the bound
of its kind. Afterwards every probe of every tunnel is accounted for (`judge`), and the hosts are compared with what
they were before (`inventory`). The logs of both ends, every fault with its damage (faults.log) and what was violated
(violations.log) are kept in build/chaos-logs. SIGINT or SIGTERM ends the plan after the fault that is under way; what
came until then is judged and written as always.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from mpq_supervisor.config import load
from mpq_supervisor.plan import make_plan as make_host_plan
from tools.chaos import plot
from tools.chaos.clock import Clock
from tools.chaos.inject import Injector
from tools.chaos.judge import Verdict, judge
from tools.chaos.kinds import BY_NAME, KINDS
from tools.chaos.memory import MemoryGroup
from tools.chaos.plan import Place, make_plan
from tools.chaos.report import add_rows, by_kind, impact_lines, kinds_table
from tools.chaos.run import SLOT, Interrupt, left_behind, run, settled, whole
from tools.lab import Lab
from tools.lab_config import Deployment, deploy
from tools.probe_report import ProbeStream
from tools.results import Results
from tools.system import SIDES, System
from tools.topology import SERVER, WANS
from tools.traffic import start_load, start_probes
from tools.udp_load import LoadFlow
from tools.wait import until

LOGS = Path("build/chaos-logs")
OUTPUT = Path("build/chaos.json")
PICTURE = Path("build/chaos.png")
RTT_MS = 20
DISK = "32m"
"""Of each end; its portal's history takes 16 MB at most, and its write-ahead log."""
_LOAD_PORT = 7500
_AT_MOST = 100 * 3600.0


def main(arguments: list[str]) -> int:
    """0 if nothing was violated, 1 if something was or the plan was interrupted, 2 for arguments that are none."""
    options = _parser().parse_args(arguments)
    kinds = [BY_NAME[name] for name in options.kinds] if options.kinds else KINDS
    count = options.faults or max(1, round(options.hours * 3600 / SLOT))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f"seed {options.seed}, {count} faults, {options.rate:g} probes/s, {options.mbit:g} Mbit/s per tunnel"
    )
    with ExitStack() as stack:
        lab = Lab()
        # Before the lab, so that they end after it: a group must be empty then.
        memory = {side: stack.enter_context(MemoryGroup(f"{lab.prefix}-{side}")) for side in SIDES}
        stack.enter_context(lab)
        for wan in WANS:
            lab.delay(wan, RTT_MS)
        clock = Clock(lab.directory / "clock")
        lab.environment = clock.environment
        deployment = deploy(lab.directory, portals=True)
        places = places_of(deployment)
        plan = make_plan(options.seed, count, places, kinds)
        system = System(lab, deployment)
        for side in SIDES:
            lab.limit_disk(side, DISK)
            system.start(side)
            memory[side].take(system.products[side].pid)
        until(lambda: whole(system, places))
        probes = start_probes(lab, "lan", "server", deployment.probes(), options.rate)
        load = start_load(lab, "lan", "server", _load(deployment, options.mbit), _AT_MOST)
        injector = Injector(system, memory, clock)
        before = settled(system)
        interrupt = stack.enter_context(Interrupt())
        outcome = run(system, injector, plan, places, lambda line: _say(console, line), interrupt)
        load.stop()
        streams, loads = probes.result(), load.result()
        left = left_behind(system, injector, before)
        LOGS.mkdir(parents=True, exist_ok=True)
        for side in SIDES:
            shutil.copy(lab.directory / f"{side}.log", LOGS)
        # Inside: what is written now survives whatever the lab's end brings.
        results = Results.here()
        results.add("chaos.faults", [len(outcome.events)], "faults", target=count, better="higher")
        results.add("chaos.hosts.violations", [len(outcome.violations) + len(left)], "violations", target=0)
        results.add("chaos.victims.gone", [system.misses], "gone when a fault was to hit them")
        results.add("chaos.cpu.idle", [outcome.idle], "1")
        if loads:
            ratios = [load.received_ratio for load in loads.values()]
            results.add("chaos.load.received_ratio", ratios, f"1, at {options.mbit:g} Mbit/s per tunnel")
        verdict = judge(outcome.events, streams)
        violations = [*verdict.violations, *outcome.violations, *left]
        _report(console, results, verdict, streams, violations, options.seed)
    if interrupt.came:
        console.print(f"interrupted after {len(outcome.events)} of {count} faults")
    return 1 if violations or interrupt.came else 0


def _report(
    console: Console,
    results: Results,
    verdict: Verdict,
    streams: list[ProbeStream],
    violations: list[str],
    seed: int,
) -> None:
    """Say and write all that came of it."""
    add_rows(results, verdict, streams)
    results.write(OUTPUT)
    (LOGS / "faults.log").write_text("".join(f"{line}\n" for line in impact_lines(verdict.impacts)))
    (LOGS / "violations.log").write_text("".join(f"{line}\n" for line in violations))
    console.print(kinds_table(verdict.impacts))
    for violation in violations:
        console.print(f"VIOLATION {violation}", soft_wrap=True, markup=False, highlight=False)
    outages = {kind: [i.outage_ms for i in impacts] for kind, impacts in by_kind(verdict.impacts).items()}
    plot.plot_outages(PICTURE, outages, f"make chaos, seed {seed}, commit {results.meta.commit}")
    idle = next(row.value for row in results.rows if row.id == "chaos.cpu.idle")
    console.print(f"{len(results.rows)} figures in {OUTPUT}, picture in {PICTURE}; CPU idle {100 * idle:.0f} %")


def places_of(deployment: Deployment) -> dict[str, Place]:
    """Where each tunnel runs."""
    workers = {(w.port, w.traffic_class): w for w in make_host_plan(load(deployment.hub)).hub_workers}
    places = {}
    for name, tunnel in deployment.tunnels.items():
        worker = workers[tunnel.hub_port, tunnel.traffic_class]
        places[name] = Place(tunnel.wan, worker.name, worker.tun)
    return places


def _load(deployment: Deployment, mbit: float) -> list[LoadFlow]:
    """The same traffic through each tunnel, or none."""
    return [
        LoadFlow(name=name, target=SERVER, port=_LOAD_PORT + i, mbit=mbit, via=deployment.via(name))
        for i, name in enumerate(deployment.tunnels if mbit else ())
    ]


def _say(console: Console, line: str) -> None:
    """A line with the time of day, as in the logs of both ends."""
    console.print(f"{time.strftime('%H:%M:%S')} {line}", soft_wrap=True, markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description="Faults under numbered probes.")
    parser.add_argument("--hours", type=float, default=0.06, help="how long, at a fault every three seconds")
    parser.add_argument("--faults", type=int, default=0, help="how many, instead of how long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", choices=sorted(BY_NAME), default=[], help="only these; default: all")
    parser.add_argument("--rate", type=float, default=200.0, help="probes/s per tunnel and direction")
    parser.add_argument("--mbit", type=float, default=5.0, help="traffic upwards beside the probes, per tunnel")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
