"""The machine as its tests see it: units, journal, the supervisor's status, probes through the nine tunnels."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpq_supervisor import ctl
from mpq_supervisor.lifecycle import State
from mpq_supervisor.requests import SOCKET_NAME, Request
from mpq_supervisor.status import WorkerStatus
from tests.vm import plan
from tests.vm.lab import Surroundings
from tools.probe import ProbeFlow
from tools.probe_report import ProbeStream
from tools.sockets import Via
from tools.topology import SERVER
from tools.traffic import start_probes
from tools.wait import until

UNIT = "mpq-supervisor.service"
HUB_UNIT = "mpq-hub.service"
PATIENCE = 120.0
"""Seconds; Python is ten times slower here than on the metal, and the metal may be busy."""
_RATE = 20.0  # probes a second per tunnel and direction
_PROBE_PORT = 7400


def call(*command: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def show(key: str, unit: str = UNIT) -> str:
    """One property of a unit."""
    return call("systemctl", "show", "--value", "-p", key, unit).strip()


def main_pid() -> int:
    """The supervisor's, 0 while there is none."""
    return int(show("MainPID"))


def cgroup() -> Path:
    """The unit's directory in the cgroup tree."""
    return Path(f"/sys/fs/cgroup{show('ControlGroup')}")


def journal(*matches: str) -> list[dict[str, Any]]:
    """What the unit has logged since the boot; `FIELD=value` of lines that have such a field."""
    lines = call("journalctl", "--boot", "--unit", UNIT, "--output=json", *matches).splitlines()
    return [json.loads(line) for line in lines]


def workers() -> dict[str, WorkerStatus]:
    """All workers of the site by name; none while no supervisor answers."""
    try:
        status = ctl.ask(Path("/run/mpq") / SOCKET_NAME, Request("status")).status
    except OSError:
        return {}
    assert status is not None
    return {worker.name: worker for worker in status.workers}


def until_up(*, after: int = 0) -> dict[str, WorkerStatus]:
    """Wait for nine tunnels UP under another supervisor than pid `after`."""
    found: dict[str, WorkerStatus] = {}

    def up() -> bool:
        if main_pid() in (0, after):
            return False
        found.clear()
        found.update(workers())
        return len(found) == len(plan.VLANS) and all(w.state is State.UP for w in found.values())

    # To look takes a tenth of a second of the machine's only processor.
    until(up, lambda: str({name: (w.state, w.reason) for name, w in found.items()}), PATIENCE, every=0.5)
    return found


def replaced(pid: int, since: float) -> float:
    """Seconds since a monotonic time until nine tunnels are UP under another supervisor than `pid`."""
    until_up(after=pid)
    return time.monotonic() - since


@contextmanager
def probing(around: Surroundings) -> Iterator[list[ProbeStream]]:
    """Probes through all tunnels, each by its VLAN; the list is filled at the end."""
    flows = [
        ProbeFlow(name=name, target=SERVER, port=_PROBE_PORT + vlan, via=Via(source=plan.host_address(vlan)))
        for vlan, name in plan.VLANS.items()
    ]
    run = start_probes(around, "lan", "server", flows, _RATE)
    streams: list[ProbeStream] = []
    yield streams
    streams += run.result()


def ours() -> list[str]:
    """Every rule and route of the site that carries mpq's protocol number."""
    found = []
    for family in ("-4", "-6"):
        found += [f"{family} rule {line}" for line in call("ip", "-d", family, "rule").splitlines()]
        routes = call("ip", "-d", family, "route", "show", "table", "all", "proto", "109").splitlines()
        found += [f"{family} route {line}" for line in routes]
    return sorted(" ".join(line.split()) for line in found if "route" in line or "proto 109" in line)


def differences(wanted: list[str]) -> str:
    """What is missing of our rules and routes, and what is there that was not."""
    there = ours()
    return f"missing {sorted(set(wanted) - set(there))}, new {sorted(set(there) - set(wanted))}"


def uid_of(pid: int) -> int:
    """Whose process it is."""
    return os.stat(f"/proc/{pid}").st_uid
