"""Sends what is in the outbox: each message once, in order, and again and again until the receiver takes it.

    POST url    X-Mpq-Id: number    X-Mpq-Signature: sha256=HMAC(secret, body)    {"id", "raised", "alarm", …}

The outbox is in a file, so that it outlives the portal. A receiver that took one and could not say so gets it again
with the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import urllib.error
import urllib.request
from collections.abc import Callable

import msgspec

from mpq_supervisor.portal.outbox import Message, Outbox

TIMEOUT = 10.0
PAUSE = (1.0, 300.0)
"""First and longest pause after a failure; it doubles."""

log = logging.getLogger(__name__)


class Webhook:
    """One receiver. `delivered` is called when it has taken a message, for the file not to have it any more.

    `failures` counts what it did not take, each time.
    """

    def __init__(self, url: str, secret: bytes, outbox: Outbox, delivered: Callable[[], None]) -> None:
        self._url = url
        self._secret = secret
        self._delivered = delivered
        self._news = asyncio.Event()
        self.outbox = outbox
        self.failures = 0
        self.wake()

    def wake(self) -> None:
        """There may be something in the outbox."""
        if self.outbox.waiting:
            self._news.set()

    async def run(self) -> None:
        """Sends, for ever."""
        pause = PAUSE[0]
        while True:
            await self._news.wait()
            problem = await asyncio.to_thread(self._post, self.outbox.first)
            if problem:
                self.failures += 1
                log.warning("webhook: %s; again in %.0f s", problem, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE[1])
                continue
            pause = PAUSE[0]
            self.outbox.pop()
            if not self.outbox.waiting:
                self._news.clear()
            self._delivered()

    def _post(self, message: Message) -> str:
        """What was wrong, or nothing."""
        body = msgspec.json.encode(message)
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-Mpq-Id": str(message.id),
            "X-Mpq-Signature": f"sha256={signature}",
        }
        try:
            request = urllib.request.Request(self._url, body, headers)
            urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            return f"status {error.code}"
        except OSError as error:  # no route, time-outs, TLS
            return str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - what a URL or an answer may do to urllib is written down nowhere
            return type(error).__name__  # its text may quote the URL, whose path is often a secret
        return ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes where the configuration says and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None
