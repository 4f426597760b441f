"""What is told of a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mpq_supervisor.life import Life
from mpq_supervisor.status import worker_status
from mpq_worker.contract import Report
from tests.unit.samples import PATH
from tests.unit.test_config import SITE
from tests.unit.test_plan import plan_of


def test_of_a_process_that_has_ended_no_path_is_told() -> None:
    """Its round trip and losses would be taken for those of now."""
    worker: Any = SimpleNamespace(
        entry=plan_of(SITE).tunnels[0], life=Life(), process=SimpleNamespace(pid=1), rates=(1.0, 1.0), causes={},
        report=Report(path=PATH, bytes_in=7),
    )  # fmt: skip
    assert worker_status(worker, 0.0, 0).path == PATH
    worker.process = None
    status = worker_status(worker, 0.0, 0)
    assert (status.path, status.rtt, status.bytes_in) == (None, None, 7)
