"""What is told of a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from mpq_supervisor.life import Life
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.status import worker_status
from mpq_worker.contract import MAX_MESSAGE, RTT_BOUNDS, PathStats, Report, SiteStatus
from mpq_worker.errors import DropReason, Refusal
from mpq_worker.hub import MAX_STATUS
from tests.unit.samples import PATH, changed
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


def test_as_many_sites_as_are_named_fit_into_a_message() -> None:
    """To the supervisor, and from there to the portal: those with the longest names that have carried most."""
    path = PathStats(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 2**59, 2**59, 2**59, 2**59, 2**59, 2**59, 2**59)
    site = SiteStatus("x" * 63, ("f" * 39, 65_535), 0.1, path, 2**59, 2**59, bytes(16), bytes(20))
    report = Report(
        drops=dict.fromkeys(DropReason, 2**59), refusals=dict.fromkeys(Refusal, 2**59), sites=(site,) * MAX_STATUS,
        rtt_counts=(2**59,) * (len(RTT_BOUNDS) + 1), connected=65_536,
    )  # fmt: skip
    worker = changed(name="x" * 64, sites=report.sites, drops=report.drops, refusals=report.refusals)
    for message in (report, WorkerSample(0.1, worker)):
        assert len(msgspec.msgpack.encode(message)) < MAX_MESSAGE - 2000
