"""Where a worker stands: what `lifecycle` steps from and to. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mpq_worker.contract import DRAIN_LIMIT


class State(StrEnum):
    """What `ctl status` shows."""

    STOPPED = "STOPPED"
    WAITING = "WAITING"
    STARTING = "STARTING"
    UP = "UP"
    REPLACING = "REPLACING"
    DRAINING = "DRAINING"
    RETIRING = "RETIRING"
    DEGRADED = "DEGRADED"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


SERVING = frozenset({State.UP, State.REPLACING, State.DRAINING, State.RETIRING})
"""The peer answers."""


class Policy(msgspec.Struct, frozen=True):
    """Seconds; `[watchdog]` of the configuration."""

    backoff_initial: float = 0.1
    backoff_max: float = 30.0
    healthy_after: float = 10.0
    stop_grace: float = 1.0
    replace_timeout: float = 10.0  # for a successor to become Ready
    drain_timeout: float = DRAIN_LIMIT + 1.0
    linger: float = 1.0  # how long a predecessor hears stragglers
    retire_grace: float = 8.0  # and how long it then has for what is still on its way to it or through it


class Life(msgspec.Struct, frozen=True):
    """Where a worker stands. `since` is when the state began, `ready_at` when this process became Ready."""

    state: State = State.STOPPED
    since: float = 0.0
    obstacle: str = ""  # why the WAN is not usable; empty when it is, and always at a hub
    wanted: bool = False  # while STOPPING: run again afterwards
    fault: bool = False  # while STOPPING: it was killed for a fault, its end counts as a failure
    failures: int = 0  # since the last healthy run
    again: bool = False  # a restart was wanted while the last one was not over
    failed_restarts: int = 0
    starts: int = 0
    ready_at: float | None = None
    last_exit: int | None = None  # as by os.waitstatus_to_exitcode; None also when nobody could tell
    reason: str = ""
