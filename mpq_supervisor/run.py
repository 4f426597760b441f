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
from mpq_supervisor.config import ConfigError, load
from mpq_supervisor.control import Control, ReloadFailed
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.feed import Feed
from mpq_supervisor.fleet import Fleet
from mpq_supervisor.host import Host
from mpq_supervisor.leftovers import Register
from mpq_supervisor.notify import Notifier
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.portal_process import PortalProcess
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.weights import Weights, delegated
from mpq_supervisor.zygote import Zygote
from mpq_worker.contract import ExitCode
from mpq_worker.errors import HostFault

NICE = -10

log = logging.getLogger(__name__)


def main(config_path: Path, runtime_dir: Path | None = None) -> int:
    """Returns the exit code: 0 after a stop, 78 for a configuration and 69 for a host that cannot be used."""
    logs.set_up()
    try:
        plan = make_plan(load(config_path))
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s: %s", config_path, problem)
        return ExitCode.CONFIG
    directory = runtime_dir or Path(plan.supervisor.runtime_directory)
    try:
        asyncio.run(_Supervisor(config_path, directory, plan).run())
    except HostFault as fault:
        log.critical("%s", fault)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


class _Supervisor:
    def __init__(self, config_path: Path, directory: Path, plan: HostPlan) -> None:
        self._config_path = config_path
        self._directory = directory
        self._plan = plan
        self._notifier = Notifier()
        self._host: Host
        self._fleet: Fleet
        self._feed: Feed
        self._portal: PortalProcess

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        _take_precedence()
        register = Register(self._directory)
        register.clear()
        pyprctl.set_child_subreaper(True)
        secrets = Secrets(self._plan)
        weights = delegated()
        zygote = Zygote(loop)
        zygote.start()  # first, it imports while we set up the network
        self._host = Host(self._plan, log)
        for problem in self._host.check():
            log.warning("%s", problem)
        self._host.up()
        self._fleet = Fleet(self._plan, secrets, self._host, zygote, register, self._duty, weights)
        control = Control(self._fleet, lambda: self._plan, self._reload, self._host)
        await control.start(self._directory, self._plan.supervisor.control_group)
        self._feed = Feed(self._fleet.status)
        logging.getLogger().addHandler(self._feed)
        self._portal = PortalProcess(self._feed, control.attend, partial(_adopt_portal, register, weights))
        self._portal.configure(self._plan)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._fleet.start()
        self._notifier.ready()
        text = "%s %s: %d workers"
        log.info(text, self._plan.role, self._plan.name, len(self._plan.workers), extra=marks(Kind.SUPERVISOR))
        await stop.wait()
        log.info("stopping", extra=marks(Kind.SUPERVISOR))
        self._notifier.stopping()
        control.close()
        await self._fleet.stop()
        await self._portal.close()
        self._host.down(self._plan.supervisor.on_stop)
        register.close()
        self._notifier.close()

    def _duty(self) -> None:
        self._notifier.watchdog()
        self._notifier.status(self._fleet.summary())
        self._feed.tick(asyncio.get_running_loop().time())

    def _hang_up(self) -> None:
        try:
            self._reload()
        except ReloadFailed as failure:
            log.debug("reload: %s", failure)  # told in full already

    def _reload(self) -> list[str]:
        self._notifier.reloading()
        try:
            plan = make_plan(load(self._config_path))
            if plan.role != self._plan.role:
                raise HostFault(f"role: a {self._plan.role} cannot become a {plan.role} while it runs")
            changes = self._fleet.reload(plan, Secrets(plan))
        except ConfigError as error:
            raise self._refuse([f"{self._config_path}: {problem}" for problem in error.problems]) from error
        except HostFault as fault:
            raise self._refuse([str(fault)]) from fault
        finally:
            self._notifier.ready()
        self._plan = plan
        self._portal.configure(plan)
        for line in changes or ["nothing changed"]:
            log.info("reload: %s", line, extra=marks(Kind.CONFIG))
        return changes

    def _refuse(self, lines: list[str]) -> ReloadFailed:
        for line in lines:
            log.error("reload: %s", line, extra=marks(Kind.CONFIG))
        log.error("reload: refused, going on as before", extra=marks(Kind.CONFIG))
        return ReloadFailed(lines)


def _adopt_portal(register: Register, weights: Weights | None, pid: int | None) -> None:
    register.besides = frozenset() if pid is None else frozenset({pid})
    if pid is not None and weights is not None:
        weights.assign(pid, None)


def _take_precedence() -> None:
    """Supervisor and zygote need little CPU, but need it at once when a worker died; workers set their own nice."""
    if pyprctl.Cap.SYS_NICE in pyprctl.CapState.get_current().effective:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
