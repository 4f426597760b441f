"""Tells a receiver of alarms: each once, in order, and again and again until it takes them.

    POST url    X-Mpq-Id: number    X-Mpq-Signature: sha256=HMAC(secret, body)    {"id", "raised", "alarm"}

The queue is in a file, so that it outlives the portal. A receiver that took one and could not say so gets it again
with the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import logging
import urllib.request
from collections import deque
from collections.abc import Callable

import msgspec

from mpq_supervisor.portal.alarm_models import Alarm

MAX_QUEUE = 1000
TIMEOUT = 10.0
PAUSE = (1.0, 300.0)
"""First and longest pause after a failure; it doubles."""

log = logging.getLogger(__name__)


class Message(msgspec.Struct, frozen=True):
    """What is sent; the whole of it is signed."""

    id: int
    host: str
    t: float
    raised: bool
    alarm: Alarm


class Outbox(msgspec.Struct, frozen=True):
    """What outlives the portal."""

    next_id: int = 1
    queue: tuple[Message, ...] = ()


class Webhook:
    """One receiver. `delivered` is called when it has taken a message, for the file not to have it any more."""

    def __init__(self, url: str, secret: bytes, outbox: Outbox, delivered: Callable[[], None]) -> None:
        self._url = url
        self._secret = secret
        self._queue = deque(outbox.queue)
        self._next_id = outbox.next_id
        self._delivered = delivered
        self._news = asyncio.Event()
        self.lost = 0
        if self._queue:
            self._news.set()

    def outbox(self) -> Outbox:
        """For the file."""
        return Outbox(self._next_id, tuple(self._queue))

    def put(self, host: str, t: float, raised: bool, alarm: Alarm) -> None:
        """To be sent, in its turn; when the queue is full the oldest is given up."""
        self._queue.append(Message(self._next_id, host, t, raised, alarm))
        self._next_id += 1
        if len(self._queue) > MAX_QUEUE:
            self._queue.popleft()
            self.lost += 1
        self._news.set()

    async def run(self) -> None:
        """Sends, for ever."""
        pause = PAUSE[0]
        while True:
            await self._news.wait()
            message = self._queue[0]
            problem = await asyncio.to_thread(self._post, message)
            if problem:
                log.warning("webhook: %s; again in %.0f s", problem, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE[1])
                continue
            pause = PAUSE[0]
            if self._queue and self._queue[0] is message:
                self._queue.popleft()
            if not self._queue:
                self._news.clear()
            self._delivered()

    def _post(self, message: Message) -> str:
        """What was wrong, or nothing."""
        body = msgspec.json.encode(message)
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(
            self._url,
            body,
            {
                "Content-Type": "application/json",
                "X-Mpq-Id": str(message.id),
                "X-Mpq-Signature": f"sha256={signature}",
            },
        )
        try:
            urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT).close()
        except (OSError, http.client.HTTPException) as error:  # OSErrors: every status but 2xx, no route, time-outs
            return str(error) or type(error).__name__
        return ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes where the configuration says and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None
