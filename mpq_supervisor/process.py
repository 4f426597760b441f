"""One worker as the supervisor sees it: its life-cycle, and the one or two processes that it has at a time.

channel, pidfd, timer, link ─▶ feed(event) ─▶ lifecycle.step ─▶ actions ─▶ zygote, channel, signal, timer

The *leader* reads the TUN. In a planned restart there is an *other* one: first its successor, later its predecessor.
"""

from __future__ import annotations

import logging
import random
import socket
from asyncio import TimerHandle
from collections.abc import Callable

from mpq_supervisor import happenings, lifecycle
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.incarnation import Incarnation, Surroundings
from mpq_supervisor.lifecycle import Life, State
from mpq_supervisor.orders import Entry, fingerprint, obstacle, sites_of
from mpq_supervisor.plan import TunnelPlan
from mpq_supervisor.signer import SignatureRefused
from mpq_supervisor.survivors import Survivor
from mpq_supervisor.throttle import Throttle
from mpq_supervisor.zygote import Process
from mpq_worker.contract import (
    CONTRACT_VERSION,
    NEIGHBOURS,
    Drain,
    Drained,
    ExitCode,
    FromWorker,
    Notice,
    PeerBack,
    PeerMoved,
    PeerSilent,
    Ready,
    Report,
    SetSites,
    Signature,
    SignRequest,
    SiteStatus,
    Standing,
    Started,
    Stop,
)
from mpq_worker.errors import HostFault
from mpq_worker.wire import one_line

MAX_LINE = 500
"""Characters of a worker's words in a log line; whatever is not printable is none of them."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

log = logging.getLogger(__name__)


class Worker:
    """The worker of one plan entry, over all its processes."""

    def __init__(self, entry: Entry, around: Surroundings, changed: Callable[[Worker], None]) -> None:
        self.entry = entry
        self.life = Life()
        self.retired = False  # no longer in the plan; goes when its processes have gone
        self.leader: Incarnation | None = None
        self.other: Incarnation | None = None
        self.refused_signatures = 0
        self.causes: dict[str, int] = {}  # how often each `lifecycle.cause` had it started anew
        self._last_report = Report()
        self._stored: tuple[str, ...] = ()  # names in the store
        self._generation = 0  # of the leader
        self._killed: set[Incarnation] = set()  # not waited for
        self._around = around
        self._fingerprint = fingerprint(entry, around.plan, around.secrets.credentials)  # of what is to run now
        self._changed = changed
        self._timer: TimerHandle | None = None
        self._notices = Throttle()
        if isinstance(entry, TunnelPlan):
            self.look_at_link()

    @property
    def name(self) -> str:
        """As in the plan."""
        return self.entry.name

    @property
    def process(self) -> Process | None:
        """The leader's."""
        return self.leader.process if self.leader else None

    @property
    def processes(self) -> list[Process]:
        """All that have not ended."""
        return [one.process for one in (self.leader, self.other, *self._killed) if one is not None]

    @property
    def report(self) -> Report:
        """The last one of the leader, or of the process that was it."""
        return self.leader.report if self.leader else self._last_report

    @property
    def unheard(self) -> bool:
        """Whether it was adopted, and has not said yet how it stands."""
        return self.life.state is State.STARTING and self.leader is not None and self.leader.adopted

    @property
    def outdated(self) -> bool:
        """Whether it runs, but no process of it is what would be started now."""
        running = [one.fingerprint for one in (self.leader, self.other) if one is not None]
        return bool(running) and self._fingerprint not in running

    @property
    def rates(self) -> tuple[float, float]:
        """The leader's, in bit/s, in and out."""
        return self.leader.rates if self.leader else (0.0, 0.0)

    def feed(self, event: happenings.Event) -> None:
        """Takes one step of the life-cycle and does what follows from it."""
        before = self.life
        self.life, actions = lifecycle.step(
            before, event, self._around.loop.time(), random.random(), self._around.policy
        )
        if self.life.state is not before.state:
            self._disarm()
            _log_transition(self.entry, before, self.life)
        if (cause := lifecycle.cause(before, event, self.life)) is not None:
            self.causes = {**self.causes, cause: self.causes.get(cause, 0) + 1}
        for action in actions:
            self._execute(action)
        if self.life.state is not before.state and self.life.state in (State.STOPPED, State.FAILED):
            self._around.network.forget(self.entry, self._generation)
        if self.life != before:
            self._changed(self)

    def adopt(self, survivor: Survivor) -> None:
        """Takes over a process that an earlier supervisor has left, with both its descriptors."""
        sock = socket.socket(fileno=survivor.channel)
        self._generation, self._stored = survivor.generation, survivor.names
        self.leader = Incarnation(self.entry, survivor.generation, self._around, self, channel=sock)
        self.feed(happenings.Adopted())
        self.leader.adopt(survivor)

    def look_at_link(self) -> None:
        """The WAN has changed, or may have."""
        assert isinstance(self.entry, TunnelPlan)
        reason = obstacle(self.entry, self._around.network.links.get(self.entry.wan))
        self.feed(happenings.LinkDown(reason) if reason else happenings.LinkUp())

    def replace_entry(self, entry: Entry) -> None:
        """After a reload: this worker's plan has changed in nothing but its sites, or it will be restarted."""
        old, self.entry = self.entry, entry
        self._fingerprint = fingerprint(entry, self._around.plan, self._around.secrets.credentials)
        for one in (self.leader, self.other):
            if one is None:
                continue
            if not one.configured:
                one.entry = entry  # which it will be told
            elif sites_of(entry) != sites_of(old):
                one.send(SetSites(sites_of(entry)))

    def check_heartbeats(self, now: float) -> None:
        """Whoever has been silent for too long is taken for dead."""
        if self.leader is not None and (silence := self.leader.silence(now)) is not None:
            self.feed(happenings.HeartbeatMissed(silence))
        if self.other is not None and (silence := self.other.silence(now)) is not None:
            self.on_unfit(self.other, f"no heartbeat for {silence:.1f} s")

    def excuse(self, now: float) -> None:
        """We ourselves were late: nobody's silence so far counts."""
        for one in (self.leader, self.other):
            if one is not None:
                one.excuse(now)

    # ------------------------------------------------------------ actions

    def _execute(self, action: happenings.Action) -> None:
        match action:
            case happenings.Fork():
                self._fork()
            case happenings.ForkSuccessor():
                self._fork_successor()
            case happenings.SendStop():
                self._of_leader(lambda one: one.send(Stop(self._around.policy.stop_grace * 0.8)))
            case happenings.Kill():
                self._of_leader(lambda one: one.process.kill())
            case happenings.SendRebind():
                for one in (self.leader, self.other):
                    if one is not None:
                        one.rebind()
            case happenings.SendDrain():
                if self.other is not None:
                    self.other.admit()
                self._of_leader(lambda one: one.send(Drain()))
            case happenings.SendLead():
                self._of_leader(Incarnation.lead)
            case happenings.Promote():
                assert self.other is not None
                self.leader, self.other = self.other, self.leader
                self._generation = self.leader.generation
                self._store(self.leader)
            case happenings.Retire():
                self._retire()
            case happenings.Discard():
                self._discard()
            case happenings.ArmBackoff(delay=delay):
                self._arm(delay, happenings.BackoffElapsed())
            case happenings.ArmStop(delay=delay):
                self._arm(delay, happenings.StopTimeout())
            case happenings.ArmHandover(delay=delay):
                self._arm(delay, happenings.HandoverTimeout())

    def _of_leader(self, action: Callable[[Incarnation], object]) -> None:
        if self.leader is not None:
            action(self.leader)

    def _arm(self, delay: float, event: happenings.Event) -> None:
        self._disarm()
        self._timer = self._around.loop.call_later(delay, self.feed, event)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fork(self) -> None:
        lost = self._last_report.sites if self.life.last_exit != ExitCode.OK else ()
        self.leader = self._ordered(self._generation, lost=lost)
        if self.leader is None:
            # Not from inside a step: the answer to Fork is an event of its own.
            self._around.loop.call_soon(self.feed, happenings.Exited(None))

    def _fork_successor(self) -> None:
        self.other = self._ordered(1 - self._generation, standby=True)
        if self.other is None:
            self._around.loop.call_soon(self.feed, happenings.SuccessorLost("it could not be forked"))

    def _ordered(
        self, generation: int, *, standby: bool = False, lost: tuple[SiteStatus, ...] = ()
    ) -> Incarnation | None:
        """A process on its way; None where there is no zygote to fork it, or no descriptor for its channel."""
        try:
            one = Incarnation(self.entry, generation, self._around, self, standby=standby, lost=lost)
        except OSError as error:
            log.error("%s: %s", self.name, error.strerror)
            return None
        return one if one.order() else None

    def _retire(self) -> None:
        if self.other is not None:
            grace = self._around.policy.retire_grace
            self.other.send(Stop(grace * 0.8))
            self._around.loop.call_later(grace, self.other.process.kill)

    def _discard(self) -> None:
        if self.other is not None:
            self.other.process.kill()
            self._killed.add(self.other)
            self.other = None

    # ------------------------------------------------------------ what its processes say

    def on_message(self, who: Incarnation, message: FromWorker) -> None:
        """See `incarnation.Owner`, for this and what follows."""
        match message:
            case Notice(kind=kind, text=text, level=level):
                if (suppressed := self._notices.admit(self._around.loop.time())) is not None:
                    more = f" ({suppressed} lines before it suppressed)" if suppressed else ""
                    about = marks(Kind.NOTICE, self.entry, reason=one_line(kind))
                    line = one_line(f"{kind}: {text}", MAX_LINE)
                    log.log(_LEVELS.get(level, logging.WARNING), "%s: %s%s", self.name, line, more, extra=about)
            case SignRequest(seq=seq, purpose=purpose, data=data):
                who.send(Signature(seq, self._sign(purpose, data)))
            case Started(version=version) if version not in NEIGHBOURS:
                self.on_unfit(who, f"speaks version {version} of the contract, we {CONTRACT_VERSION}")
            case Started(version=version):
                who.version = version
                self._configure(who)
            case PeerMoved():
                reader = self.other if who is self.leader else self.leader
                if reader is not None and reader.configured:
                    reader.send(message)
            case Ready() if who is self.other and self.life.state is State.REPLACING:
                self.feed(happenings.SuccessorReady())
            case _ if who is self.leader:
                self._on_leader(message)

    def _on_leader(self, message: FromWorker) -> None:
        match message:
            case Ready():
                self.feed(happenings.Ready())
            case Standing():
                self._on_standing(message)
            case PeerSilent(reason=reason):
                self.feed(happenings.PeerSilent(one_line(reason)))
            case PeerBack():
                self.feed(happenings.PeerBack())
            case Drained(left=left):
                if left:
                    log.warning("%s: %d packets had not left when its successor took over", self.name, left)
                self.feed(happenings.Drained())

    def _on_standing(self, standing: Standing) -> None:
        if standing.ready:
            self.feed(happenings.Ready())
        if isinstance(self.entry, TunnelPlan):
            reach = self._around.network.links[self.entry.wan].reach(self.entry.hub_addresses)
            if reach is None:
                self.look_at_link()
            elif reach[0] != standing.local:
                self.feed(happenings.LinkUp())  # the address has changed while nobody looked
        if standing.silent:
            self.feed(happenings.PeerSilent("nothing heard from the hub"))

    def on_born(self, who: Incarnation) -> None:
        self._changed(self)
        self._configure(who)

    def on_unfit(self, who: Incarnation, reason: str) -> None:
        if who is self.leader:
            self.feed(happenings.Unfit(reason))
        elif who is self.other and self.life.state is State.RETIRING:
            who.process.kill()
        elif who is self.other:
            self.feed(happenings.SuccessorLost(reason))

    def on_obstacle(self, who: Incarnation, reason: str) -> None:
        if who is self.leader:
            self.feed(happenings.LinkDown(reason))
        else:
            self.on_unfit(who, reason)

    def on_ended(self, who: Incarnation, status: int | None) -> None:
        self._killed.discard(who)
        if who is self.leader:
            self.leader, self._last_report = None, who.report
            self._store(None)
            if self.life.state is not State.STOPPING:
                log.warning("%s: %s", self.name, happenings.explain(status), extra=marks(Kind.EXIT, self.entry))
            self.feed(happenings.Exited(status))
            if self.leader is not None:  # otherwise its place waits for the next one
                self._give_up(who)
            return
        if who is self.other:
            self.other = None
            if self.life.state is State.RETIRING:
                self.feed(happenings.PredecessorGone(status))
            else:
                self.feed(happenings.SuccessorLost(happenings.explain(status)))
        self._give_up(who)
        self._changed(self)

    # ------------------------------------------------------------ helpers

    def _give_up(self, who: Incarnation) -> None:
        """It has gone: so does what it was lent, unless somebody has its place."""
        if all(one is None or one.generation != who.generation for one in (self.leader, self.other)):
            self._around.network.forget(who.entry, who.generation)

    def _store(self, leader: Incarnation | None) -> None:
        """The next supervisor, should it come suddenly, finds the leader and no other, and that only if configured:
        no other could answer `Adopt`."""
        before, self._stored = self._stored, ()
        if leader is not None and leader.configured:
            where = f"{self.name}/{leader.generation}"
            channel = f"channel/{where}/{leader.version}/{leader.fingerprint}"
            self._stored = (channel, f"pidfd/{where}")
            self._around.store.put(channel, leader.process.channel.fileno())
            self._around.store.put(f"pidfd/{where}", leader.process.pidfd)
        for name in before:
            if name not in self._stored:
                self._around.store.drop(name)

    def _configure(self, who: Incarnation) -> None:
        """Once it has said Started and the zygote Forked, in whatever order: were the zygote lost in between, nobody
        could end it. Without configuration it ends with its channel."""
        if who.version is None or who.process.pid is None or who.configured or who in self._killed:
            return
        try:
            who.configure()
        except (HostFault, OSError) as error:  # a TUN that somebody else holds, a socket that cannot be had
            self.on_unfit(who, str(error))
        if who is self.leader:
            self._store(who)

    def _sign(self, purpose: str, data: bytes) -> bytes:
        try:
            return self._around.secrets.signer.sign(purpose, data)
        except SignatureRefused as refusal:
            self.refused_signatures += 1
            log.warning("%s: signature refused: %s", self.name, refusal)
            return b""


def _log_transition(entry: Entry, before: Life, after: Life) -> None:
    bad = after.state in (State.BACKOFF, State.DEGRADED) or (after.state is State.STOPPING and after.fault)
    bad |= after.failed_restarts > before.failed_restarts
    level = logging.ERROR if after.state is State.FAILED else logging.WARNING if bad else logging.INFO
    reason = f": {after.reason}" if after.reason else ""
    about = marks(Kind.STATE, entry, reason=after.reason)
    log.log(level, "%s: %s → %s%s", entry.name, before.state, after.state, reason, extra=about)
