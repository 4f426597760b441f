"""All workers of a host: starts them, watches them, reconfigures them, stops them.

One tick, four times a second, is the watchdog: heartbeats, memory, the zygote. Everything else is driven by
what arrives: channels, pidfds, links, the operator.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import psutil
import pyprctl

from mpq_supervisor import happenings
from mpq_supervisor.incarnation import Network, Surroundings
from mpq_supervisor.leftovers import Register
from mpq_supervisor.lifecycle import Policy, State
from mpq_supervisor.orders import Entry, same_host, same_process
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan
from mpq_supervisor.process import Worker
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.status import HostStatus, configured_sites, worker_status
from mpq_supervisor.weights import Weights
from mpq_supervisor.zygote import Zygote

TICK = 0.25
LATE = 4 * TICK
"""When the tick itself comes this late, the supervisor was stopped or starved: nobody is judged by it."""
MEMORY_INTERVAL = 5.0

log = logging.getLogger(__name__)


class FleetNetwork(Network, Protocol):
    """What the fleet needs of `host.Host` besides."""

    def apply(self, plan: HostPlan) -> None: ...

    def watch(self, callback: Callable[[str], None]) -> None: ...

    def sunk(self, worker: HubWorkerPlan) -> int: ...


class Fleet:
    """The workers of one plan. `duty` is called after every tick whose work was done."""

    def __init__(
        self,
        plan: HostPlan,
        secrets: Secrets,
        network: FleetNetwork,
        zygote: Zygote,
        register: Register,
        duty: Callable[[], None],
        weights: Weights | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._network = network
        self._register = register
        self._duty = duty
        self._zygote = zygote
        self._changed = asyncio.Event()
        self._around = Surroundings(
            loop=self._loop,
            plan=plan,
            policy=_policy(plan),
            secrets=secrets,
            network=network,
            zygote=zygote,
            may_raise_priority=_may_raise_priority(),
            weights=weights,
        )
        self.workers: dict[str, Worker] = {}  # there before any of them tells of its WAN
        self.workers.update({e.name: Worker(e, self._around, self._note_change) for e in plan.workers})
        self._begun = self._last_tick = self._loop.time()
        self._next_memory = self._begun
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts every worker and the watchdog; comes back at once. The zygote has been started."""
        self._network.watch(self._link_changed)
        self._tick()
        for worker in self.workers.values():
            worker.feed(happenings.StartWanted())

    async def stop(self) -> None:
        """Stops every worker, then the zygote; whoever does not end in time has been killed."""
        self.command(self.workers, happenings.StopWanted())
        patience = self._around.policy.stop_grace + 4.0
        if not await self.wait(lambda: not any(w.processes for w in self.workers.values()), patience):
            left = [f"{process.name} ({process.pid})" for w in self.workers.values() for process in w.processes]
            log.error("did not end: %s", ", ".join(left))
        if self._timer is not None:
            self._timer.cancel()
        await self._zygote.close()
        self._write_register()

    def command(self, names: Iterable[str], event: happenings.Event) -> None:
        """Feeds one event to the named workers."""
        for name in tuple(names):
            self.workers[name].feed(event)

    def reload(self, plan: HostPlan, secrets: Secrets) -> list[str]:
        """Goes over to another plan and says what that changed, a line per worker. Raises HostFault of the host.

        Workers whose plan is the same are not touched; a hub's get their new sites while they run.
        """
        around, old_plan = self._around, self._around.plan
        restart_all = not same_host(old_plan, plan) or around.secrets.credentials != secrets.credentials
        self._network.apply(plan)
        around.plan, around.policy, around.secrets = plan, _policy(plan), secrets
        entries: dict[str, Entry] = {entry.name: entry for entry in plan.workers}
        changes = []
        for name, worker in list(self.workers.items()):
            if name not in entries and not worker.retired:
                worker.retired = True
                worker.feed(happenings.StopWanted())
                self._forget_retired(worker)
                changes.append(f"{name}: removed")
        for name, entry in entries.items():
            change = self._reload_worker(name, entry, restart_all)
            if change:
                changes.append(f"{name}: {change}")
        for wan in plan.wans:
            self._link_changed(wan.name)
        if not changes and plan != old_plan:
            changes.append("no worker is concerned; the rest is applied")
        return changes

    def _reload_worker(self, name: str, entry: Entry, restart: bool) -> str:
        worker = self.workers.get(name)
        if worker is None:
            worker = self.workers[name] = Worker(entry, self._around, self._note_change)
            worker.feed(happenings.StartWanted())
            return "added"
        old = worker.entry
        worker.replace_entry(entry)
        if worker.retired:
            worker.retired = False
            worker.feed(happenings.StartWanted())
            return "added"
        if restart or not same_process(old, entry):
            if worker.life.state is not State.STOPPED:  # the operator's stop outlives a reload
                worker.feed(happenings.RestartWanted())
            return "restarted"
        return "" if old == entry else "sites changed"

    async def wait(self, predicate: Callable[[], bool], seconds: float) -> bool:
        """Waits until `predicate` holds, looking again whenever a worker changes; False after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not predicate():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def status(self) -> HostStatus:
        """How the host stands."""
        now, plan = self._loop.time(), self._around.plan
        return HostStatus(
            role=plan.role,
            name=plan.name,
            pid=os.getpid(),
            uptime=now - self._begun,
            zygote_pid=self._zygote.pid,
            zygote_losses=self._zygote.losses,
            workers=tuple(worker_status(worker, now, self._sunk(worker)) for worker in self.workers.values()),
            sites=configured_sites(plan),
        )

    def _sunk(self, worker: Worker) -> int:
        return self._network.sunk(worker.entry) if isinstance(worker.entry, HubWorkerPlan) else 0

    def summary(self) -> str:
        """One line: how many workers are in which state."""
        states = Counter(worker.life.state for worker in self.workers.values())
        return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))

    # ------------------------------------------------------------ watchdog

    def _tick(self) -> None:
        now = self._loop.time()
        self._timer = self._loop.call_later(TICK, self._tick)
        if now - self._last_tick > LATE:
            log.warning("the supervisor itself was %.1f s late", now - self._last_tick)
            self._zygote.excuse(now)
            for worker in self.workers.values():
                worker.excuse(now)
        self._last_tick = now
        self._zygote.tick(now)
        for worker in self.workers.values():
            worker.check_heartbeats(now)
        if now >= self._next_memory:
            self._next_memory = now + MEMORY_INTERVAL
            self._check_memory()
        self._write_register()
        self._duty()

    def _check_memory(self) -> None:
        limit = self._around.plan.supervisor.memory_limit_mb * 1_000_000
        for worker in self.workers.values():
            if worker.process is None or worker.process.pid is None:
                continue
            try:
                rss = psutil.Process(worker.process.pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue  # its end is about to be told
            if rss > limit:
                worker.feed(happenings.MemoryExceeded(rss))

    def _link_changed(self, wan: str) -> None:
        for worker in self.workers.values():
            if isinstance(worker.entry, TunnelPlan) and worker.entry.wan == wan:
                worker.look_at_link()

    def _note_change(self, worker: Worker) -> None:
        self._changed.set()
        self._forget_retired(worker)
        self._write_register()

    def _forget_retired(self, worker: Worker) -> None:
        if worker.retired and not worker.processes and self.workers.get(worker.name) is worker:
            del self.workers[worker.name]

    def _write_register(self) -> None:
        pids = [process.pid for worker in self.workers.values() for process in worker.processes]
        self._register.write(pid for pid in (*pids, self._zygote.pid) if pid is not None)


def _policy(plan: HostPlan) -> Policy:
    watchdog = plan.watchdog
    return Policy(
        backoff_initial=watchdog.backoff_initial,
        backoff_max=watchdog.backoff_max,
        healthy_after=watchdog.healthy_after,
    )


def _may_raise_priority() -> bool:
    return pyprctl.Cap.SYS_NICE in pyprctl.CapState.get_current().effective
