"""What the supervisor tells the portal over its feed: one tagged Struct per packet, nothing comes back. Pure.

    Setup                     first, and again never: another configuration means another portal
    HostSample, WorkerSample  once a second, and at once when a worker's state changed
    Line                      each line of the log from INFO up
    Question                  when somebody asks `ctl` for what only the portal knows

`at` is Unix time in seconds.
"""

from __future__ import annotations

import msgspec

from mpq_supervisor.events import Marks
from mpq_supervisor.requests import Request
from mpq_supervisor.schema import Alarm, Token, Webhook
from mpq_supervisor.status import WanCounters, WorkerStatus


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    pass


class Setup(_Message, frozen=True):
    """How the portal is to run: read before it gives up the supervisor's uid for its own."""

    role: str
    name: str
    uid: int
    listen: tuple[tuple[str, int], ...]
    certificate: str
    key: str
    tokens: tuple[Token, ...]
    directory: str  # of the history
    history_mb: int
    alarms: tuple[Alarm, ...]
    webhook: Webhook | None


class HostSample(_Message, frozen=True):
    """The host without its workers, which `workers` names in the order to show them. `lost` are the messages that
    the feed had no room for."""

    at: float
    uptime: float
    pid: int
    zygote_pid: int | None
    zygote_losses: int
    workers: tuple[str, ...]
    sites: tuple[str, ...]
    lost: int
    guarded: dict[str, int] = {}
    wans: dict[str, WanCounters] = {}


class WorkerSample(_Message, frozen=True):
    """One worker."""

    at: float
    worker: WorkerStatus


class Line(_Message, frozen=True):
    """A line of the supervisor's log. `level` as in `logging`."""

    at: float
    level: int
    text: str
    marks: Marks | None = None


class Question(_Message, frozen=True):
    """What `ctl` asks; the answer goes over the orders' socket, see `inquiry`."""

    number: int
    request: Request


Message = Setup | HostSample | WorkerSample | Line | Question
