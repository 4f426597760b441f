"""A run: the plan's faults, one after the other, on a system under probes, and what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import psutil

from mpq_supervisor.lifecycle import State
from tools.chaos.inject import Injector
from tools.chaos.inventory import Inventory, take_inventory
from tools.chaos.judge import Event
from tools.chaos.kinds import BY_NAME
from tools.chaos.plan import Fault, Place
from tools.system import SIDES, System
from tools.wait import PATIENCE, pause, until

SLOT = 3.0
"""Seconds from one fault to the next at least."""
SETTLE = 1.0
"""Seconds from UP to the next fault at least: what is lost then, is lost without a reason."""
WARM_UP = 11.0
"""Seconds before the first fault: a worker that dies sooner than 10 s after Ready is restarted with a pause."""


class Outcome(msgspec.Struct, frozen=True):
    """The faults as they came, what went wrong beside them, and the share of CPU that was idle meanwhile."""

    events: list[Event]
    violations: list[str]
    idle: float


def run(
    system: System,
    injector: Injector,
    plan: Sequence[Fault],
    places: Mapping[str, Place],
    say: Callable[[str], None],
) -> Outcome:
    """Do the whole plan. `say` gets a line per fault."""
    violations: list[str] = []
    leaked = 0
    events = []
    psutil.cpu_times_percent()
    for fault in plan:
        begin = time.monotonic_ns()
        try:
            injector.do(fault)
        except (OSError, RuntimeError, AssertionError) as error:  # TimeoutError is one; the system is put in order
            violations.append(f"{fault}: {error}")
        end = time.monotonic_ns()
        up = _until_up(system, places, BY_NAME[fault.kind].bound)
        events.append(Event(fault, begin, end, up))
        say(f"{fault}: {'not UP in time' if up is None else f'all UP after {(up - begin) / 1e9:.2f} s'}")
        if up is None:
            _put_in_order(system, places)
        leaks = system.lab.leaks()
        if leaks.site + leaks.hub > leaked:
            violations.append(f"{leaks.site + leaks.hub - leaked} packets in clear after {fault}")
            leaked = leaks.site + leaks.hub
        now = time.monotonic_ns()
        pause(max(0.0, SETTLE, SLOT - (now - begin) / 1e9))
    return Outcome(events, violations, psutil.cpu_times_percent().idle / 100)


def settled(system: System) -> Inventory:
    """What the hosts have when nothing has happened for a while."""
    pause(WARM_UP)
    return take_inventory(system)


def whole(system: System, places: Mapping[str, Place]) -> bool:
    """Whether every worker is UP and every hub worker has its site's connection."""
    try:
        site, hub = system.workers("site"), system.workers("hub")
    except OSError:  # no supervisor answers
        return False
    up = all(worker.state is State.UP for worker in (*site.values(), *hub.values()))
    return up and all(len(hub[place.hub_worker].sites) == 1 for place in places.values())


def _until_up(system: System, places: Mapping[str, Place], seconds: float) -> int | None:
    try:
        until(lambda: whole(system, places), seconds=seconds)
    except TimeoutError:
        return None
    return time.monotonic_ns()


def _put_in_order(system: System, places: Mapping[str, Place]) -> None:
    """What an operator would do, so that the next fault finds a whole system. Raises `TimeoutError` if it is none."""
    for side in SIDES:
        if not system.runs(side):
            system.start(side)
        system.lab.ctl(side, "start", "all", wait=PATIENCE)
    until(lambda: whole(system, places), lambda: _states(system), seconds=60)


def _states(system: System) -> str:
    workers = [worker for side in SIDES for worker in system.workers(side).values()]
    return str({worker.name: (worker.state, worker.reason) for worker in workers if worker.state is not State.UP})
