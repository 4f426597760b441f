"""The zygote's rehearsal must do what a worker will: a failure here is one in every worker."""

from __future__ import annotations

import time

import pytest

from mpq_worker import rehearsal
from mpq_worker.errors import HostFault


def test_a_connection_comes_about() -> None:
    rehearsal.rehearse(time.time())


def test_a_host_where_it_does_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_DURATION", 0.02)
    with pytest.raises(HostFault, match="rehearsal"):
        rehearsal.rehearse(time.time())
