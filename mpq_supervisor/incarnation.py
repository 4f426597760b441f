"""One process of a worker: its channel, what it was configured with, its heartbeats, what it last reported.

A worker (`process`) has one of these, in a planned restart two. They differ in `generation`, from which follow a
site's source port and the slot behind a hub's port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from typing import Protocol

import msgspec

from mpq_supervisor.lifecycle import Policy
from mpq_supervisor.network import LinkState
from mpq_supervisor.orders import (
    Entry,
    class_of,
    configure_hub,
    configure_site,
    fingerprint,
    fork_order,
    obstacle,
    with_lost,
)
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.store import Store
from mpq_supervisor.survivors import Survivor
from mpq_supervisor.weights import Weights
from mpq_supervisor.zygote import Process, Zygote
from mpq_worker.channel import Channel, ChannelClosed, ChannelFault, pair
from mpq_worker.contract import (
    Adopt,
    FromWorker,
    Heartbeat,
    Lead,
    LostPeer,
    Notice,
    Rebind,
    Report,
    SetSites,
    SignRequest,
    SiteStatus,
    ToWorker,
)

STARVED = 3
"""Heartbeat timeouts more that a worker gets which is not stopped but late."""
FORGET_BUDGET = 10_000
"""More than a channel can hold."""
REBIND_PAUSE = 1.0
"""Seconds until a socket is asked for again that this host could not give, though the WAN is there."""
READ_BUDGET = 32
"""Messages taken from one worker per wake-up, so that a chatty one cannot starve the others."""

log = logging.getLogger(__name__)


class Network(Protocol):
    """What a worker needs of `host.Host`. Descriptors stay the host's."""

    @property
    def links(self) -> dict[str, LinkState]: ...

    def tunnel_fds(self, tunnel: TunnelPlan, generation: int) -> tuple[int, int] | None: ...

    def rebind(self, tunnel: TunnelPlan, generation: int) -> int | None: ...

    def hub_fds(self, worker: HubWorkerPlan, generation: int) -> tuple[int, int]: ...

    def admit(self, worker: HubWorkerPlan, generation: int) -> None: ...

    def forget(self, worker: TunnelPlan | HubWorkerPlan, generation: int) -> None: ...


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
    store: Store


class Owner(Protocol):
    """Whom an incarnation tells, each time with itself."""

    def on_message(self, who: Incarnation, message: FromWorker) -> None: ...

    def on_born(self, who: Incarnation) -> None: ...

    def on_unfit(self, who: Incarnation, reason: str) -> None: ...

    def on_obstacle(self, who: Incarnation, reason: str) -> None: ...

    def on_ended(self, who: Incarnation, status: int | None) -> None: ...


class Incarnation:
    """A process from the order to fork it until it is reaped. `standby`: it is to leave the TUN alone; `lost`: the
    connections of the hub's process in whose place it comes, which has not closed them; `channel`: of a process that
    runs already."""

    def __init__(
        self,
        entry: Entry,
        generation: int,
        around: Surroundings,
        owner: Owner,
        *,
        standby: bool = False,
        lost: tuple[SiteStatus, ...] = (),
        channel: socket.socket | None = None,
    ) -> None:
        self.entry = entry
        self.lost = lost
        self.generation = generation
        self.standby = standby
        self.version: int | None = None  # of the contract, as its Started said
        self.configured = self.adopted = False
        self.deadline: float | None = (
            None  # when a heartbeat is overdue; until it is born, the zygote's silence counts
        )
        self.ordered = self.heard = around.loop.time()
        self.report = Report()
        self.rates = (0.0, 0.0)  # bit/s in, out
        self._reported = 0.0
        self._around = around
        self._owner = owner
        self.fingerprint = fingerprint(entry, around.plan, around.secrets.credentials)
        self._theirs: socket.socket | None = None
        if channel is None:
            channel, self._theirs = pair()
        self.process = Process(entry.name, Channel[FromWorker](channel, FromWorker), self._on_born, self._on_ended)

    def order(self) -> bool:
        """Has the zygote fork it; False when there is none, and then nothing more will be heard of it."""
        around = self._around
        assert self._theirs is not None
        with self._theirs:
            order = fork_order(self.entry, around.plan, around.may_raise_priority)
            if not around.zygote.fork(order, self._theirs.fileno(), self.process):
                self.process.channel.close()
                return False
        around.loop.add_reader(self.process.channel.fileno(), self._receive)
        return True

    def adopt(self, survivor: Survivor) -> None:
        """It was left by an earlier supervisor, which had configured it."""
        around = self._around
        self.configured = self.adopted = True
        self.fingerprint = survivor.fingerprint
        self.process.begin(survivor.pid, survivor.pidfd)
        self.process.adopt(around.loop)
        if isinstance(self.entry, HubWorkerPlan):
            around.network.hub_fds(self.entry, self.generation)
            self.admit()
        self._receive(forget=True)  # what it said to nobody
        around.loop.add_reader(self.process.channel.fileno(), self._receive)
        self.send(Adopt())
        if isinstance(self.entry, HubWorkerPlan):
            self.send(SetSites(self.entry.sites))

    def send(self, message: ToWorker, *fds: int) -> bool:
        """Sends, or reports it unfit: one that does not read its channel is lost."""
        if self.process.channel.fileno() < 0:
            return False
        try:
            sent, fault = self.process.channel.send(message, fds), "does not read its channel"
        except ChannelFault as error:
            sent, fault = False, str(error)
        except ChannelClosed:
            return False  # its end is about to be told
        if not sent:
            self._around.loop.call_soon(self._owner.on_unfit, self, fault)
        return sent

    def configure(self) -> None:
        """Its first message, with TUN and socket."""
        around, entry = self._around, self.entry
        credentials = around.secrets.credentials
        if isinstance(entry, HubWorkerPlan):
            fds = around.network.hub_fds(entry, self.generation)
            keys = around.secrets.reset_key(entry), around.secrets.retry_key(entry)
            hub = configure_hub(entry, around.plan, credentials, *keys)
            lost = tuple(LostPeer(site.peer, site.local, site.cid) for site in self.lost)
            hub = msgspec.structs.replace(hub, slot=hub.slot + self.generation, standby=self.standby)
            if not self.standby:
                self.admit()
            self.configured = self.send(with_lost(hub, lost), *fds)
        elif (pair_of_fds := around.network.tunnel_fds(entry, self.generation)) is None:
            reason = obstacle(entry, around.network.links.get(entry.wan))
            if reason:
                self._owner.on_obstacle(self, reason)
            else:  # the host's own trouble: nobody will tell when it is over
                self._owner.on_unfit(self, f"{entry.wan}: {entry.interface} cannot be bound")
        else:
            site = configure_site(entry, around.plan, credentials, _peer(pair_of_fds[1]))
            site = msgspec.structs.replace(site, standby=self.standby)
            self.configured = self.send(site, *pair_of_fds)

    def rebind(self) -> None:
        """A socket on the WAN's present address; without configuration it will get that with it."""
        if self.configured and isinstance(self.entry, TunnelPlan):
            fd = self._around.network.rebind(self.entry, self.generation)
            if fd is not None:
                self.send(Rebind(_peer(fd)), fd)
            elif not obstacle(self.entry, self._around.network.links.get(self.entry.wan)):
                self._around.loop.call_later(REBIND_PAUSE, self.rebind)  # as in `configure`

    def lead(self) -> None:
        """It is the one to read the TUN."""
        self.standby = False
        if self.configured:
            self.admit()
            self.send(Lead())

    def admit(self) -> None:
        """At a hub: new connections go to it."""
        if isinstance(self.entry, HubWorkerPlan):
            self._around.network.admit(self.entry, self.generation)

    def silence(self, now: float) -> float | None:
        """How long it has been silent, once that is too long: at once for a process that is stopped, later for one
        that may only be starved of CPU, since to kill it would starve the others more."""
        if self.deadline is None or now <= self.deadline:
            return None
        patience = STARVED * self._around.plan.watchdog.heartbeat_timeout
        if now <= self.deadline + patience and not self.process.stopped():
            return None
        self.deadline = None
        return now - self.heard

    def excuse(self, now: float) -> None:
        """We ourselves were late: nobody's silence so far counts."""
        if self.deadline is not None:
            self.deadline = max(self.deadline, now + self._around.plan.watchdog.heartbeat_timeout)

    # ------------------------------------------------------------ what it says

    def _receive(self, *, forget: bool = False) -> None:
        try:
            for _ in range(FORGET_BUDGET if forget else READ_BUDGET):
                received = self.process.channel.receive()
                if received is None:
                    return
                if not forget or isinstance(received[0], SignRequest):
                    self._handle(received[0])
        except ChannelClosed:
            # Its end is about to be told; if not, its heartbeats are missed.
            self._around.loop.remove_reader(self.process.channel.fileno())
        except ChannelFault as error:
            self._around.loop.remove_reader(self.process.channel.fileno())
            self._owner.on_unfit(self, str(error))

    def _handle(self, message: FromWorker) -> None:
        now = self._around.loop.time()
        match message:
            case Heartbeat():
                self.heard = now
                self.deadline = now + self._around.plan.watchdog.heartbeat_timeout
            case Report():
                self._note(message, now)
            case _:
                self._owner.on_message(self, message)

    def _note(self, report: Report, now: float) -> None:
        last, elapsed = self.report, now - self._reported
        if elapsed > 0 and self._reported > self.ordered:
            self.rates = (
                max(0, report.bytes_in - last.bytes_in) * 8 / elapsed,
                max(0, report.bytes_out - last.bytes_out) * 8 / elapsed,
            )
        self.report, self._reported = report, now

    def _on_born(self, pid: int) -> None:
        if self._around.weights is not None:
            self._around.weights.assign(pid, class_of(self.entry))
        if self.deadline is None:  # its own first word may have been faster than the zygote's
            self.deadline = self._around.loop.time() + self._around.plan.watchdog.start_timeout
        self._owner.on_born(self)

    def _on_ended(self, status: int | None) -> None:
        if self.process.channel.fileno() >= 0:
            self._last_words()
        self.deadline, self.configured = None, False
        self._owner.on_ended(self, status)

    def _last_words(self) -> None:
        """Notices that were under way when it ended; nothing else counts any more."""
        channel = self.process.channel
        self._around.loop.remove_reader(channel.fileno())
        try:
            for _ in range(READ_BUDGET):
                received = channel.receive()
                if received is None:
                    break
                if isinstance(received[0], Notice):
                    self._owner.on_message(self, received[0])
        except (ChannelClosed, ChannelFault) as error:
            log.debug("%s: %s", self.entry.name, error)
        channel.close()


def _peer(fd: int) -> tuple[str, int]:
    with socket.socket(fileno=os.dup(fd)) as sock:
        host, port = sock.getpeername()[:2]
    return host, port
