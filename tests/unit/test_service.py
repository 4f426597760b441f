"""When the portal looks: once in every second, also by a loop that wakes too soon or too late; and when it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from mpq_supervisor.portal import service
from mpq_supervisor.portal.messages import Message
from mpq_supervisor.portal.service import Service, until_next_look
from mpq_supervisor.portal.watch import Watch
from mpq_worker.channel import Channel, pair
from tests.unit.samples import SETUP

pytestmark = pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")  # of Litestar 3


@asynccontextmanager
async def portal_in(directory: Path) -> AsyncIterator[tuple[Service, socket.socket]]:
    """One that listens nowhere, and the supervisor's end of its feed."""
    ours, theirs = pair()
    orders, other = socket.socketpair()
    setup = msgspec.structs.replace(SETUP, directory=str(directory), listen=())
    with ours, theirs, orders, other:
        async with asyncio.timeout(10):
            yield Service(setup, Channel[Message](theirs, Message), orders, None, b""), ours


@pytest.mark.parametrize("off", [-0.009, -0.001, 0.0, 0.001, 0.3, 0.48])
def test_no_second_twice_and_none_missed(off: float) -> None:
    wall, seconds = 1e9, []
    for _ in range(1000):
        wall += until_next_look(wall) + off
        seconds.append(int(wall))
    assert seconds == list(range(seconds[0], seconds[0] + 1000))


def test_it_ends_when_it_cannot_look_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The supervisor starts another; this one would go on without alarms and history, and nobody would know."""

    def fails(*_: object) -> None:
        raise KeyError("of the test")

    monkeypatch.setattr(Watch, "look", fails)
    monkeypatch.setattr(service, "until_next_look", lambda _: 0.0)

    async def body() -> None:
        async with portal_in(tmp_path) as (portal, _):
            await portal.run()

    with caplog.at_level(logging.ERROR):
        asyncio.run(body())
    assert "of the test" in caplog.text


def test_who_listens_is_told_that_the_supervisor_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "until_next_look", lambda _: 0.001)

    async def body() -> None:
        async with portal_in(tmp_path) as (portal, feed):
            running = asyncio.create_task(portal.run())
            await portal._parts.bell.wait()
            feed.close()
            await running

    asyncio.run(body())
