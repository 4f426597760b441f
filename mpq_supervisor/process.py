"""One worker as the supervisor sees it: its life-cycle, its process, its channel, what it last reported.

channel, pidfd, timer, link ─▶ feed(event) ─▶ lifecycle.step ─▶ actions ─▶ zygote, channel, signal, timer
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mpq_supervisor import lifecycle
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.lifecycle import Life, Policy, State
from mpq_supervisor.network import LinkState
from mpq_supervisor.orders import Entry, class_of, configure_hub, configure_site, fork_order, obstacle
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.signer import SignatureRefused
from mpq_supervisor.throttle import Throttle
from mpq_supervisor.weights import Weights
from mpq_supervisor.zygote import Process, Zygote
from mpq_worker.channel import Channel, ChannelClosed, ChannelFault, pair
from mpq_worker.contract import (
    FromWorker,
    Heartbeat,
    Notice,
    PeerBack,
    PeerSilent,
    Ready,
    Rebind,
    Report,
    SetSites,
    Signature,
    SignRequest,
    Started,
    Stop,
    ToWorker,
)
from mpq_worker.errors import HostFault

STARVED = 3
"""Heartbeat timeouts more that a worker gets which is not stopped but late."""
READ_BUDGET = 32
"""Messages taken from one worker per wake-up, so that a chatty one cannot starve the others."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

log = logging.getLogger(__name__)


class Network(Protocol):
    """What a worker needs of `host.Host`. Descriptors stay the host's."""

    @property
    def links(self) -> dict[str, LinkState]: ...

    def tunnel_fds(self, tunnel: TunnelPlan) -> tuple[int, int] | None: ...

    def rebind(self, tunnel: TunnelPlan) -> int | None: ...

    def hub_fds(self, worker: HubWorkerPlan) -> tuple[int, int]: ...


@dataclass
class Surroundings:
    """What all workers share. `plan`, `policy` and `secrets` are replaced by a reload."""

    loop: asyncio.AbstractEventLoop
    plan: HostPlan
    policy: Policy
    secrets: Secrets
    network: Network
    zygote: Zygote
    may_raise_priority: bool
    weights: Weights | None
    changed: Callable[[Worker], None]


class Worker:
    """The worker of one plan entry, over all its processes."""

    def __init__(self, entry: Entry, around: Surroundings) -> None:
        self.entry = entry
        self.life = Life()
        self.retired = False  # no longer in the plan; goes when its process has gone
        self.process: Process | None = None
        self.ordered = 0.0  # monotonic; when `process` was ordered
        self.deadline: float | None = None  # when a heartbeat is overdue
        self.heard = 0.0
        self.report = Report()
        self.rates = (0.0, 0.0)  # bit/s in, out
        self.refused_signatures = 0
        self.causes: dict[str, int] = {}  # how often each `lifecycle.cause` had it started anew
        self._reported = 0.0
        self._configured = False
        self._around = around
        self._timer: asyncio.TimerHandle | None = None
        self._notices = Throttle()
        if isinstance(entry, TunnelPlan):
            self.look_at_link()

    @property
    def name(self) -> str:
        """As in the plan."""
        return self.entry.name

    def feed(self, event: lifecycle.Event) -> None:
        """Takes one step of the life-cycle and does what follows from it."""
        before = self.life
        self.life, actions = lifecycle.step(
            before, event, self._around.loop.time(), random.random(), self._around.policy
        )
        if self.life.state is not before.state:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            _log_transition(self.entry, before, self.life)
        if (cause := lifecycle.cause(before, event, self.life)) is not None:
            self.causes = {**self.causes, cause: self.causes.get(cause, 0) + 1}
        for action in actions:
            self._execute(action)
        if self.life != before:
            self._around.changed(self)

    def look_at_link(self) -> None:
        """The WAN has changed, or may have."""
        assert isinstance(self.entry, TunnelPlan)
        reason = obstacle(self.entry, self._around.network.links.get(self.entry.wan))
        self.feed(lifecycle.LinkDown(reason) if reason else lifecycle.LinkUp())

    def replace_entry(self, entry: Entry) -> None:
        """A reload changed the plan of this worker in nothing but its sites, or it will be restarted."""
        old, self.entry = self.entry, entry
        sites = isinstance(entry, HubWorkerPlan) and isinstance(old, HubWorkerPlan) and entry.sites != old.sites
        if sites and self._configured:
            assert isinstance(entry, HubWorkerPlan)
            self._send(SetSites(entry.sites))

    def check_heartbeat(self, now: float) -> None:
        """Feeds HeartbeatMissed when it is overdue: at once for a process that is stopped, later for one that may
        only be starved of CPU, since to kill it would starve the others more."""
        if self.deadline is None or now <= self.deadline:
            return
        patience = STARVED * self._around.plan.watchdog.heartbeat_timeout
        if now <= self.deadline + patience and self.process is not None and not self.process.stopped():
            return
        self.deadline = None
        self.feed(lifecycle.HeartbeatMissed(now - self.heard))

    def excuse(self, now: float) -> None:
        """We ourselves were late: nobody's silence so far counts."""
        if self.deadline is not None:
            self.deadline = max(self.deadline, now + self._around.plan.watchdog.heartbeat_timeout)

    # ------------------------------------------------------------ actions

    def _execute(self, action: lifecycle.Action) -> None:
        loop = self._around.loop
        match action:
            case lifecycle.Fork():
                self._fork()
            case lifecycle.SendStop():
                self._send(Stop(self._around.policy.stop_grace * 0.8))
            case lifecycle.Kill():
                if self.process is not None:
                    self.process.kill()
            case lifecycle.SendRebind():
                self._rebind()
            case lifecycle.ArmBackoff(delay=delay):
                self._timer = loop.call_later(delay, self.feed, lifecycle.BackoffElapsed())
            case lifecycle.ArmStop(delay=delay):
                self._timer = loop.call_later(delay, self.feed, lifecycle.StopTimeout())

    def _fork(self) -> None:
        around = self._around
        now = around.loop.time()
        ours, theirs = pair()
        with theirs:
            process = Process(self.name, Channel[FromWorker](ours, FromWorker), self._born, self._ended)
            order = fork_order(self.entry, around.plan, around.may_raise_priority)
            if not around.zygote.fork(order, theirs.fileno(), process):
                ours.close()
                # Not from inside a step: the answer to Fork is an event of its own.
                around.loop.call_soon(self.feed, lifecycle.Exited(None))
                return
        self.process, self.ordered, self.heard = process, now, now
        self.deadline = None  # until it is born, the zygote is whose silence counts
        self._configured = False
        self.report, self.rates = Report(), (0.0, 0.0)
        around.loop.add_reader(process.channel.fileno(), self._receive)

    def _configure(self) -> None:
        try:
            self._send_configuration()
        except (HostFault, OSError) as error:  # a TUN that somebody else holds, a socket that cannot be had
            self.feed(lifecycle.Unfit(str(error)))

    def _send_configuration(self) -> None:
        around, entry = self._around, self.entry
        if isinstance(entry, HubWorkerPlan):
            fds = around.network.hub_fds(entry)
            secrets = around.secrets
            keys = secrets.reset_key(entry), secrets.retry_key(entry)
            self._configured = self._send(configure_hub(entry, around.plan, secrets.credentials, *keys), *fds)
        elif (pair_of_fds := around.network.tunnel_fds(entry)) is None:
            reason = obstacle(entry, around.network.links.get(entry.wan))
            self.feed(lifecycle.LinkDown(reason or f"{entry.wan}: {entry.interface} cannot be bound"))
        else:
            message = configure_site(entry, around.plan, around.secrets.credentials, _peer(pair_of_fds[1]))
            self._configured = self._send(message, *pair_of_fds)

    def _rebind(self) -> None:
        if not self._configured:
            return  # it will get the socket of the time with its configuration
        assert isinstance(self.entry, TunnelPlan)
        fd = self._around.network.rebind(self.entry)
        if fd is not None:
            self._send(Rebind(_peer(fd)), fd)

    def _send(self, message: ToWorker, *fds: int) -> bool:
        """Sends, or has the worker killed: one that does not read its channel is lost."""
        if self.process is None or self.process.channel.fileno() < 0:
            return False
        try:
            sent, fault = self.process.channel.send(message, fds), "does not read its channel"
        except ChannelFault as error:
            sent, fault = False, str(error)
        except ChannelClosed:
            return False  # its end is about to be told
        if not sent:
            self._around.loop.call_soon(self._unfit, self.process, fault)
        return sent

    # ------------------------------------------------------------ what the worker says

    def _receive(self) -> None:
        process = self.process
        assert process is not None
        try:
            for _ in range(READ_BUDGET):
                received = process.channel.receive()
                if received is None:
                    return
                self._handle(received[0])
        except ChannelClosed:
            # Its end is about to be told; if not, its heartbeats are missed.
            self._around.loop.remove_reader(process.channel.fileno())
        except ChannelFault as error:
            self._around.loop.remove_reader(process.channel.fileno())
            self._unfit(process, str(error))

    def _handle(self, message: FromWorker) -> None:
        now = self._around.loop.time()
        match message:
            case Heartbeat():
                self.heard = now
                self.deadline = now + self._around.plan.watchdog.heartbeat_timeout
            case Report():
                self._note(message, now)
            case Started():
                if not self._configured:
                    self._configure()
            case Ready():
                self.feed(lifecycle.Ready())
            case PeerSilent(reason=reason):
                self.feed(lifecycle.PeerSilent(reason))
            case PeerBack():
                self.feed(lifecycle.PeerBack())
            case Notice(kind=kind, text=text, level=level):
                if (suppressed := self._notices.admit(now)) is not None:
                    more = f" ({suppressed} lines before it suppressed)" if suppressed else ""
                    about = marks(Kind.NOTICE, self.entry, reason=kind)
                    level_number = _LEVELS.get(level, logging.WARNING)
                    log.log(level_number, "%s: %s: %s%s", self.name, kind, text, more, extra=about)
            case SignRequest(seq=seq, purpose=purpose, data=data):
                self._send(Signature(seq, self._sign(purpose, data)))

    def _sign(self, purpose: str, data: bytes) -> bytes:
        try:
            return self._around.secrets.signer.sign(purpose, data)
        except SignatureRefused as refusal:
            self.refused_signatures += 1
            log.warning("%s: signature refused: %s", self.name, refusal)
            return b""

    def _note(self, report: Report, now: float) -> None:
        last, elapsed = self.report, now - self._reported
        if elapsed > 0 and self._reported > self.ordered:
            self.rates = (
                max(0, report.bytes_in - last.bytes_in) * 8 / elapsed,
                max(0, report.bytes_out - last.bytes_out) * 8 / elapsed,
            )
        self.report, self._reported = report, now

    def _unfit(self, process: Process, reason: str) -> None:
        if process is self.process:
            self.feed(lifecycle.Unfit(reason))

    def _born(self, pid: int) -> None:
        if self._around.weights is not None:
            self._around.weights.assign(pid, class_of(self.entry))
        if self.deadline is None:  # its own first word may have been faster than the zygote's
            self.deadline = self._around.loop.time() + self._around.plan.watchdog.start_timeout
        self._around.changed(self)

    def _ended(self, status: int | None) -> None:
        process = self.process
        assert process is not None
        if process.channel.fileno() >= 0:
            self._last_words(process)
        self.process, self.deadline, self._configured = None, None, False
        if self.life.state is not State.STOPPING:
            log.warning("%s: %s", self.name, lifecycle.explain(status), extra=marks(Kind.EXIT, self.entry))
        self.feed(lifecycle.Exited(status))

    def _last_words(self, process: Process) -> None:
        """Notices that were under way when it ended; nothing else counts any more."""
        self._around.loop.remove_reader(process.channel.fileno())
        try:
            for _ in range(READ_BUDGET):
                received = process.channel.receive()
                if received is None:
                    break
                if isinstance(received[0], Notice):
                    self._handle(received[0])
        except (ChannelClosed, ChannelFault) as error:
            log.debug("%s: %s", self.name, error)
        process.channel.close()


def _peer(fd: int) -> tuple[str, int]:
    with socket.socket(fileno=os.dup(fd)) as sock:
        host, port = sock.getpeername()[:2]
    return host, port


def _log_transition(entry: Entry, before: Life, after: Life) -> None:
    bad = after.state in (State.BACKOFF, State.DEGRADED) or (after.state is State.STOPPING and after.fault)
    level = logging.ERROR if after.state is State.FAILED else logging.WARNING if bad else logging.INFO
    reason = f": {after.reason}" if after.reason else ""
    about = marks(Kind.STATE, entry, reason=after.reason)
    log.log(level, "%s: %s → %s%s", entry.name, before.state, after.state, reason, extra=about)
