"""What a fault does: from its beginning to its end, that is until it is undone where it can be undone."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from mpq_supervisor.requests import Code
from tools.chaos.clock import Clock
from tools.chaos.descriptors import none_left
from tools.chaos.memory import MemoryGroup
from tools.chaos.plan import Fault
from tools.product import Side
from tools.system import System
from tools.topology import HUB, Flow
from tools.wait import end, pause, until

JUMPS = (86_400.0, -1_800.0)
"""Seconds by which the wall clock jumps. Certificates are good from an hour before they are made."""
RESTART_DELAY = 0.25
"""Seconds until whoever manages services starts a dead supervisor again: RestartSec= of the unit."""
_SHORTAGE = os.strerror(errno.EMFILE)


class Injector:
    """Does faults to a running system. `memory` are the groups that its two supervisors were started in, `clock` is
    the one that both go by."""

    def __init__(self, system: System, memory: dict[Side, MemoryGroup], clock: Clock) -> None:
        self._system = system
        self._lab = system.lab
        self._memory = memory
        self._clock = clock
        self._moves = 0
        self._moved: set[int] = set()
        self._doers: dict[str, Callable[[Fault], None]] = {
            "worker.kill": lambda fault: self._end(fault.side, fault.victim, signal.SIGKILL),
            "worker.segv": lambda fault: self._end(fault.side, fault.victim, signal.SIGSEGV),
            "worker.term": lambda fault: self._end(fault.side, fault.victim, signal.SIGTERM),
            "worker.stop": lambda fault: self._end(fault.side, fault.victim, signal.SIGSTOP),
            "worker.pause": lambda fault: self._pause(fault.side, fault.victim, fault.seconds),
            "worker.restart": self._restart,
            "zygote.kill": lambda fault: self._end(fault.side, "zygote", signal.SIGKILL),
            "zygote.stop": lambda fault: self._end(fault.side, "zygote", signal.SIGSTOP),
            "supervisor.pause": lambda fault: self._pause(fault.side, "supervisor", fault.seconds),
            "supervisor.kill": lambda fault: self._end_supervisor(fault.side, signal.SIGKILL),
            "supervisor.segv": lambda fault: self._end_supervisor(fault.side, signal.SIGSEGV),
            "supervisor.stop": self._stop_supervisor,
            "supervisor.restart": lambda fault: self._succeed(fault.side, self._system.restart),
            "service.stop": self._stop_service,
            "portal.kill": lambda fault: self._end(fault.side, "portal", signal.SIGKILL),
            "portal.stop": lambda fault: self._pause(fault.side, "portal", fault.seconds),
            "disk.full": self._fill_disk,
            "descriptors.none": self._exhaust_descriptors,
            "memory.none": self._exhaust_memory,
            "clock.jump": self._set_clock,
            "tun.delete": self._delete_tun,
            "wan.down": self._wan_down,
            "wan.remove": self._remove_wan,
            "wan.carrier": self._pull_cable,
            "wan.address": self._change_address,
            "wan.blackout": self._black_out,
            "wan.rebind": lambda fault: self._lab.rebind(_wan(fault)),
            "hub.address": self._take_hub_address,
        }

    def do(self, fault: Fault) -> None:
        """Inject the fault and return at its end."""
        self._doers[fault.kind](fault)

    def start(self, side: Side) -> None:
        """The next supervisor of an end, in the place of one that is dead."""
        self._succeed(side, self._system.start)

    def restore(self) -> None:
        """Give the WANs the addresses that they had at the beginning."""
        for wan in self._moved:
            self._lab.address(wan, f"100.64.{wan}.2/24")

    # ------------------------------------------------------------ processes

    def _end(self, side: Side, name: str, number: signal.Signals) -> None:
        """Returns when the process is gone, which after SIGSTOP is the watchdog's work."""
        with self._system.hold(side, name) as held:
            held.send(number)
            held.wait_end()

    def _pause(self, side: Side, name: str, seconds: float) -> None:
        with self._system.hold(side, name) as held:
            held.send(signal.SIGSTOP)
            pause(seconds)
            held.send(signal.SIGCONT)  # unless the watchdog was faster

    def _restart(self, fault: Fault) -> None:
        response = self._lab.ctl(fault.side, "restart", fault.victim, wait=10)
        if response.code is not Code.OK:
            raise RuntimeError(f"{response.code.name}: {'; '.join(response.lines)}")

    def _end_supervisor(self, side: Side, number: signal.Signals) -> None:
        end(self._system.products[side].pid, number)
        pause(RESTART_DELAY)
        self.start(side)

    def _stop_supervisor(self, fault: Fault) -> None:
        """As the service manager's watchdog finds it, and ends it."""
        os.kill(self._system.products[fault.side].pid, signal.SIGSTOP)
        pause(fault.seconds)
        self._end_supervisor(fault.side, signal.SIGKILL)

    def _stop_service(self, fault: Fault) -> None:
        self._system.stop(fault.side)
        pause(RESTART_DELAY)
        self.start(fault.side)

    def _succeed(self, side: Side, begin: Callable[[Side], None]) -> None:
        """In the group of the last one, also if it takes too long until it is ready."""
        try:
            begin(side)
        finally:
            self._memory[side].take(self._system.products[side].pid)

    # ------------------------------------------------------------ what a host runs short of

    def _fill_disk(self, fault: Fault) -> None:
        filler = self._lab.directory / fault.side / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            self._end(fault.side, fault.victim, signal.SIGKILL)
            pause(fault.seconds)
        finally:
            filler.unlink()

    def _exhaust_descriptors(self, fault: Fault) -> None:
        """Lasts until the supervisor has wanted one in vain, and `seconds` more."""
        side, before = fault.side, len(self._system.log(fault.side))
        with self._system.hold(side, fault.victim) as held, none_left(self._system.products[side].pid):
            held.send(signal.SIGKILL)
            until(lambda: _SHORTAGE in self._system.log(side)[before:], lambda: f"{side} lacked nothing", every=0.1)
            pause(fault.seconds)

    def _exhaust_memory(self, fault: Fault) -> None:
        with self._system.hold(fault.side, fault.victim) as held:
            self._memory[fault.side].exhaust(held)

    def _set_clock(self, fault: Fault) -> None:
        self._clock.set(JUMPS[fault.number % len(JUMPS)])
        pause(fault.seconds)
        self._clock.set(0.0)

    # ------------------------------------------------------------ interfaces, addresses, ways

    def _delete_tun(self, fault: Fault) -> None:
        """Returns when the worker has ended that held it: until then everything looks as if nothing had happened."""
        workers = self._system.workers(fault.side).values()
        with self._system.hold(fault.side, next(w.name for w in workers if w.tun == fault.victim)) as held:
            self._lab.run(fault.side, ["ip", "link", "del", fault.victim])
            held.wait_end()

    def _wan_down(self, fault: Fault) -> None:
        self._lab.run("site", ["ip", "link", "set", fault.victim, "down"])
        pause(fault.seconds)
        self._lab.renew(_wan(fault))

    def _remove_wan(self, fault: Fault) -> None:
        self._lab.remove_wan(_wan(fault))
        pause(fault.seconds)
        self._lab.return_wan(_wan(fault))

    def _pull_cable(self, fault: Fault) -> None:
        self._lab.carrier(_wan(fault), False)
        pause(fault.seconds)
        self._lab.carrier(_wan(fault), True)

    def _change_address(self, fault: Fault) -> None:
        self._moves += 1
        self._moved.add(_wan(fault))
        self._lab.address(_wan(fault), f"100.{65 + self._moves % 60}.{_wan(fault)}.2/24")

    def _black_out(self, fault: Fault) -> None:
        flow = Flow(wan=_wan(fault))
        self._lab.drop_all(flow)
        pause(fault.seconds)
        self._lab.clear_loss()

    def _take_hub_address(self, fault: Fault) -> None:
        self._lab.run("hub", ["ip", "addr", "del", f"{HUB}/24", "dev", "ens3"])
        pause(fault.seconds)
        self._lab.run("hub", ["ip", "addr", "add", f"{HUB}/24", "dev", "ens3"])
        self._lab.run("hub", ["ip", "route", "replace", "default", "via", "198.51.100.1"])


def _wan(fault: Fault) -> int:
    return int(fault.victim.removeprefix("wan"))
