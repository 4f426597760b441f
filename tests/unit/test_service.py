"""When the portal looks: once in every second, also by a loop that wakes too soon or too late; and when it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import msgspec
import pytest

from mpq_supervisor.portal import service
from mpq_supervisor.portal.messages import Message
from mpq_supervisor.portal.service import Service, until_next_look
from mpq_supervisor.portal.watch import Watch
from mpq_worker.channel import Channel, pair
from tests.unit.samples import SETUP


@pytest.mark.parametrize("off", [-0.009, -0.001, 0.0, 0.001, 0.3, 0.48])
def test_no_second_twice_and_none_missed(off: float) -> None:
    wall, seconds = 1e9, []
    for _ in range(1000):
        wall += until_next_look(wall) + off
        seconds.append(int(wall))
    assert seconds == list(range(seconds[0], seconds[0] + 1000))


@pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")  # of what goes with Litestar 3
def test_it_ends_when_it_cannot_look_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The supervisor starts another; this one would go on without alarms and history, and nobody would know."""

    def fails(*_: object) -> None:
        raise KeyError("of the test")

    monkeypatch.setattr(Watch, "look", fails)
    monkeypatch.setattr(service, "until_next_look", lambda _: 0.0)
    ours, theirs = pair()
    orders, other = socket.socketpair()

    async def body() -> None:
        setup = msgspec.structs.replace(SETUP, directory=str(tmp_path), listen=())
        portal = Service(setup, Channel[Message](theirs, Message), orders, None, b"")
        async with asyncio.timeout(10):
            await portal.run()

    with ours, theirs, orders, other, caplog.at_level(logging.ERROR):
        asyncio.run(body())
    assert "of the test" in caplog.text


@pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")
def test_who_listens_is_told_that_the_supervisor_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "until_next_look", lambda _: 0.001)
    ours, theirs = pair()
    orders, other = socket.socketpair()

    async def body() -> None:
        setup = msgspec.structs.replace(SETUP, directory=str(tmp_path), listen=())
        portal = Service(setup, Channel[Message](theirs, Message), orders, None, b"")
        running = asyncio.create_task(portal.run())
        async with asyncio.timeout(10):
            await portal._parts.bell.wait()
            ours.close()
            await running

    with ours, theirs, orders, other:
        asyncio.run(body())
