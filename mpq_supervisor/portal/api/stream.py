"""The present as it changes, by server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import TooManyRequestsException
from litestar.response import ServerSentEvent, ServerSentEventMessage

from mpq_supervisor.portal.api.models import Glance, tunnel_status
from mpq_supervisor.portal.api.routes import get
from mpq_supervisor.portal.parts import Listener, Parts, parts_of
from mpq_supervisor.portal.state import State

MAX_STREAMS = 50
SETTLE = 0.1
"""Seconds that news wait for more."""
PATIENCE = 15.0
"""After so long without any, something is sent all the same, to learn whether somebody listens."""

_encode = msgspec.json.Encoder().encode


@get("/stream", tags=["tunnels"])
async def stream(request: Request[Any, Any, Any]) -> ServerSentEvent:
    """`status`, a `Glance`, once a second and when something changed; `event`, an `Event`, as they come, with
    those before that `events` does not have yet."""
    parts = parts_of(request)
    if len(parts.streams) >= MAX_STREAMS:
        raise TooManyRequestsException(f"{MAX_STREAMS} others are listening")
    me = Listener()
    parts.streams.add(me)  # now: until the answer begins, others may come
    return ServerSentEvent(_news(parts, me))


async def _news(parts: Parts, me: Listener) -> AsyncGenerator[ServerSentEventMessage, None]:
    try:
        seen = parts.journal.taken  # those before are in the history
        while not parts.bell.ended:
            yield ServerSentEventMessage(data=_encode(glance(parts.state, time.monotonic())), event="status")
            for event in parts.journal.after(seen):
                seen = event.id
                yield ServerSentEventMessage(data=_encode(event), event="event")
            try:
                async with asyncio.timeout(PATIENCE):
                    await parts.bell.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE)
    finally:
        parts.streams.discard(me)


def glance(state: State, now: float) -> Glance:
    """The host at a glance, at monotonic time `now`."""
    host = state.host
    return Glance(
        t=time.time(),
        age=state.age(now),
        uptime=host.uptime if host else 0.0,
        sites=host.sites if host else (),
        tunnels=tuple(tunnel_status(tunnel, now) for tunnel in state.tunnels.values()),
    )
