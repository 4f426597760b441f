"""Events on their way: to the history, and to whoever watches. Pure."""

from __future__ import annotations

from collections import deque

import msgspec

from mpq_supervisor.portal.history.samples import Event

MAX_RECENT = 500
MAX_PENDING = 5000


class Journal:
    """`number` counts all that ever came, `taken` those that the history has; what could not be kept until then is in
    `lost`."""

    def __init__(self) -> None:
        self._pending: deque[Event] = deque()
        self._recent: deque[Event] = deque(maxlen=MAX_RECENT)
        self.number = self.taken = 0
        self.lost = 0

    def add(self, event: Event) -> None:
        """One event; its `id` is its number until it is read back from the history."""
        self.number += 1
        self._recent.append(msgspec.structs.replace(event, id=self.number))
        if len(self._pending) < MAX_PENDING:
            self._pending.append(event)
        else:
            self.lost += 1

    def take(self) -> tuple[Event, ...]:
        """Those that have not been taken, for the history."""
        taken = tuple(self._pending)
        self._pending.clear()
        self.taken = self.number
        return taken

    def after(self, number: int) -> list[Event]:
        """Recent ones with a higher number, oldest first."""
        return [event for event in self._recent if event.id > number]
