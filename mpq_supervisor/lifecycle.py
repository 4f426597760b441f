"""The life-cycle of a worker, as one table. Pure: `now` and chance are arguments, actions are returned.

    STOPPED    told to be down                          STARTING   forked, on its way to Ready
    WAITING    wants to run, its WAN is not there       UP         Ready: the peer answers
    BACKOFF    died; a timer runs before the next try   DEGRADED   the peer is silent; the worker goes on
    FAILED     died for a reason that retrying cannot   STOPPING   told to go, or killed; `wanted` says
               mend; stays until told                              what follows

A planned restart of a worker that is UP loses nothing: a successor stands by before the leader stops reading.

    UP ─RestartWanted─▶ REPLACING ─SuccessorReady─▶ DRAINING ─Drained─▶ RETIRING ─PredecessorGone─▶ UP
                        the leader goes on,         it sends out        the successor leads, the
                        a successor starts          what it read        old one hears stragglers

If the successor fails, the leader goes on and the restart has failed. If the leader fails, the successor leads at
once. While the peer is silent there is nothing to lose: restarts are plain then, stop and start.

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
from typing import get_args

import msgspec

from mpq_supervisor.happenings import (
    Action,
    Adopted,
    ArmBackoff,
    ArmHandover,
    ArmStop,
    BackoffElapsed,
    Base,
    Discard,
    Drained,
    Event,
    Exited,
    Fork,
    ForkSuccessor,
    HandoverTimeout,
    HeartbeatMissed,
    Kill,
    LinkDown,
    LinkUp,
    MemoryExceeded,
    PeerBack,
    PeerSilent,
    PredecessorGone,
    Promote,
    Ready,
    RestartWanted,
    Retire,
    SendDrain,
    SendLead,
    SendRebind,
    SendStop,
    StartWanted,
    StopTimeout,
    StopWanted,
    SuccessorLost,
    SuccessorReady,
    Unfit,
    explain,
)
from mpq_supervisor.life import SERVING, Life, Policy, State
from mpq_worker.contract import PERMANENT, ExitCode

__all__ = ["SERVING", "START_PAUSE", "Life", "Policy", "State", "backoff", "cause", "step"]

START_PAUSE = 1.0


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


def _adopt(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _enter(life, State.STARTING, now, "adopted", starts=1, ready_at=None), ()


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


def _recall(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
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


# ---------------------------------------------------------------- planned restarts


def _replace(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    life = _enter(life, State.REPLACING, now, "restart", again=False)
    return life, (ForkSuccessor(), ArmHandover(policy.replace_timeout))


def _renew(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The successor was not configured as is wanted now."""
    life, actions = _replace(life, event, now, chance, policy)
    return life, (Discard(), *actions)


def _again(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _but(life, again=True), ()


def _drain(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _enter(life, State.DRAINING, now, life.reason), (SendDrain(), ArmHandover(policy.drain_timeout))


def _promote(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    led = _but(life, starts=life.starts + 1, ready_at=now, failures=0, last_exit=ExitCode.OK)
    life = _enter(led, State.RETIRING, now, life.reason)
    return life, (Promote(), SendLead(), ArmHandover(policy.linger))


def _retire(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return life, (Retire(),)


def _settle(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    assert isinstance(event, PredecessorGone)
    return _over(_but(life, last_exit=event.status), "", now, chance, policy)


def _keep(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The successor failed: as before, but for the reason shown."""
    why = event.reason if isinstance(event, SuccessorLost) else f"not Ready within {policy.replace_timeout:.0f} s"
    life = _but(life, failed_restarts=life.failed_restarts + 1)
    life, actions = _over(life, f"restart failed: {why}", now, chance, policy)
    return life, (Discard(), *actions)


def _resume(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """As `_keep`, and the leader may have stopped reading already."""
    life, (discard, *actions) = _keep(life, event, now, chance, policy)
    return life, (discard, SendLead(), *actions)


def _inherit(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """The leader died while its successor starts, or stands by."""
    assert isinstance(event, Exited)
    actions: tuple[Action, ...] = ()
    life = _but(life, last_exit=event.status, starts=life.starts + 1)
    if life.state is State.DRAINING:
        life, actions = _over(_but(life, ready_at=now, failures=0), "", now, chance, policy)
    else:
        life = _enter(life, State.STARTING, now, explain(event.status), ready_at=None, failures=life.failures + 1)
    return life, (Promote(), SendLead(), *actions)


def _over(life: Life, reason: str, now: float, chance: float, policy: Policy) -> Outcome:
    """A planned restart is over, well or not: what was wanted or has happened meanwhile counts now."""
    if life.again:
        restart = _stop if life.obstacle else _replace
        return restart(_but(life, again=False), RestartWanted(), now, chance, policy)
    if life.obstacle:
        return _enter(life, State.DEGRADED, now, life.obstacle), ()
    return _enter(life, State.UP, now, reason), ()


def _quit(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _alone(_stop, life, event, now, chance, policy)


def _falter(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """RETIRING, and the peer or the WAN is gone."""
    if life.again:
        return _plainly(life, event, now, chance, policy)
    return _alone(_degrade, life, event, now, chance, policy)


def _strike(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _alone(_kill, life, event, now, chance, policy)


def _fell(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    return _alone(_died, life, event, now, chance, policy)


def _plainly(life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """A restart is under way or wanted, and the peer or the WAN is gone: stop and start instead."""
    if isinstance(event, LinkDown):
        life = _but(life, obstacle=event.reason)
    return _alone(_stop, life, RestartWanted(), now, chance, policy)


def _alone(transition: _Transition, life: Life, event: Event, now: float, chance: float, policy: Policy) -> Outcome:
    """`transition` of a leader whose successor or predecessor goes at once."""
    life, actions = transition(_but(life, again=False), event, now, chance, policy)
    return life, (Discard(), *actions)


# ---------------------------------------------------------------- the end of a process


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

_Rows = tuple[tuple[type[Base], *tuple[_Transition, ...]], ...]
# fmt: off
_COLUMNS = (
    State.STOPPED, State.WAITING, State.STARTING, State.UP,
    State.DEGRADED, State.BACKOFF, State.STOPPING, State.FAILED,
)
_ROWS: _Rows = (
    #                 STOPPED  WAITING  STARTING  UP        DEGRADED  BACKOFF  STOPPING FAILED
    (StartWanted,     _afresh, ______,  ______,   ______,   ______,   _afresh, _want,   _afresh),
    (Adopted,         _adopt,  ______,  ______,   ______,   ______,   ______,  ______,  ______),
    (StopWanted,      ______,  _halt,   _stop,    _stop,    _stop,    _halt,   _unwant, _halt),
    (RestartWanted,   _afresh, ______,  _stop,    _replace, _stop,    _afresh, _want,   _afresh),
    (LinkUp,          _clear,  _arrive, _rebind,  _rebind,  _rebind,  _clear,  _clear,  _clear),
    (LinkDown,        _block,  _wait,   _recall,  _degrade, _degrade, _wait,   _block,  _block),
    (Ready,           ______,  ______,  _ready,   ______,   _ready,   ______,  ______,  ______),
    (PeerSilent,      ______,  ______,  _degrade, _degrade, ______,   ______,  ______,  ______),
    (PeerBack,        ______,  ______,  ______,   ______,   _recover, ______,  ______,  ______),
    (HeartbeatMissed, ______,  ______,  _kill,    _kill,    _kill,    ______,  ______,  ______),
    (MemoryExceeded,  ______,  ______,  _kill,    _kill,    _kill,    ______,  ______,  ______),
    (Unfit,           ______,  ______,  _kill,    _kill,    _kill,    ______,  _slay,   ______),
    (Exited,          ______,  ______,  _died,    _died,    _died,    ______,  _gone,   ______),
    (BackoffElapsed,  ______,  ______,  ______,   ______,   ______,   _start,  ______,  ______),
    (StopTimeout,     ______,  ______,  ______,   ______,   ______,   ______,  _slay,   ______),
)
# A planned restart under way; whatever is not listed means nothing then.
_RESTART_COLUMNS = (State.REPLACING, State.DRAINING, State.RETIRING)
_RESTART_ROWS: _Rows = (
    #                 REPLACING DRAINING  RETIRING
    (StopWanted,      _quit,    _quit,    _quit),
    (RestartWanted,   _renew,   _again,   _again),
    (LinkUp,          _rebind,  _rebind,  _rebind),
    (LinkDown,        _plainly, _block,   _falter),
    (PeerSilent,      _plainly, ______,   _falter),
    (HeartbeatMissed, _slay,    _slay,    _strike),
    (MemoryExceeded,  _slay,    _slay,    _strike),
    (Unfit,           _slay,    _slay,    _strike),
    (Exited,          _inherit, _inherit, _fell),
    (SuccessorReady,  _drain,   ______,   ______),
    (SuccessorLost,   _keep,    _resume,  ______),
    (Drained,         ______,   _promote, ______),
    (PredecessorGone, ______,   ______,   _settle),
    (HandoverTimeout, _keep,    _slay,    _retire),
)
# fmt: on
_TABLE: dict[type[Base], dict[State, _Transition]] = {
    event: dict.fromkeys(State, ______) for event in get_args(Event)
}
for _columns, _rows in ((_COLUMNS, _ROWS), (_RESTART_COLUMNS, _RESTART_ROWS)):
    for _event, *_cells in _rows:
        _TABLE[_event].update(zip(_columns, _cells, strict=True))

# ---------------------------------------------------------------- helpers


def backoff(failures: int, chance: float, policy: Policy) -> float:
    """Seconds to wait after `failures` failures in a row: none after the first, then full jitter."""
    if failures < 2:
        return 0.0
    ceiling = min(policy.backoff_max, policy.backoff_initial * 2.0 ** min(failures - 2, 32))
    return chance * ceiling


def cause(before: Life, event: Event, after: Life) -> str | None:
    """One word for why a worker was, or is about to be, started anew; None where this step is no reason."""
    if after.again and not before.again:
        return "order"
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
        case RestartWanted() if after.state in (State.STOPPING, State.REPLACING):
            return "order"
        case Exited() if before.state is not State.STOPPING:
            return "crash"
    return None


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
