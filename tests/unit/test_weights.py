"""Class cgroups, in a directory that only looks like a cgroup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mpq_supervisor.weights import Weights
from mpq_worker.contract import TrafficClass


def test_groups_and_weights(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    assert (tmp_path / "supervisor/cgroup.procs").read_text() == str(os.getpid())
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    shares = [int((tmp_path / name / "cpu.weight").read_text()) for name in ("critical", "default", "bulk")]
    assert shares == sorted(shares, reverse=True)
    weights.assign(123, TrafficClass.BULK)
    assert (tmp_path / "bulk/cgroup.procs").read_text() == "123"


def test_worker_that_is_gone_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = Weights(tmp_path)
    (tmp_path / "bulk/cgroup.procs").mkdir()
    weights.assign(123, TrafficClass.BULK)
    assert len(caplog.messages) == 1
