"""CPU weights per class by cgroup v2, where the service manager has delegated a subtree to us (`Delegate=cpu`).

    mpq-supervisor.service/     ours: systemd marks it with the attribute user.delegate
      supervisor/               supervisor and zygote: a cgroup with controllers has no processes of its own
      critical/ default/ bulk/  cpu.weight 400, 100, 25; the workers of a class share it
      portal/                   cpu.weight 10

Without such a subtree there is only `nice` (see `orders.NICE`), which works beside this as well.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mpq_worker.contract import TrafficClass

WEIGHT = {TrafficClass.CRITICAL: 400, TrafficClass.DEFAULT: 100, TrafficClass.BULK: 25}
_OWN_WEIGHT = 400
_PORTAL_WEIGHT = 10

log = logging.getLogger(__name__)


class Weights:
    """The class cgroups below `root`."""

    def __init__(self, root: Path) -> None:
        """Moves this process into `root/supervisor` and makes the class groups. Raises OSError."""
        self._root = root
        own = root / "supervisor"
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text(str(os.getpid()))
        (root / "cgroup.subtree_control").write_text("+cpu")
        (own / "cpu.weight").write_text(str(_OWN_WEIGHT))
        for traffic_class, weight in [*WEIGHT.items(), (None, _PORTAL_WEIGHT)]:
            group = self._group(traffic_class)
            group.mkdir(exist_ok=True)
            (group / "cpu.weight").write_text(str(weight))

    def assign(self, pid: int, traffic_class: TrafficClass | None) -> None:
        """Puts a worker into its class (None: the portal); one that has just ended is left alone."""
        try:
            (self._group(traffic_class) / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            log.warning("cgroup %s: %s", self._group(traffic_class), error.strerror)

    def _group(self, traffic_class: TrafficClass | None) -> Path:
        return self._root / ("portal" if traffic_class is None else traffic_class.name.lower())


def delegated() -> Weights | None:
    """The class groups in the subtree that was delegated to us; None when there is none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            root = Path("/sys/fs/cgroup") / line.removeprefix("0::/")
            try:
                if os.getxattr(root, "user.delegate") == b"1":
                    return Weights(root)
            except OSError as error:  # no cgroup v2 there, not delegated, or without the cpu controller
                log.debug("no cgroup weights: %s", error)
    return None
