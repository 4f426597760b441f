"""What a worker has to say to its supervisor, in bounds. Pure.

A planned restart waits for what a worker says of itself (`Drained`), so that must not be lost in what others make it
say: each has room of its own, and a worker's own words come first.
"""

from __future__ import annotations

from collections import deque

from mpq_worker.contract import FromWorker, Notice, PeerMoved, SignRequest

MAX_MESSAGES = 256
"""Of each kind; the supervisor takes all at once, unless it is stopped."""
OF_OTHERS = (Notice, PeerMoved, SignRequest)
"""As many as peers, or strangers, give cause for."""


class Mailbox:
    """A queue of messages."""

    def __init__(self) -> None:
        self._own: deque[FromWorker] = deque()
        self._of_others: deque[FromWorker] = deque()

    def put(self, message: FromWorker) -> bool:
        """False when there is no room for it."""
        queue = self._of_others if isinstance(message, OF_OTHERS) else self._own
        if len(queue) >= MAX_MESSAGES:
            return False
        queue.append(message)
        return True

    def take(self) -> FromWorker | None:
        """The next one."""
        queue = self._own or self._of_others
        return queue.popleft() if queue else None
