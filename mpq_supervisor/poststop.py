"""`mpq-supervisor post-stop`: what the unit runs after each end of the supervisor (ExecStopPost=).

It makes the unit's cgroup ready for the next start: systemd puts that into the cgroup itself, where the kernel takes
no process while controllers are enabled for its children (docs/decisions/systemd.md). And where a stop hung, so that
systemd killed the supervisor alone (KillMode=process), it ends the workers that are left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mpq_supervisor import logs
from mpq_supervisor.leftovers import Register
from mpq_worker.contract import ExitCode
from mpq_worker.errors import HostFault

CGROUPS = Path("/sys/fs/cgroup")

log = logging.getLogger(__name__)


def main(runtime_dir: Path, environment: Mapping[str, str] = os.environ, cgroup: Path | None = None) -> int:
    """`environment` has systemd's SERVICE_RESULT; `cgroup` is the unit's, by default the one above ours."""
    logs.set_up()
    _release(cgroup or _unit_cgroup())
    if environment.get("SERVICE_RESULT") != "timeout":
        return ExitCode.OK
    try:
        register = Register(runtime_dir)
        log.warning("the stop hung; ended %d processes", register.clear())
        register.close()
    except HostFault as fault:
        log.error("%s", fault)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


def _release(cgroup: Path) -> None:
    try:
        enabled = (cgroup / "cgroup.subtree_control").read_text().split()
        if enabled:
            (cgroup / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in enabled))
    except OSError as error:
        log.warning("%s: %s", cgroup, error.strerror)


def _unit_cgroup() -> Path:
    """systemd runs ExecStopPost= in `.control` below the unit's cgroup, where that is delegated."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            return (CGROUPS / line.removeprefix("0::/")).parent
    return CGROUPS / "none"
