"""How the portal becomes unprivileged: a uid and gid of its own, no capability, no way back.

It is exec'd with the supervisor's uid, since only the supervisor's may read TLS keys and make a directory in the
state directory. What needs that comes first; nothing has been received from anybody yet.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pyprctl

from mpq_worker.errors import HostFault

NICE = 10
OOM_SCORE_ADJ = 800
MAX_DESCRIPTORS = 1024


def own_group(gid: int) -> None:
    """Leaves every group for `gid`. The capability to do so is the supervisor's. Raises OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)


def make_directory(path: Path) -> None:
    """A directory that the present group may write to; it belongs to the present user. Raises OSError."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.mkdir(mode=0o770, exist_ok=True)
    if path.stat().st_gid != os.getegid():
        os.chown(path, -1, os.getegid())
    path.chmod(0o770)


def drop(uid: int) -> None:
    """Becomes `uid` for good and proves it. Raises OSError or HostFault."""
    os.umask(0o077)
    os.chdir("/")
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))
    os.setresuid(uid, uid, uid)
    # Leaving uid 0 clears them, leaving another uid does not: the supervisor may have ambient ones.
    pyprctl.cap_ambient_clear_all()
    pyprctl.CapState(effective=set(), permitted=set(), inheritable=set()).set_current()
    pyprctl.set_no_new_privs()
    pyprctl.set_dumpable(False)
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    expected = {"Uid": "\t".join([str(uid)] * 4), "Gid": "\t".join([str(uid)] * 4), "Groups": "", "NoNewPrivs": "1"}
    expected |= dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), "0" * 16)
    wrong = [f"{key} is {status[key]!r}" for key, value in expected.items() if status[key].strip() != value]
    if wrong or uid == 0:
        raise HostFault(f"the portal's isolation failed: {', '.join(wrong) or 'uid 0'}")
