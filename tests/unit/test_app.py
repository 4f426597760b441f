"""The portal's web application where it fails."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from litestar.testing import TestClient

from mpq_supervisor.portal.app import make_app
from mpq_supervisor.portal.auth import Identity, Role
from mpq_supervisor.portal.parts import Parts


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
