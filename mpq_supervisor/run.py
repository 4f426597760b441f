"""`mpq-supervisor run`: one host's tunnels, in the foreground, until SIGTERM or SIGINT.

    configuration → lock → leftovers of a dead supervisor → zygote → network → workers → ctl socket, portal → READY=1

READY means that all of this is in place, not that every tunnel is UP: that depends on the other end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from functools import partial
from pathlib import Path

import pyprctl

from mpq_supervisor import logs
from mpq_supervisor.change import ChangeRefused, Configuration
from mpq_supervisor.config import ConfigError
from mpq_supervisor.control import Control
from mpq_supervisor.credentials import check_state
from mpq_supervisor.effects import describe
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.feed import Feed
from mpq_supervisor.fleet import Fleet
from mpq_supervisor.host import Host
from mpq_supervisor.inquiry import Inquiry
from mpq_supervisor.leftovers import Register
from mpq_supervisor.notify import Notifier
from mpq_supervisor.orders import WorkerChange
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal_process import PortalProcess
from mpq_supervisor.requests import SOCKET_NAME
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.store import Store
from mpq_supervisor.survivors import find
from mpq_supervisor.weights import Weights, delegated
from mpq_supervisor.zygote import Zygote
from mpq_worker.contract import ExitCode
from mpq_worker.errors import HostFault

NICE = -10
NEEDED = {pyprctl.Cap.NET_ADMIN, pyprctl.Cap.SETUID, pyprctl.Cap.SETGID, pyprctl.Cap.KILL}
"""Capabilities: for the network, for workers with uids of their own, and to end these."""
MAX_SOCKET_PATH = 107
LEAVE = signal.SIGUSR1
"""Ends the supervisor alone (`RestartKillSignal=` of the unit); SIGTERM and SIGINT stop everything."""

log = logging.getLogger(__name__)


def main(config_path: Path, runtime_dir: Path | None = None) -> int:
    """Returns the exit code: 0 after a stop, 78 for a configuration and 69 for a host that cannot be used."""
    logs.set_up()
    try:
        configuration = Configuration(config_path)
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s: %s", config_path, problem)
        return ExitCode.CONFIG
    directory = runtime_dir or Path(configuration.plan.supervisor.runtime_directory)
    try:
        asyncio.run(_Supervisor(configuration, directory).run())
    except HostFault as fault:
        log.critical("%s", fault)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


class _Supervisor:
    def __init__(self, configuration: Configuration, directory: Path) -> None:
        self._configuration = configuration
        self._directory = directory
        self._notifier = Notifier()
        self._store = Store(self._notifier)
        self._leaving = False
        self._host: Host
        self._fleet: Fleet
        self._feed: Feed
        self._portal: PortalProcess

    async def run(self) -> None:
        _demand(self._directory)
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(LEAVE, self._leave, stop)
        _take_precedence()
        register = Register(self._directory)
        plan = self._configuration.plan
        survivors = find(self._store, (worker.name for worker in plan.workers))
        register.clear(spared=[survivor.pid for survivor in survivors])
        pyprctl.set_child_subreaper(True)
        secrets = Secrets(plan)
        weights = delegated()
        zygote = Zygote(loop)
        zygote.start()  # first, it imports while we set up the network
        self._host = Host(plan, log, self._store)
        for problem in (*self._host.check(), *check_state(plan.supervisor)):
            log.warning("%s", problem)
        self._host.up()
        self._store.sweep()
        self._fleet = Fleet(plan, secrets, self._host, zygote, register, self._duty, self._store, weights)
        fleet = self._fleet
        self._configuration.attach(secrets, self._apply, loop.call_later, fleet.stopped, fleet.outdated)
        self._feed = Feed(self._fleet.status)
        logging.getLogger().addHandler(self._feed)
        control = Control(self._fleet, self._configuration, self._host, Inquiry(self._feed.ask))
        await control.start(self._directory, plan.supervisor.control_group)
        self._portal = PortalProcess(self._feed, control.attend, partial(_adopt_portal, register, weights))
        self._portal.configure(plan)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._fleet.adopt(survivors)
        self._fleet.start()
        self._notifier.ready()
        text = "%s %s: %d workers"
        log.info(text, plan.role, plan.name, len(plan.workers), extra=marks(Kind.SUPERVISOR))
        await stop.wait()
        log.info("leaving" if self._leaving else "stopping", extra=marks(Kind.SUPERVISOR))
        self._notifier.stopping()
        control.close()
        if self._leaving:
            await self._fleet.leave()
            await self._portal.close()
        else:
            await self._fleet.stop()
            await self._portal.close()
            self._host.down(self._configuration.plan.supervisor.on_stop)
        register.close()
        self._notifier.close()

    def _leave(self, stop: asyncio.Event) -> None:
        """A restart of this supervisor: the next one adopts the workers, if their descriptors are kept for it."""
        self._leaving = self._store.lasts
        stop.set()

    def _duty(self) -> None:
        self._notifier.watchdog()
        self._notifier.status(self._fleet.summary())
        self._feed.tick(asyncio.get_running_loop().time())

    def _hang_up(self) -> None:
        """SIGHUP is `ctl reload`."""
        self._notifier.reloading()
        try:
            lines = describe(self._configuration.reload()) or ["nothing changed"]
        except ChangeRefused as refused:
            for line in (*refused.lines, "refused, going on as before"):
                log.error("reload: %s", line, extra=marks(Kind.CONFIG))
            return
        finally:
            self._notifier.ready()
        for line in lines:
            log.info("reload: %s", line, extra=marks(Kind.CONFIG))

    def _apply(self, plan: HostPlan, secrets: Secrets) -> dict[str, WorkerChange]:
        changes = self._fleet.reload(plan, secrets)
        self._portal.configure(plan)
        return changes


def _adopt_portal(register: Register, weights: Weights | None, pid: int | None) -> None:
    register.besides = frozenset() if pid is None else frozenset({pid})
    if pid is not None and weights is not None:
        weights.assign(pid, None)


def _demand(directory: Path) -> None:
    """What no host may lack, before anything is touched. Raises HostFault."""
    path = directory / SOCKET_NAME
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise HostFault(f"{path}: longer than the {MAX_SOCKET_PATH} bytes that a socket's path may have")
    missing = NEEDED - pyprctl.CapState.get_current().effective
    if missing:
        names = ", ".join(sorted(f"CAP_{cap.name}" for cap in missing))
        raise HostFault(f"missing capabilities: {names}; the unit gives them, and root has them")


def _take_precedence() -> None:
    """Supervisor and zygote need little CPU, but need it at once when a worker died; workers set their own nice."""
    if pyprctl.Cap.SYS_NICE in pyprctl.CapState.get_current().effective:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
