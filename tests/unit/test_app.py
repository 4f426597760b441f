"""The portal's web application where it fails."""

from __future__ import annotations

import asyncio
import gc
import logging
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakSet

import pytest
from litestar.exceptions import TooManyRequestsException
from litestar.testing import TestClient

from mpq_supervisor.portal.api import stream
from mpq_supervisor.portal.app import make_app
from mpq_supervisor.portal.auth import Identity, Role
from mpq_supervisor.portal.parts import Parts


def test_who_listens_is_counted_before_his_answer_begins() -> None:
    parts = SimpleNamespace(streams=WeakSet())
    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(parts=parts)))
    answers = [asyncio.run(stream.stream.fn(request)) for _ in range(stream.MAX_STREAMS)]
    with pytest.raises(TooManyRequestsException):
        asyncio.run(stream.stream.fn(request))
    answers.clear()  # whoever left before it began
    gc.collect()
    assert not parts.streams


@pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")  # of what goes with Litestar 3
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
