"""Alarms: rules over what the feed told, with hysteresis. Pure.

holds ──broken──▶ pending ──for `seconds`──▶ raised ──at `clear` or below for `seconds`──▶ over
                                               raised ──stopped, not covered, rule or tunnel gone──▶ over
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import fmean

import msgspec

from mpq_supervisor.life import SERVING
from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.alarm_models import Alarm, Over, Silence
from mpq_supervisor.portal.falls import Falls, Known
from mpq_supervisor.portal.losses import Losses
from mpq_supervisor.portal.meter import month_of
from mpq_supervisor.portal.state import State, Tunnel
from mpq_supervisor.schema import Alarm as Rule

MAX_SILENCES = 100
_AT_ONCE = ("flapping", "quota")
"""Kinds whose value is a sum already: `seconds` is what the falls are counted over."""
_OF_WANS = ("asymmetric", "quota")
_EASE = 0.8
"""Of `above`: what is at most so much counts as clear where the rule does not say."""
_BLIND = 10.0
"""Seconds for which a value may be unknown: after more, what `seconds` it has been so is counted anew."""


class Change(msgspec.Struct, frozen=True):
    """An alarm was raised, or is over."""

    alarm: Alarm
    over: Over | None = None

    @property
    def raised(self) -> bool:
        """Or over."""
        return self.over is None


class Memory(msgspec.Struct, frozen=True):
    """What outlives the portal."""

    alarms: tuple[Alarm, ...] = ()
    silences: tuple[Silence, ...] = ()
    next_silence: int = 1
    falls: dict[str, Known] = {}


class _Subject(msgspec.Struct, frozen=True):
    name: str
    tunnel: str
    wan: str
    traffic_class: str
    value: float | None  # None: not known, which changes nothing
    stopped: bool  # by somebody, so that there is nothing to be wrong


class _Watch:
    """One rule and one subject, while it is not as it was."""

    def __init__(self) -> None:
        self.since: float | None = None  # since when it is broken, or while raised, clear
        self.known = 0.0  # when there last was a value


class Alarms:
    """All rules. Times are monotonic except `wall`."""

    def __init__(self, rules: tuple[Rule, ...], memory: Memory, now: float, wall: float) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._watches: dict[tuple[str, str], _Watch] = {}  # by rule and subject
        self._losses = Losses()
        keep = max((rule.seconds for rule in rules if rule.kind == "flapping"), default=0.0)
        self._falls = Falls(keep, memory.falls, now, wall)
        self.active = {alarm.id: alarm for alarm in memory.alarms}
        self.silences = {silence.id: silence for silence in memory.silences}
        self._next_silence = memory.next_silence

    def memory(self) -> Memory:
        """For the next portal."""
        alarms, silences = tuple(self.active.values()), tuple(self.silences.values())
        return Memory(alarms, silences, self._next_silence, self._falls.known())

    def look(self, state: State, volumes: Mapping[str, int] | None, now: float, wall: float) -> list[Change]:
        """What changed. `volumes` are this month's bytes by WAN; None while they are not known."""
        self.silences = {key: silence for key, silence in self.silences.items() if wall < silence.until}
        fresh = [tunnel for tunnel in state.tunnels.values() if tunnel.fresh(now)]
        self._losses.hear(fresh, now)
        self._falls.hear(fresh, now, wall)
        changes = list(self._void(state))
        for rule in self._rules.values():
            for subject in self._subjects(rule, fresh, volumes, now):
                change = self._judge(rule, subject, now, wall)
                changes += [change] if change else []
        return changes

    def acknowledge(self, key: str, by: str) -> Alarm | None:
        """The alarm as it is then; None where there is none."""
        if key not in self.active:
            return None
        self.active[key] = msgspec.structs.replace(self.active[key], acknowledged=by)
        return self.active[key]

    def silence(self, rule: str, subject: str, until: float, by: str, reason: str) -> Silence | None:
        """A new one; None where there are too many."""
        if len(self.silences) >= MAX_SILENCES:
            return None
        silence = Silence(self._next_silence, rule, subject, until, by, reason)
        self._next_silence += 1
        self.silences[silence.id] = silence
        return silence

    def silenced(self, alarm: Alarm, wall: float) -> bool:
        """Whether nobody is to be told."""
        return any(silence.covers(alarm, wall) for silence in self.silences.values())

    # ------------------------------------------------------------ helpers

    def _void(self, state: State) -> Iterator[Change]:
        """Ends alarms whose rule or subject is not there any more, and forgets such subjects."""
        for alarm in list(self.active.values()):
            if (over := self._voids(alarm, state)) is not None:
                del self.active[alarm.id]
                yield Change(alarm, over)
        if state.host is not None:
            self._falls.forget(state.host.workers)
            known = {*state.host.workers, *(tunnel.status.wan for tunnel in state.tunnels.values())}
            self._watches = {key: watch for key, watch in self._watches.items() if key[1] in known}

    def _voids(self, alarm: Alarm, state: State) -> Over | None:
        rule = self._rules.get(alarm.rule)
        if rule is None or rule.kind != alarm.kind:
            return Over.RULE
        if state.host is None:
            return None
        if rule.kind in _OF_WANS:
            found = [tunnel for tunnel in state.tunnels.values() if tunnel.status.wan == alarm.wan]
            to_come = not state.complete
        else:
            found = [tunnel for tunnel in state.tunnels.values() if tunnel.status.name == alarm.tunnel]
            to_come = not found and alarm.tunnel in state.host.workers
        if to_come or any(_meant(rule, tunnel) for tunnel in found):
            return None
        return Over.NOT_COVERED if found else Over.GONE

    def _judge(self, rule: Rule, subject: _Subject, now: float, wall: float) -> Change | None:
        key = f"{rule.name}/{subject.name}"
        watch = self._watches.setdefault((rule.name, subject.name), _Watch())
        value, raised = subject.value, self.active.get(key)
        if subject.stopped:
            watch.since = None
            return None if raised is None else Change(self.active.pop(key), Over.STOPPED)
        if value is None:
            return None
        if now - watch.known >= _BLIND:
            watch.since = None
        watch.known = now
        if raised is not None and rule.kind == "quota" and month_of(wall) <= month_of(raised.since):
            value = max(value, raised.value)  # what was carried stays so, also where its history is lost
        clear = _EASE * rule.above if rule.clear is None else rule.clear
        if (value > rule.above) if raised is None else (value <= clear):
            watch.since = now if watch.since is None else watch.since
            if now - watch.since < (0.0 if rule.kind in _AT_ONCE else rule.seconds):
                return None
            watch.since = None
            if raised is not None:
                del self.active[key]
                return Change(msgspec.structs.replace(raised, value=value), Over.CLEAR)
            self.active[key] = Alarm(
                id=key,
                rule=rule.name,
                kind=rule.kind,
                severity=rule.severity,
                subject=subject.name,
                tunnel=subject.tunnel,
                wan=subject.wan,
                traffic_class=subject.traffic_class,
                value=value,
                above=rule.above,
                since=wall,
            )
            return Change(self.active[key])
        watch.since = None
        return None

    def _subjects(
        self, rule: Rule, tunnels: list[Tunnel], volumes: Mapping[str, int] | None, now: float
    ) -> Iterable[_Subject]:
        chosen = [tunnel for tunnel in tunnels if _meant(rule, tunnel)]
        if rule.kind in _OF_WANS:
            for wan in dict.fromkeys(tunnel.status.wan for tunnel in chosen):
                if rule.kind == "quota":
                    value = None if volumes is None else volumes.get(wan, 0) / 1e9
                    yield _Subject(wan, "", wan, "", value, stopped=False)
                    continue
                members = [tunnel for tunnel in chosen if tunnel.status.wan == wan]
                yield _Subject(wan, "", wan, "", self._asymmetry(members), stopped=all(map(_stopped, members)))
            return
        measure = self._measure(rule, now)
        for tunnel in chosen:
            status = tunnel.status
            about = (status.name, status.name, status.wan, status.traffic_class)
            yield _Subject(*about, measure(tunnel), _stopped(tunnel))

    def _measure(self, rule: Rule, now: float) -> Callable[[Tunnel], float | None]:
        if rule.kind == "down":
            return _downness
        if rule.kind == "flapping":
            return lambda tunnel: self._falls.count(tunnel, rule.seconds, now)
        return self._loss if rule.kind == "loss" else _rtt

    def _loss(self, tunnel: Tunnel) -> float | None:
        return max((loss for ratios in self._losses.of(tunnel) for loss in ratios if loss is not None), default=None)

    def _asymmetry(self, tunnels: list[Tunnel]) -> float | None:
        """By how much the means of both ways differ."""
        found = [ratios for tunnel in tunnels for ratios in self._losses.of(tunnel)]
        sent, received = ([loss for ratios in found if (loss := ratios[way]) is not None] for way in (0, 1))
        return abs(fmean(sent) - fmean(received)) if sent and received else None


def _meant(rule: Rule, tunnel: Tunnel) -> bool:
    status = tunnel.status
    return not rule.of or not {status.name, status.wan, status.traffic_class}.isdisjoint(rule.of)


def _stopped(tunnel: Tunnel) -> bool:
    return tunnel.status.state is Life.STOPPED


def _downness(tunnel: Tunnel) -> float | None:
    """Who is being stopped may have been told to, which the next state shows."""
    return None if tunnel.status.state is Life.STOPPING else float(tunnel.status.state not in SERVING)


def _rtt(tunnel: Tunnel) -> float | None:
    return max((path.stats.rtt for path in tunnel.paths("") if path.stats.rtt is not None), default=None)
