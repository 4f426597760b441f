"""A run of `make chaos` goes on after a fault that went wrong, and ends in order when it is told to or must."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import cast

import psutil
import pytest

from mpq_supervisor.status import HostStatus
from tools.chaos.inject import Injector
from tools.chaos.plan import Fault, Place
from tools.chaos.run import Interrupt, Outcome, run
from tools.lab import Leaks
from tools.system import System

PLAN = [Fault(number, "zygote.kill", "site", "zygote", 0.0, ()) for number in (1, 2, 3)]
PLACES: dict[str, Place] = {}


class FakeSystem:
    """Both ends answer, and are whole when `zygote_pid` is a number."""

    def __init__(self) -> None:
        self.lab = self
        self.zygote_pid: int | None = 7

    def status(self, side: str) -> HostStatus:
        return HostStatus("site", side, 1, 0.0, self.zygote_pid, 0, (), ())

    def runs(self, side: str) -> bool:
        return True

    def answers(self, side: str) -> bool:
        return True

    def ctl(self, *_: object, **__: object) -> None: ...

    def leaks(self) -> Leaks:
        return Leaks(0, 0)


class FakeLedger:
    def __init__(self, system: FakeSystem) -> None: ...

    def turn(self) -> dict[str, int]:
        return {"site br2 codel": 3}


class FakeInjector:
    def __init__(self, doer: Callable[[Fault], None]) -> None:
        self.do = doer


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def until(condition: Callable[[], object], what: Callable[[], str] = str, seconds: float = 0.0) -> None:
        if not condition():
            raise TimeoutError(what())

    monkeypatch.setattr("tools.chaos.run.until", until)
    monkeypatch.setattr("tools.chaos.run.pause", lambda seconds: None)
    monkeypatch.setattr("tools.chaos.run.Ledger", FakeLedger)


def outcome_of(system: FakeSystem, doer: Callable[[Fault], None]) -> Outcome:
    with Interrupt() as interrupt:
        injector = cast(Injector, FakeInjector(doer))
        return run(cast(System, system), injector, PLAN, PLACES, lambda line: None, interrupt)


@pytest.mark.parametrize("error", [psutil.NoSuchProcess(4711), ProcessLookupError(), KeyError("site")])
def test_a_fault_that_went_wrong_is_told_and_the_next_one_comes(error: Exception) -> None:
    def do(fault: Fault) -> None:
        if fault.number == 2:
            raise error

    outcome = outcome_of(FakeSystem(), do)
    assert [event.fault.number for event in outcome.events] == [1, 2, 3]
    assert [violation.startswith(f"{PLAN[1]}: {type(error).__name__}") for violation in outcome.violations] == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_plan_after_the_fault_under_way(number: signal.Signals) -> None:
    outcome = outcome_of(FakeSystem(), lambda fault: os.kill(os.getpid(), number) if fault.number == 2 else None)
    assert [event.fault.number for event in outcome.events] == [1, 2]
    assert outcome.violations == []
    assert [event.drops for event in outcome.events] == [{"site br2 codel": 3}] * 2


def test_a_system_that_cannot_be_put_in_order_ends_the_run_with_its_results() -> None:
    system = FakeSystem()

    def do(fault: Fault) -> None:
        if fault.number == 2:
            system.zygote_pid = None

    outcome = outcome_of(system, do)
    assert [event.up_ns is None for event in outcome.events] == [False, True]
    assert outcome.violations == [f"the run ends with {PLAN[1]}: hub has no zygote; site has no zygote"]
