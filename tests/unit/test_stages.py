"""The micro-benchmark carries what it counts."""

from __future__ import annotations

import pytest

from tools.bench import stages
from tools.results import Meta, Results


def test_every_stage_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SECONDS", 0.002)
    results = Results(Meta("abc", "6.18", 2, "2025-11-23T00:00:00+00:00"), [])
    stages.stages(results, 2)
    expected = {f"stage.{stage}.{size}" for stage in ("seal", "open", "acknowledge") for size in ("full", "64B")}
    assert {row.id for row in results.rows} == {"stage.segment.full"} | expected
    assert all(len(row.runs) == 2 and min(row.runs) > 0 for row in results.rows)
