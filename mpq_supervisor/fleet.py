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
from mpq_supervisor.failover import Failover
from mpq_supervisor.incarnation import Network, Surroundings
from mpq_supervisor.leftovers import Register
from mpq_supervisor.life import SERVING
from mpq_supervisor.lifecycle import Policy, State
from mpq_supervisor.orders import NICE, WorkerChange, worker_changes
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan
from mpq_supervisor.process import Worker
from mpq_supervisor.rolling import SETTLED, Rolling, is_ripe
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.status import HostStatus, WanCounters, configured_sites, worker_status
from mpq_supervisor.store import Store
from mpq_supervisor.survivors import Survivor
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

    def guarded(self) -> dict[str, int]: ...

    def wan_counters(self) -> dict[str, WanCounters]: ...

    def divert(self, down: frozenset[str]) -> None: ...


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
        store: Store,
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
            store=store,
        )
        self.workers: dict[str, Worker] = {}  # there before any of them tells of its WAN
        self.workers.update({e.name: Worker(e, self._around, self._note_change) for e in plan.workers})
        self._failover = Failover(plan.watchdog.failover_after, plan.watchdog.failback_after)
        self._begun = self._last_tick = self._loop.time()
        self._next_memory = self._begun
        self._timer: asyncio.TimerHandle | None = None
        self._rolling = Rolling()

    def start(self) -> None:
        """Starts every worker and the watchdog; comes back at once. The zygote has been started."""
        self._network.watch(self._link_changed)
        self._tick()
        for worker in self.workers.values():
            worker.feed(happenings.StartWanted())

    def adopt(self, found: Iterable[Survivor]) -> None:
        """Takes over processes that an earlier supervisor has left; before `start`."""
        for survivor in found:
            self.workers[survivor.worker].adopt(survivor)

    async def leave(self) -> None:
        """Leaves every worker as it is, for the next supervisor; ends the zygote."""
        if self._timer is not None:
            self._timer.cancel()
        await self._zygote.close()

    async def stop(self) -> None:
        """Stops every worker, then the zygote; whoever does not end in time has been killed."""
        self._rolling.clear()
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

    def reload(self, plan: HostPlan, secrets: Secrets) -> dict[str, WorkerChange]:
        """Goes over to another plan and says what that does to each worker it concerns. Raises HostFault of the host,
        and then nothing has changed.

        Workers whose plan is the same are not touched; a hub's get their new sites while they run; those to be
        restarted are so one after the other, as `ctl restart` does it.
        """
        around, old_plan = self._around, self._around.plan
        renewed = around.secrets.credentials != secrets.credentials
        changes = worker_changes(old_plan, plan, credentials=renewed, outdated=self.outdated())
        self._network.apply(plan)
        around.plan, around.policy, around.secrets = plan, _policy(plan), secrets
        self._failover.after, self._failover.back = plan.watchdog.failover_after, plan.watchdog.failback_after
        for entry in plan.workers:
            if entry.name not in self.workers:
                self.workers[entry.name] = Worker(entry, around, self._note_change)
            else:
                self.workers[entry.name].replace_entry(entry)
        for name, change in changes.items():
            worker = self.workers[name]
            worker.retired = change == "remove"
            match change:
                case "add":
                    worker.feed(happenings.StartWanted())
                case "remove":
                    worker.feed(happenings.StopWanted())
                    self._forget_retired(worker)
        self._rolling.want(name for name, change in changes.items() if change == "restart")
        self._roll()
        for wan in plan.wans:
            self._link_changed(wan.name)
        return changes

    def _roll(self) -> None:
        """The next of the workers that a reload restarts, if the one before has arrived."""
        for name in self._rolling.due(self._loop.time(), self._is_settled):
            worker = self.workers.get(name)
            if worker is not None and name not in self.stopped():
                worker.feed(happenings.RestartWanted())  # the operator's stop outlives a reload

    def _is_settled(self, name: str) -> bool:
        worker = self.workers.get(name)
        return worker is None or worker.life.state in SETTLED

    def stopped(self) -> frozenset[str]:
        """Workers that the operator stopped: what a reload has for them, they are told when he starts them."""
        states = (State.STOPPING, State.STOPPED)
        return frozenset(name for name, worker in self.workers.items() if worker.life.state in states)

    def outdated(self) -> frozenset[str]:
        """Workers that run, but not as the plan has it: their restart is still to come, or has failed."""
        return frozenset(name for name, worker in self.workers.items() if worker.outdated)

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
            guarded=self._network.guarded(),
            wans=self._network.wan_counters(),
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
        self._replace_outdated(now)
        self._fail_over(now)
        if now >= self._next_memory:
            self._next_memory = now + MEMORY_INTERVAL
            self._check_memory()
        self._roll()
        self._write_register()
        self._duty()

    def _fail_over(self, now: float) -> None:
        plan, up, stand_ins = self._around.plan, dict[str, bool](), dict[str, list[str]]()
        for tunnel in plan.tunnels:
            worker = self.workers.get(tunnel.name)
            if worker is not None and not worker.unheard:
                up[tunnel.name] = worker.life.state in SERVING
                stand_ins[tunnel.name] = [other.name for other in plan.stand_ins(tunnel)]
        self._network.divert(self._failover.step(up, stand_ins, now))

    def _replace_outdated(self, now: float) -> None:
        """Of another version or told something else: adopted so, or what a reload began has failed."""
        for name, worker in self.workers.items():
            if worker.outdated and name not in self._rolling and is_ripe(worker.life, now):
                log.info("%s: outdated, to be replaced by what is to run now", name)
                self._rolling.want([name])

    def _check_memory(self) -> None:
        limit = self._around.plan.supervisor.memory_limit_mb * 1_000_000
        for worker in self.workers.values():
            if worker.process is None or worker.process.pid is None:
                continue
            try:
                rss = psutil.Process(worker.process.pid).memory_info().rss
            except (psutil.NoSuchProcess, OSError):
                continue  # its end is about to be told; or we have no descriptor left to look
            if rss > limit:
                worker.feed(happenings.MemoryExceeded(rss))

    def _link_changed(self, wan: str) -> None:
        for worker in self.workers.values():
            if isinstance(worker.entry, TunnelPlan) and worker.entry.wan == wan:
                worker.look_at_link()

    def _note_change(self, worker: Worker) -> None:
        self._changed.set()
        self._forget_retired(worker)
        self._loop.call_soon(self._roll)
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
    """Whether workers can have the nice of their class: lowering our own takes no capability."""
    able = pyprctl.Cap.SYS_NICE in pyprctl.CapState.get_current().effective
    return able or os.getpriority(os.PRIO_PROCESS, 0) <= min(NICE.values())
