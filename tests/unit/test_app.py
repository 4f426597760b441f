"""The portal's web application where it fails."""

from __future__ import annotations

import asyncio
import gc
import logging
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakSet

import msgspec
import pytest
from litestar.exceptions import TooManyRequestsException
from litestar.testing import TestClient

from mpq_supervisor.portal.api import stream, system
from mpq_supervisor.portal.api.models import Text
from mpq_supervisor.portal.app import make_app
from mpq_supervisor.portal.auth import Identity, Role
from mpq_supervisor.portal.bell import Bell
from mpq_supervisor.portal.exposition import Exposition
from mpq_supervisor.portal.history.samples import Event
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.parts import Listener, Parts
from mpq_supervisor.requests import Code, Request, Response
from mpq_supervisor.status import WorkerStatus
from tests.unit.samples import WORKER, state_with

pytestmark = pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")  # of Litestar 3


def test_only_the_pages_own_files_are_looked_for() -> None:
    app = make_app(cast(Parts, SimpleNamespace()))
    with TestClient(cast(Any, app)) as client:
        answer = client.get("/static/vendor/uplot/uPlot.min.css")
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/css")
        assert "javascript" in client.get("/static/main.js").headers["content-type"]
        for path in ("%00", "x" * 5000, "vendor", "", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "a%0ab", "%ff"):
            answer = client.get(f"/static/{path}")
            assert (answer.status_code, answer.json()["detail"]) == (404, "Not Found"), path


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=zz", "text/plain;version=1.x;q=no", "\xff;;,", "*/*;="]
)
def test_whoever_asks_for_metrics_oddly_gets_some(accept: str) -> None:
    page, _ = Exposition(state_with(WORKER)).render(accept, 1.0)
    assert b"mpq_tunnel_up{" in page


def test_one_configuration_at_a_time_is_looked_at() -> None:
    verdict = system.validate.fn(Text("role = 'site'"))
    assert not verdict.good
    with system._looking, pytest.raises(TooManyRequestsException):
        system.validate.fn(Text(""))
    assert system.validate.fn(Text("role = 'site'")) == verdict


def test_who_listens_is_counted_before_his_answer_begins() -> None:
    parts = SimpleNamespace(streams=WeakSet())
    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(parts=parts)))
    answers = [asyncio.run(stream.stream.fn(request)) for _ in range(stream.MAX_STREAMS)]
    with pytest.raises(TooManyRequestsException):
        asyncio.run(stream.stream.fn(request))
    answers.clear()  # whoever left before it began
    gc.collect()
    assert not parts.streams


def test_what_was_heard_has_its_age() -> None:
    state = state_with(WORKER)
    seen = stream.glance(state, 10.0)
    assert seen.age == seen.tunnels[0].age == 9.0
    told = msgspec.to_builtins(seen)["tunnels"][0]
    assert msgspec.convert(told, WorkerStatus) == WORKER


def test_the_stream_begins_with_what_the_history_does_not_have_yet() -> None:
    """Who comes back asks the history for the rest."""
    journal = Journal()
    journal.add(Event(1.0, "state", 20, "recorded"))
    journal.take()
    journal.add(Event(2.0, "state", 20, "on its way"))
    parts = cast(Parts, SimpleNamespace(state=state_with(WORKER), journal=journal, bell=Bell(), streams=WeakSet()))

    async def first_two() -> list[str]:
        news = stream._news(parts, Listener())
        found = [str(await anext(news)) for _ in range(2)]
        await news.aclose()
        return found

    status, event = asyncio.run(first_two())
    assert "on its way" in event
    assert "recorded" not in status + event


def test_a_stream_ends_with_its_portal() -> None:
    found = SimpleNamespace(state=state_with(WORKER), journal=Journal(), bell=Bell(), streams=WeakSet())
    parts = cast(Parts, found)

    async def body() -> None:
        async with asyncio.timeout(5):
            news = stream._news(parts, Listener())
            await anext(news)
            asyncio.get_running_loop().call_soon(parts.bell.end)
            assert [message async for message in news] == []

    asyncio.run(body())


def test_a_defect_of_ours_is_in_the_log_and_not_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    gate = SimpleNamespace(admit=lambda *_: Identity("ann", Role.VIEWER))
    app = make_app(cast(Parts, SimpleNamespace(gate=gate, state=None)))
    with caplog.at_level(logging.ERROR), TestClient(cast(Any, app), raise_server_exceptions=False) as client:
        answer = client.get("/api/v1/tunnels")
    assert (answer.status_code, answer.json()) == (500, {"status_code": 500, "detail": "Internal Server Error"})
    (record,) = caplog.records
    assert record.getMessage() == "portal: GET '/api/v1/tunnels'"
    assert record.exc_info is not None
    assert record.exc_info[0] is AttributeError


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0"])
def test_metrics_have_one_charset(accept: str) -> None:
    gate = SimpleNamespace(admit=lambda *_: Identity("ann", Role.VIEWER))
    app = make_app(cast(Parts, SimpleNamespace(gate=gate, exposition=Exposition(state_with(WORKER)))))
    with TestClient(cast(Any, app)) as client:
        answer = client.get("/metrics", headers={"accept": accept})
    kind, *parameters = answer.headers["content-type"].split("; ")
    assert kind == accept.split(";")[0]
    assert parameters.count("charset=utf-8") == 1
    assert any(parameter.startswith("version=") for parameter in parameters)


def test_a_tunnel_that_has_just_gone_is_not_found() -> None:
    async def ask(_: Request) -> Response:
        return Response(Code.UNKNOWN, ('no "cr2" here',))

    state = state_with(WORKER)
    gate = SimpleNamespace(admit=lambda *_: Identity("ann", Role.ADMIN))
    parts = SimpleNamespace(gate=gate, state=state, orders=SimpleNamespace(ask=ask), tunnel=state.tunnels.__getitem__)
    with TestClient(cast(Any, make_app(cast(Parts, parts)))) as client:
        for answer in (
            client.patch("/api/v1/tunnels/cr2/config", json={"changes": {"wan[wan5].mtu": 1300}}),
            client.get("/api/v1/tunnels/cr2/config"),
            client.post("/api/v1/tunnels/cr2/restart"),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (404, 'no "cr2" here')
