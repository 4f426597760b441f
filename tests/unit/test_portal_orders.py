"""The portal's orders to the supervisor: one that is answered late, badly or never costs the others nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from litestar.exceptions import ServiceUnavailableException

from mpq_supervisor.portal import orders as module
from mpq_supervisor.portal.api import tunnels
from mpq_supervisor.portal.auth import Identity, Role
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.orders import MAX_WAITING, Orders, Unanswered
from mpq_supervisor.portal.parts import Parts
from mpq_supervisor.requests import Code, Request, Response
from tests.unit.samples import WORKER, state_with

Supervisor = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Orders, Supervisor]]:
    """The portal's orders, and the supervisor's end."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    orders = Orders(ours)
    try:
        yield orders, (reader, writer)
    finally:
        writer.close()
        if orders._reading is not None:
            await orders._reading
        if orders._writer is not None:
            orders._writer.close()


def answer(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(msgspec.json.encode(Response(Code.OK, (text,))) + b"\n")


def running(body: Callable[[Orders, Supervisor], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(5), connected() as (orders, supervisor):
            await body(orders, supervisor)

    asyncio.run(run())


def test_a_late_answer_is_dropped_and_the_next_request_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.01)

    async def body(orders: Orders, supervisor: Supervisor) -> None:
        reader, writer = supervisor
        with pytest.raises(Unanswered, match="has not answered in") as caught:
            await orders.ask(Request("restart", ("br1",)))
        assert caught.value.sent
        monkeypatch.setattr(module, "TIMEOUT", 5.0)
        second = asyncio.create_task(orders.ask(Request("restart", ("br2",))))
        assert b"br1" in await reader.readline()
        answer(writer, "br1, late")
        assert b"br2" in await reader.readline()
        answer(writer, "br2")
        assert (await second).lines == ("br2",)
        assert not orders.ended

    running(body)


def test_what_is_no_answer_is_one_requests_misfortune() -> None:
    async def body(orders: Orders, supervisor: Supervisor) -> None:
        reader, writer = supervisor
        first, second = (asyncio.create_task(orders.ask(Request("status"))) for _ in range(2))
        assert [await reader.readline() for _ in range(2)]
        writer.write(b'{"code": "\xff"}\n')
        answer(writer, "two")
        with pytest.raises(Unanswered, match="cannot be read"):
            await first
        assert (await second).lines == ("two",)

    running(body)


def test_those_who_wait_are_bounded() -> None:
    async def body(orders: Orders, supervisor: Supervisor) -> None:
        asked = [asyncio.create_task(orders.ask(Request("status"))) for _ in range(MAX_WAITING + 1)]
        with pytest.raises(Unanswered) as caught:
            await asked[-1]
        assert not caught.value.sent
        for _ in range(MAX_WAITING):
            answer(supervisor[1], "")
        assert all(response.code is Code.OK for response in await asyncio.gather(*asked[:-1]))

    running(body)


def test_an_end_is_told_to_all() -> None:
    async def body(orders: Orders, supervisor: Supervisor) -> None:
        reader, writer = supervisor
        asked = asyncio.create_task(orders.ask(Request("status")))
        await reader.readline()
        writer.close()
        with pytest.raises(Unanswered, match="is gone") as caught:
            await asked
        assert caught.value.sent
        assert orders.ended
        with pytest.raises(Unanswered, match="takes no orders any more") as caught:
            await orders.ask(Request("status"))
        assert not caught.value.sent

    running(body)


@pytest.mark.parametrize("sent", [True, False])
def test_what_may_have_been_done_is_audited(sent: bool) -> None:
    async def ask(request: Request) -> Response:
        raise Unanswered("no answer", sent=sent)

    orders, unused = cast(Orders, SimpleNamespace(ask=ask)), cast(Any, None)
    parts = Parts(state_with(WORKER), unused, unused, unused, Journal(), orders, unused)
    state = SimpleNamespace(who=Identity("ann", Role.ADMIN))
    request = cast(Any, SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(parts=parts)), state=state))
    for order in (
        Request("restart", ("cr2",)),
        Request("patch", ("cr2",), changes={"wan[x\n].mtu": 1}),
        Request("fields", ("cr2",)),
    ):
        with pytest.raises(ServiceUnavailableException):
            asyncio.run(tunnels._ask(request, order))
    told = [event.text for event in parts.journal.take()]
    assert told == sent * [
        "ann (admin): restart cr2: asked → not known: no answer",
        "ann (admin): patch cr2, wan[x\\n].mtu: asked → not known: no answer",
    ]
