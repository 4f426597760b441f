"""Workers that an earlier supervisor has left running, by what it has left in the descriptor store."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mpq_supervisor.store import Store
from mpq_worker.contract import NEIGHBOURS

log = logging.getLogger(__name__)


class Survivor(msgspec.Struct, frozen=True):
    """A worker's process, and the descriptors by which to know it."""

    worker: str
    generation: int
    pid: int
    channel: int
    pidfd: int
    fingerprint: str
    names: tuple[str, str]
    """Of these descriptors in the store."""


def find(store: Store, workers: Iterable[str]) -> list[Survivor]:
    """Those that can be adopted, at most one of each worker; the others are killed and forgotten."""
    wanted = set(workers)
    found = []
    for parts in store.names("channel"):
        worker, generation, version, fingerprint = parts[:4]  # a later release may add to them
        channel_name = "/".join(("channel", *parts))
        pidfd_name = f"pidfd/{worker}/{generation}"
        names = channel_name, pidfd_name
        channel, pidfd = map(store.take, names)
        assert channel is not None
        pid = -1 if pidfd is None else _pid_of(pidfd)
        if pidfd is not None and pid > 0 and worker in wanted and int(version) in NEIGHBOURS:
            wanted.discard(worker)
            found.append(Survivor(worker, int(generation), pid, channel, pidfd, fingerprint, names))
            continue
        text = "%s: a process of an earlier supervisor, not to be adopted: pid %d, version %s of the contract"
        log.warning(text, worker, pid, version)
        os.close(channel)
        store.drop(channel_name)
        if pidfd is not None:
            if pid > 0:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            store.drop(pidfd_name)
    return found


def _pid_of(pidfd: int) -> int:
    """-1 when the process has ended, whether or not somebody has reaped it: it is no survivor, and begins anew."""
    if select.select([pidfd], [], [], 0)[0]:
        return -1
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
