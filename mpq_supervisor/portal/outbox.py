"""What a receiver of webhooks is told of an alarm: that it is raised and, once, that it is over; no half of it. Pure.

    raised ──not silenced, and there is room──▶ told ──over, silenced or not──▶ told that, forgotten
    raised ──over before that──▶ never told

A place in the queue is kept for the end of every alarm that was told, so that it never has to wait for room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import msgspec

from mpq_supervisor.portal.alarm_models import Alarm
from mpq_supervisor.portal.alarm_rules import Change

MAX_QUEUE = 1000


class Message(msgspec.Struct, frozen=True):
    """What is sent; the whole of it is signed. `reason` is an `Over`; empty while raised, or if not known."""

    id: int
    host: str
    t: float
    raised: bool
    alarm: Alarm
    reason: str = ""


class Kept(msgspec.Struct, frozen=True):
    """What outlives the portal: the queue, and what `receiver` was told is raised, by id."""

    next_id: int = 1
    queue: tuple[Message, ...] = ()
    receiver: str = ""
    told: dict[str, Alarm] = {}


class Outbox:
    """Of one receiver. Another one is told what is raised now, and nothing that was meant for the one before.

    `lost` counts alarms of which there was no room to tell before they were over, `given_up` the messages that were
    meant for the receiver before.
    """

    def __init__(self, receiver: str, kept: Kept) -> None:
        same = kept.receiver in ("", receiver)
        self.given_up = 0 if same else len(kept.queue)
        self._receiver = receiver
        self._next_id = kept.next_id
        self._queue = deque(kept.queue if same else ())
        self._told = dict(kept.told) if same else {}
        self._crowded: frozenset[tuple[str, float]] = frozenset()
        self.lost = 0

    def kept(self) -> Kept:
        """For the next portal."""
        return Kept(self._next_id, tuple(self._queue), self._receiver, dict(self._told))

    @property
    def waiting(self) -> int:
        """How many messages."""
        return len(self._queue)

    @property
    def first(self) -> Message:
        """The next to be sent. Raises IndexError where there is none."""
        return self._queue[0]

    def pop(self) -> None:
        """It has been taken."""
        self._queue.popleft()

    def follow(
        self,
        active: Mapping[str, Alarm],
        changes: Iterable[Change],
        silenced: Callable[[Alarm], bool],
        host: str,
        wall: float,
    ) -> None:
        """Queues what is to be told at Unix time `wall`, when these are raised after these changes."""
        ended = {(change.alarm.id, change.alarm.since): change for change in changes if not change.raised}
        self.lost += len(self._crowded & ended.keys())
        for key, alarm in list(self._told.items()):
            if key in active and active[key].since == alarm.since:
                continue
            del self._told[key]
            last = ended.get((key, alarm.since), Change(alarm))  # else: over while there was no receiver
            self._put(Message(self._next_id, host, wall, False, last.alarm, str(last.over or "")))
        crowded = set()
        for key, alarm in active.items():
            if key in self._told or silenced(alarm):
                continue
            if len(self._queue) + len(self._told) > MAX_QUEUE - 2:
                crowded.add((key, alarm.since))
                continue
            self._told[key] = alarm
            self._put(Message(self._next_id, host, wall, True, alarm))
        self._crowded = frozenset(crowded)

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._next_id += 1
