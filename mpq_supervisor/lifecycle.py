"""The life-cycle of a worker, as one table. Pure: `now` and chance are arguments, actions are returned.

    STOPPED    told to be down                          STARTING   forked, on its way to Ready
    WAITING    wants to run, its WAN is not there       UP         Ready: the peer answers
    BACKOFF    died; a timer runs before the next try   DEGRADED   the peer is silent; the worker goes on
    FAILED     died for a reason that retrying cannot   STOPPING   told to go, or killed; `wanted` says
               mend; stays until told                              what follows

Rules of restarting (after s6, plus full jitter):

* after a healthy run (Ready for `healthy_after` or more): at once, and the count of failures begins anew;
* otherwise failure n waits a random time up to `backoff_initial * 2**(n-2)`, at most `backoff_max`;
  the first does not wait;
* whoever dies before it was ever Ready waits `START_PAUSE` at least;
* exit codes in `contract.PERMANENT` are not retried; everything else is, for ever;
* without its WAN nothing is tried: the tunnel waits.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from mpq_worker.contract import PERMANENT, ExitCode

START_PAUSE = 1.0


class State(StrEnum):
    """What `ctl status` shows."""

    STOPPED = "STOPPED"
    WAITING = "WAITING"
    STARTING = "STARTING"
    UP = "UP"
    DEGRADED = "DEGRADED"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


class Policy(msgspec.Struct, frozen=True):
    """Seconds; `[watchdog]` of the configuration."""

    backoff_initial: float = 0.1
    backoff_max: float = 30.0
    healthy_after: float = 10.0
    stop_grace: float = 1.0


class Life(msgspec.Struct, frozen=True):
    """Where a worker stands. `since` is when the state began, `ready_at` when this process became Ready."""

    state: State = State.STOPPED
    since: float = 0.0
    obstacle: str = ""  # why the WAN is not usable; empty when it is, and always at a hub
    wanted: bool = False  # while STOPPING: run again afterwards
    fault: bool = False  # while STOPPING: it was killed for a fault, its end counts as a failure
    failures: int = 0  # since the last healthy run
    starts: int = 0
    ready_at: float | None = None
    last_exit: int | None = None  # as by os.waitstatus_to_exitcode; None also when nobody could tell
    reason: str = ""


# ---------------------------------------------------------------- events


class _Event(msgspec.Struct, frozen=True):
    pass


class StartWanted(_Event, frozen=True):
    """The operator, or the supervisor at its start, wants it to run."""


class StopWanted(_Event, frozen=True):
    """The operator wants it down."""


class RestartWanted(_Event, frozen=True):
    """A planned restart: new configuration, or the operator's word."""


class LinkUp(_Event, frozen=True):
    """The WAN is usable, perhaps with another address than before."""


class LinkDown(_Event, frozen=True):
    """The WAN lost its carrier, address or gateway, or is not there yet; `reason` (not empty) says which."""

    reason: str


class Ready(_Event, frozen=True):
    """The worker's own word."""


class PeerSilent(_Event, frozen=True):
    """The worker's own word."""

    reason: str = ""


class PeerBack(_Event, frozen=True):
    """The worker's own word."""


class HeartbeatMissed(_Event, frozen=True):
    """The watchdog: the data loop has not turned for too long."""

    silence: float


class MemoryExceeded(_Event, frozen=True):
    """The watchdog: resident bytes over the limit."""

    rss: int


class Unfit(_Event, frozen=True):
    """It cannot go on: the worker broke the contract, or what it needs of the host cannot be had."""

    reason: str


class Exited(_Event, frozen=True):
    """The process is gone. `status` as by os.waitstatus_to_exitcode, None when unknown or never forked."""

    status: int | None


class BackoffElapsed(_Event, frozen=True):
    """The timer of `ArmBackoff`."""


class StopTimeout(_Event, frozen=True):
    """The timer of `ArmStop`."""


Event = (
    StartWanted
    | StopWanted
    | RestartWanted
    | LinkUp
    | LinkDown
    | Ready
    | PeerSilent
    | PeerBack
    | HeartbeatMissed
    | MemoryExceeded
    | Unfit
    | Exited
    | BackoffElapsed
    | StopTimeout
)

# ---------------------------------------------------------------- actions


class Fork(_Event, frozen=True):
    """Have the zygote fork the worker; then configure it."""


class SendStop(_Event, frozen=True):
    """Ask the worker to end."""


class Kill(_Event, frozen=True):
    """SIGKILL, now."""


class SendRebind(_Event, frozen=True):
    """Give the worker a socket on the WAN's current address."""


class ArmBackoff(_Event, frozen=True):
    """Feed BackoffElapsed after `delay` seconds."""

    delay: float


class ArmStop(_Event, frozen=True):
    """Feed StopTimeout after `delay` seconds."""

    delay: float


Action = Fork | SendStop | Kill | SendRebind | ArmBackoff | ArmStop
Outcome = tuple[Life, tuple[Action, ...]]


def step(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The next life and what to do about it, in order. `chance` is random, 0 <= chance < 1.

    Whoever executes the actions cancels the timer of the old state whenever `state` changes.
    """
    return _TABLE[type(event)][life.state](life, event, now, chance, policy)


# ---------------------------------------------------------------- transitions

_Transition = Callable[[Life, Event, float, float, Policy], Outcome]


def ______(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """Nothing: this event means nothing in this state, or has been overtaken."""
    return life, ()


def _start(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    if life.obstacle:
        return _enter(life, State.WAITING, now, life.obstacle), ()
    return _enter(life, State.STARTING, now, "", starts=life.starts + 1, ready_at=None), (Fork(),)


def _afresh(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """Somebody said so: earlier failures are forgotten."""
    return _start(_but(life, failures=0), event, now, chance, policy)


def _halt(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _enter(life, State.STOPPED, now, "", failures=0), ()


def _stop(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    again = isinstance(event, RestartWanted)
    reason = "restart" if again else "stop"
    stopping = _enter(life, State.STOPPING, now, reason, wanted=again, fault=False)
    return stopping, (SendStop(), ArmStop(policy.stop_grace))


def _kill(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _enter(life, State.STOPPING, now, _blame(event), wanted=True, fault=True), (Kill(),)


def _slay(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return life, (Kill(),)


def _want(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _but(life, wanted=True), ()


def _unwant(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _but(life, wanted=False), ()


def _clear(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _but(life, obstacle=""), ()


def _arrive(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _start(_but(life, obstacle=""), event, now, chance, policy)


def _rebind(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _but(life, obstacle=""), (SendRebind(),)


def _block(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    assert isinstance(event, LinkDown)
    return _but(life, obstacle=event.reason), ()


def _wait(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    assert isinstance(event, LinkDown)
    return _enter(life, State.WAITING, now, event.reason, obstacle=event.reason), ()


def _withdraw(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """Not Ready yet and nothing to become ready over: end it and wait."""
    assert isinstance(event, LinkDown)
    return _stop(_but(life, obstacle=event.reason), RestartWanted(), now, chance, policy)


def _degrade(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The worker is kept while its WAN is away: when it comes back, a Rebind is faster than a start."""
    if isinstance(event, LinkDown):
        return _enter(life, State.DEGRADED, now, event.reason, obstacle=event.reason), ()
    assert isinstance(event, PeerSilent)
    return _enter(life, State.DEGRADED, now, event.reason or "the peer is silent"), ()


def _ready(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _enter(life, State.UP, now, "", ready_at=now if life.ready_at is None else life.ready_at), ()


def _recover(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _enter(life, State.UP if life.ready_at is not None else State.STARTING, now, ""), ()


def _gone(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The end of a process that was told to end, or was killed."""
    assert isinstance(event, Exited)
    if life.fault and life.wanted:
        return _died(life, event, now, chance, policy)
    life = _but(life, last_exit=event.status, fault=False)
    return (_afresh if life.wanted else _halt)(life, event, now, chance, policy)


def _died(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The end of a process that failed, by itself or in the watchdog's eyes."""
    assert isinstance(event, Exited)
    healthy = life.ready_at is not None and now - life.ready_at >= policy.healthy_after
    reason = life.reason if life.fault else explain(event.status)
    life = _but(life, last_exit=event.status, failures=0 if healthy else life.failures + 1, fault=False)
    if event.status in PERMANENT:
        return _enter(life, State.FAILED, now, reason), ()
    delay = backoff(life.failures, chance, policy)
    if life.ready_at is None:
        delay = max(delay, START_PAUSE)
    if delay == 0 or life.obstacle:
        return _start(life, event, now, chance, policy)
    return _enter(life, State.BACKOFF, now, reason), (ArmBackoff(delay),)


# ---------------------------------------------------------------- the table

# fmt: off
_ROWS: tuple[tuple[type[_Event], *tuple[_Transition, ...]], ...] = (
    #                 STOPPED  WAITING  STARTING   UP        DEGRADED  BACKOFF  STOPPING  FAILED
    (StartWanted,     _afresh, ______,  ______,    ______,   ______,   _afresh, _want,    _afresh),
    (StopWanted,      ______,  _halt,   _stop,     _stop,    _stop,    _halt,   _unwant,  _halt),
    (RestartWanted,   _afresh, ______,  _stop,     _stop,    _stop,    _afresh, _want,    _afresh),
    (LinkUp,          _clear,  _arrive, _rebind,   _rebind,  _rebind,  _clear,  _clear,   _clear),
    (LinkDown,        _block,  _wait,   _withdraw, _degrade, _degrade, _wait,   _block,   _block),
    (Ready,           ______,  ______,  _ready,    ______,   _ready,   ______,  ______,   ______),
    (PeerSilent,      ______,  ______,  _degrade,  _degrade, ______,   ______,  ______,   ______),
    (PeerBack,        ______,  ______,  ______,    ______,   _recover, ______,  ______,   ______),
    (HeartbeatMissed, ______,  ______,  _kill,     _kill,    _kill,    ______,  ______,   ______),
    (MemoryExceeded,  ______,  ______,  _kill,     _kill,    _kill,    ______,  ______,   ______),
    (Unfit,           ______,  ______,  _kill,     _kill,    _kill,    ______,  _slay,    ______),
    (Exited,          ______,  ______,  _died,     _died,    _died,    ______,  _gone,    ______),
    (BackoffElapsed,  ______,  ______,  ______,    ______,   ______,   _start,  ______,   ______),
    (StopTimeout,     ______,  ______,  ______,    ______,   ______,   ______,  _slay,    ______),
)
# fmt: on
_COLUMNS = (
    State.STOPPED,
    State.WAITING,
    State.STARTING,
    State.UP,
    State.DEGRADED,
    State.BACKOFF,
    State.STOPPING,
    State.FAILED,
)
_TABLE = {event: dict(zip(_COLUMNS, cells, strict=True)) for event, *cells in _ROWS}

# ---------------------------------------------------------------- helpers


def backoff(failures: int, chance: float, policy: Policy) -> float:
    """Seconds to wait after `failures` failures in a row: none after the first, then full jitter."""
    if failures < 2:
        return 0.0
    ceiling = min(policy.backoff_max, policy.backoff_initial * 2.0 ** min(failures - 2, 32))
    return chance * ceiling


def cause(before: Life, event: Event, after: Life) -> str | None:
    """One word for why a worker was, or is about to be, started anew; None where this step is no reason."""
    if before.state is after.state or after.state in (State.STOPPED, State.FAILED):
        return None
    match event:
        case HeartbeatMissed():
            return "heartbeat"
        case MemoryExceeded():
            return "memory"
        case Unfit():
            return "unfit"
        case LinkDown() if after.state is State.STOPPING:
            return "link"
        case RestartWanted() if after.state is State.STOPPING:
            return "order"
        case Exited() if before.state is not State.STOPPING:
            return "crash"
    return None


def explain(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "lost, its zygote died before it could tell"
    if status < 0:
        return f"killed by signal {-status}"
    try:
        return f"exit {status} ({ExitCode(status).name})"
    except ValueError:
        return f"exit {status}"


def _blame(event: Event) -> str:
    match event:
        case HeartbeatMissed(silence=silence):
            return f"no heartbeat for {silence:.1f} s"
        case MemoryExceeded(rss=rss):
            return f"{rss / 1e6:.0f} MB of memory"
        case Unfit(reason=reason):
            return reason
    raise AssertionError(event)


def _but(life: Life, **changes: object) -> Life:
    return msgspec.structs.replace(life, **changes)


def _enter(life: Life, state: State, now: float, reason: str, **changes: object) -> Life:
    since = life.since if state is life.state else now
    return _but(life, state=state, since=since, reason=reason, **changes)
