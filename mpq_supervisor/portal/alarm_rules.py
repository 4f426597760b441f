"""Alarms: rules over what the feed told, with hysteresis. Pure.

holds ──broken──▶ pending ──for `seconds`──▶ raised ──at `clear` or below for `seconds`──▶ resolved
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean

import msgspec

from mpq_supervisor.life import SERVING
from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.alarm_models import Alarm, Silence
from mpq_supervisor.portal.losses import Losses
from mpq_supervisor.portal.state import FRESH, State, Tunnel
from mpq_supervisor.schema import Alarm as Rule

MAX_SILENCES = 100
_AT_ONCE = ("flapping", "quota")
"""Kinds whose value is a sum already: `seconds` is what the falls are counted over."""
_PLANNED = "order"
"""The cause of restarts that are no falls (`lifecycle.cause`)."""
_EASE = 0.8
"""Of `above`: what is at most so much counts as clear where the rule does not say."""


class Change(msgspec.Struct, frozen=True):
    """An alarm was raised, or is over."""

    alarm: Alarm
    raised: bool


class Memory(msgspec.Struct, frozen=True):
    """What outlives the portal."""

    alarms: tuple[Alarm, ...] = ()
    silences: tuple[Silence, ...] = ()
    next_silence: int = 1


class _Subject(msgspec.Struct, frozen=True):
    name: str
    tunnel: str
    wan: str
    traffic_class: str
    value: float | None  # None: not known, which changes nothing


class _Watch:
    """One rule and one subject, while it is not as it was."""

    def __init__(self) -> None:
        self.since: float | None = None  # since when it is broken, or while raised, clear


class Alarms:
    """All rules. Times of `look` are monotonic except `wall`."""

    def __init__(self, rules: tuple[Rule, ...], memory: Memory) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._watches: dict[str, _Watch] = {}
        self._losses = Losses()
        self._falls: dict[str, deque[float]] = {}
        self._seen: dict[str, tuple[bool, int]] = {}  # whether it served, and its faults so far
        self.active = {alarm.id: alarm for alarm in memory.alarms if alarm.rule in self._rules}
        self.silences = {silence.id: silence for silence in memory.silences}
        self._next_silence = memory.next_silence

    def memory(self) -> Memory:
        """For the next portal."""
        return Memory(tuple(self.active.values()), tuple(self.silences.values()), self._next_silence)

    def look(self, state: State, volumes: Mapping[str, int], now: float, wall: float) -> list[Change]:
        """What changed. `volumes` are this month's bytes by WAN."""
        self.silences = {key: silence for key, silence in self.silences.items() if wall < silence.until}
        fresh = [tunnel for tunnel in state.tunnels.values() if now - tunnel.heard < FRESH]
        self._losses.hear(fresh, now)
        for tunnel in fresh:
            self._note_falls(tunnel, now)
        changes = []
        for rule in self._rules.values():
            for subject in self._subjects(rule, fresh, volumes, now):
                key = f"{rule.name}/{subject.name}"
                change = self._judge(key, rule, subject, now, wall)
                changes += [change] if change else []
        if state.host is not None:  # before that a tunnel that is not known may yet be told of
            names = {*state.tunnels, *(tunnel.status.wan for tunnel in state.tunnels.values())}
            gone = [alarm for alarm in self.active.values() if alarm.subject not in names]
            changes += [Change(self.active.pop(alarm.id), raised=False) for alarm in gone]
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

    def _judge(self, key: str, rule: Rule, subject: _Subject, now: float, wall: float) -> Change | None:
        watch = self._watches.setdefault(key, _Watch())
        value, raised = subject.value, self.active.get(key)
        if value is None:
            return None
        clear = _EASE * rule.above if rule.clear is None else rule.clear
        if (value > rule.above) if raised is None else (value <= clear):
            watch.since = now if watch.since is None else watch.since
            if now - watch.since < (0.0 if rule.kind in _AT_ONCE else rule.seconds):
                return None
            watch.since = None
            if raised is not None:
                del self.active[key]
                return Change(msgspec.structs.replace(raised, value=value), raised=False)
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
            return Change(self.active[key], raised=True)
        watch.since = None
        return None

    def _note_falls(self, tunnel: Tunnel, now: float) -> None:
        """Those that are seen, and those that the causes tell of: it may serve again before anybody looks."""
        name, status = tunnel.status.name, tunnel.status
        serves = status.state in SERVING
        faults = sum(count for cause, count in status.causes.items() if cause != _PLANNED)
        served, known = self._seen.get(name, (False, faults))
        if served and status.state is not Life.STOPPED:
            falls = max(faults - known, int(not serves))
            self._falls.setdefault(name, deque(maxlen=1000)).extend([now] * falls)
        self._seen[name] = (serves, faults)

    def _subjects(
        self, rule: Rule, tunnels: list[Tunnel], volumes: Mapping[str, int], now: float
    ) -> Iterable[_Subject]:
        chosen = [tunnel for tunnel in tunnels if _meant(rule, tunnel)]
        if rule.kind in ("asymmetric", "quota"):
            for wan in dict.fromkeys(tunnel.status.wan for tunnel in chosen):
                members = [tunnel for tunnel in chosen if tunnel.status.wan == wan]
                value = volumes.get(wan, 0) / 1e9 if rule.kind == "quota" else self._asymmetry(members)
                yield _Subject(wan, "", wan, "", value)
            return
        measure = self._measure(rule, now)
        for tunnel in chosen:
            status = tunnel.status
            yield _Subject(status.name, status.name, status.wan, status.traffic_class, measure(tunnel))

    def _measure(self, rule: Rule, now: float) -> Callable[[Tunnel], float | None]:
        if rule.kind == "down":
            return _downness
        if rule.kind == "flapping":
            return lambda tunnel: float(
                sum(now - then < rule.seconds for then in self._falls.get(tunnel.status.name, ()))
            )
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


def _downness(tunnel: Tunnel) -> float | None:
    return None if tunnel.status.state is Life.STOPPED else float(tunnel.status.state not in SERVING)


def _rtt(tunnel: Tunnel) -> float | None:
    return max((path.stats.rtt for path in tunnel.paths("") if path.stats.rtt is not None), default=None)
