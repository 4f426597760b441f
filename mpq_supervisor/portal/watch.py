"""Looks at the alarms once a second and tells log, history and webhook; keeps what must outlive the portal."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from mpq_supervisor.events import Kind, Marks
from mpq_supervisor.files import write_atomically
from mpq_supervisor.portal.alarm_models import Alarm
from mpq_supervisor.portal.alarm_rules import Alarms, Change, Memory
from mpq_supervisor.portal.history.query import History, day_of
from mpq_supervisor.portal.history.samples import Event
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.messages import Setup
from mpq_supervisor.portal.meter import Meter, Reading
from mpq_supervisor.portal.outbox import Kept, Outbox
from mpq_supervisor.portal.state import Delivery, State
from mpq_supervisor.portal.webhook import Webhook

FILE_NAME = "alarms.json"
VOLUME_INTERVAL = 60.0
_LEVELS = {"warning": logging.WARNING, "critical": logging.ERROR}

log = logging.getLogger(__name__)


class _Saved(msgspec.Struct, frozen=True):
    memory: Memory = Memory()
    outbox: Kept = Kept()
    readings: dict[str, Reading] = {}


class Watch:
    """The alarms of a portal. `secret` is the webhook's, empty without one."""

    def __init__(self, setup: Setup, journal: Journal, history: History, secret: bytes) -> None:
        self._path = Path(setup.directory) / FILE_NAME
        self._journal = journal
        self._history = history
        self._host = setup.name
        saved = self._load()
        self._saved = saved
        self.alarms = Alarms(setup.alarms, saved.memory, time.monotonic(), time.time())
        self.webhook: Webhook | None = None
        if setup.webhook is not None:
            receiver = hashlib.sha256(setup.webhook.url.encode()).hexdigest()  # the URL may hold a secret
            outbox = Outbox(receiver, saved.outbox)
            if outbox.given_up:
                log.warning("webhook: %d messages were for another receiver and are given up", outbox.given_up)
            self.webhook = Webhook(setup.webhook.url, secret, outbox, self.save)
        self._readings = saved.readings
        self._meter = Meter(saved.readings)
        self._role = setup.role
        self._quotas = any(rule.kind == "quota" for rule in setup.alarms)
        self._volumes: dict[str, int] | None = None
        self._next_volumes = 0.0

    def look(self, state: State, now: float, wall: float) -> None:
        """Once a second; `now` is monotonic, `wall` Unix time."""
        self._measure(state, now, wall)
        changes = self.alarms.look(state, self._volumes, now, wall)
        for change in changes:
            self._tell(change, wall)
        if self.webhook is not None:
            silenced = partial(self.alarms.silenced, wall=wall)
            self.webhook.outbox.follow(self.alarms.active, changes, silenced, self._host, wall)
            self.webhook.wake()
        self.save()

    def delivery(self) -> Delivery | None:
        """How the receiver takes it; None where there is none."""
        if self.webhook is None:
            return None
        return Delivery(self.webhook.outbox.waiting, self.webhook.failures, self.webhook.outbox.lost)

    def save(self) -> None:
        """Writes what changed."""
        outbox = self._saved.outbox if self.webhook is None else self.webhook.outbox.kept()
        saved = _Saved(self.alarms.memory(), outbox, self._readings)
        if saved == self._saved:
            return
        try:
            write_atomically(self._path, msgspec.json.encode(saved), 0o600)
            self._saved = saved
        except OSError as error:
            log.debug("alarms: %s: %s", self._path, error.strerror)  # the history has said so, loudly

    def _measure(self, state: State, now: float, wall: float) -> None:
        """What was carried this month: by a site's interfaces, or in the tunnels of a hub's listeners."""
        due = now >= self._next_volumes
        if due:
            self._next_volumes = now + VOLUME_INTERVAL
        if self._role == "site" and state.host is not None:
            self._meter.note(state.host.wans, wall)
            self._volumes = self._meter.volumes(wall)
            if due:  # counters go on, so that what came since is not lost with us
                self._readings = self._meter.readings
        elif self._role == "hub" and self._quotas and due:
            self._volumes = self._month(wall)

    def _tell(self, change: Change, wall: float) -> None:
        alarm = change.alarm
        text = f"alarm {alarm.rule}: {alarm.subject}: {_words(alarm)}"
        if change.over is not None:
            text = f"alarm over: {alarm.id}: {change.over}"
        level = _LEVELS[alarm.severity] if change.raised else logging.INFO
        about = (alarm.tunnel, alarm.wan, alarm.traffic_class)
        self._journal.add(Event(wall, Kind.ALARM, level, text, *about, reason=alarm.rule))
        log.log(level, "%s", text, extra={"marks": Marks(Kind.ALARM, *about, reason=alarm.rule)})

    def _month(self, wall: float) -> dict[str, int] | None:
        """This month's bytes by listener, also of workers that there are no more; as before where they cannot be
        read."""
        first = datetime.fromtimestamp(wall, UTC).replace(day=1, hour=0, minute=0, second=0)
        try:
            days = self._history.days(day_of(first.timestamp()), day_of(wall))
        except sqlite3.Error as error:
            log.debug("alarms: %s", error)
            return self._volumes
        volumes: dict[str, int] = {}
        for day in days:
            if day.kind == "tunnel":
                volumes[day.wan] = volumes.get(day.wan, 0) + day.bytes_in + day.bytes_out
        return volumes

    def _load(self) -> _Saved:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Saved)
        except FileNotFoundError:
            return _Saved()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("alarms: %s: %s; begun anew", self._path, error)
            return _Saved()


def _words(alarm: Alarm) -> str:
    """What is wrong, in a person's units."""
    match alarm.kind:
        case "down":
            return "is down"
        case "rtt":
            return f"RTT {alarm.value * 1e3:.0f} ms, above {alarm.above * 1e3:.0f} ms"
        case "loss":
            return f"loss {alarm.value:.1%}, above {alarm.above:.1%}"
        case "asymmetric":
            return f"loss differs by {alarm.value:.1%} between the two ways, above {alarm.above:.1%}"
        case "flapping":
            return f"went down {alarm.value:.0f} times, above {alarm.above:.0f}"
        case _:
            return f"{alarm.value:.1f} GB this month, above {alarm.above:.1f} GB"
