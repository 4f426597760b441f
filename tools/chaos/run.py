"""A run: the plan's faults, one after the other, on a system under probes, and what came of each."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import msgspec
import psutil

from mpq_supervisor.lifecycle import State
from tools.chaos.inject import Injector
from tools.chaos.inventory import Inventory, differences, take_inventory
from tools.chaos.judge import Event
from tools.chaos.kinds import BY_NAME
from tools.chaos.ledger import Ledger
from tools.chaos.plan import Fault, Place
from tools.system import AGAIN, SIDES, System
from tools.wait import PATIENCE, pause, until

SLOT = 3.0
"""Seconds from one fault to the next at least."""
SETTLE = 1.0
"""Seconds from UP to the next fault at least: what is lost then, is lost without a reason."""
WARM_UP = 11.0
"""Seconds before the first fault: a worker that dies sooner than 10 s after Ready is restarted with a pause."""

FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, psutil.Error)
"""Of looking at a system and of putting it in order, where it is in no order; TimeoutError is an OSError."""


class Outcome(msgspec.Struct, frozen=True):
    """The faults as they came, what went wrong beside them, and the share of CPU that was idle meanwhile."""

    events: list[Event]
    violations: list[str]
    idle: float


class Interrupt:
    """SIGINT and SIGTERM inside are noted, and nothing else: what was measured so far is to be told."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def run(
    system: System,
    injector: Injector,
    plan: Sequence[Fault],
    places: Mapping[str, Place],
    say: Callable[[str], None],
    interrupt: Interrupt,
) -> Outcome:
    """Do the plan, as far as nobody interrupts it and the system can be put in order. `say` gets a line per fault."""
    violations: list[str] = []
    leaked = 0
    events = []
    ledger = Ledger(system)
    psutil.cpu_times_percent()
    for fault in plan:
        if interrupt.came:
            break
        begin = time.monotonic_ns()
        try:
            injector.do(fault)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others' results are kept
            violations.append(f"{fault}: {type(error).__name__}: {error}")
        end = time.monotonic_ns()
        up = _until_up(system, places, BY_NAME[fault.kind].bound)
        say(f"{fault}: {_course(begin, end, up)}")
        try:
            if up is None:
                say(f"     {states(system)}")
                _put_in_order(system, injector, places)
            leaks = system.lab.leaks()
            now = time.monotonic_ns()
            pause(max(0.0, SETTLE, SLOT - (now - begin) / 1e9))
            events.append(Event(fault, begin, end, up, ledger.turn()))
        except FAILURES as error:
            events.append(Event(fault, begin, end, up))
            violations.append(f"the run ends with {fault}: {error}")
            break
        if leaks.site + leaks.hub > leaked:
            violations.append(f"{leaks.site + leaks.hub - leaked} packets in clear after {fault}")
            leaked = leaks.site + leaks.hub
    return Outcome(events, violations, psutil.cpu_times_percent().idle / 100)


def settled(system: System) -> Inventory:
    """What the hosts have when everything runs and nothing has happened for a while."""
    until(lambda: all(map(system.portal, SIDES)), lambda: "a portal does not run", seconds=AGAIN)
    pause(WARM_UP)
    return take_inventory(system)


def left_behind(system: System, injector: Injector, before: Inventory) -> list[str]:
    """What the hosts have too much or too little of since `before`, in words."""
    try:
        injector.restore()
        return differences(before, settled(system))
    except FAILURES as error:
        return [f"the hosts cannot be looked at: {error}"]


def whole(system: System, places: Mapping[str, Place]) -> bool:
    """Whether both ends have a zygote, every worker is UP and every hub worker has its site's connection."""
    try:
        site, hub = system.status("site"), system.status("hub")
    except OSError:  # no supervisor answers
        return False
    up = all(worker.state is State.UP for worker in (*site.workers, *hub.workers))
    connected = {worker.name: len(worker.sites) for worker in hub.workers}
    guarded = site.zygote_pid is not None and hub.zygote_pid is not None
    return up and guarded and all(connected[place.hub_worker] == 1 for place in places.values())


def states(system: System) -> str:
    """Who is not UP, and why; or that nobody answers."""
    told = []
    for side in SIDES:
        try:
            status = system.status(side)
        except OSError as error:
            told.append(f"{side}: {error}")
            continue
        told += [f"{side} {w.name}: {w.state} {w.reason}" for w in status.workers if w.state is not State.UP]
        told += [f"{side} has no zygote"] * (status.zygote_pid is None)
    return "; ".join(told) or "all UP, but not every hub worker has its site"


def _until_up(system: System, places: Mapping[str, Place], seconds: float) -> int | None:
    try:
        until(lambda: whole(system, places), seconds=seconds)
    except TimeoutError:
        return None
    return time.monotonic_ns()


def _put_in_order(system: System, injector: Injector, places: Mapping[str, Place]) -> None:
    """What an operator would do, so that the next fault finds a whole system. Raises `TimeoutError` if it is none."""
    for side in SIDES:
        if not system.runs(side):
            injector.start(side)
    until(lambda: all(map(system.answers, SIDES)), lambda: states(system), seconds=60)
    for side in SIDES:
        system.lab.ctl(side, "start", "all", wait=PATIENCE)
    until(lambda: whole(system, places), lambda: states(system), seconds=60)


def _course(begin: int, end: int, up: int | None) -> str:
    """How long the fault took, where it did, and how long it was until all was UP; in s since its beginning."""
    lasted = f"over after {(end - begin) / 1e9:.2f} s, " if end - begin > 1e8 else ""
    return f"{lasted}{'not UP in time' if up is None else f'all UP after {(up - begin) / 1e9:.2f} s'}"
