"""The shape of result files, medians, targets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tools.results import Meta, Results, percentile


@pytest.fixture
def results() -> Results:
    return Results(Meta("abc", "6.18", 2, "2025-11-23T00:00:00+00:00"), [])


@pytest.mark.parametrize(
    ("runs", "better", "target", "met"),
    [
        ([0.9, 1.0, 0.999], "higher", 0.999, True),
        ([0.9, 1.0, 0.998], "higher", 0.999, False),
        ([5, 80, 79], "lower", 79, True),
        ([81], "lower", 80, False),
        ([math.nan], "lower", 80, False),
        ([math.nan, 5, 6], "lower", 80, False),
        ([math.nan, 99, 99], "higher", 80, False),
        ([1, 2], "lower", None, None),
    ],
)
def test_a_target_is_met_by_the_median(
    results: Results, runs: list[float], better: str, target: float | None, met: bool | None
) -> None:
    row = results.add("x.y", runs, "ms", target=target, better="higher" if better == "higher" else "lower")
    assert row.met is met


def test_a_run_that_failed_shows(results: Results) -> None:
    row = results.add("x.y", [math.nan, 5, 6], "ms")
    assert math.isnan(row.value)
    assert row.met is None


def test_the_file_has_the_one_shape(results: Results, tmp_path: Path) -> None:
    results.add("kill.p50", [70, 60, 90], "ms", target=80)
    results.add("idle", [math.nan], "ms")
    results.write(tmp_path / "build" / "demo.json")
    assert json.loads((tmp_path / "build" / "demo.json").read_text()) == {
        "meta": {"commit": "abc", "kernel": "6.18", "cpus": 2, "date": "2025-11-23T00:00:00+00:00"},
        "rows": [
            {"id": "kill.p50", "value": 70, "unit": "ms", "target": 80, "met": True, "runs": [70, 60, 90]},
            {"id": "idle", "value": None, "unit": "ms", "target": None, "met": None, "runs": [None]},
        ],
    }


def test_the_table_lines_up_and_shouts_what_was_missed(results: Results) -> None:
    results.add("a", [0.9991234567], "ratio", target=0.999, better="higher")
    results.add("long.name", [100], "ms", target=80)
    assert results.table().splitlines() == [
        "result        value  unit   target",
        "a          0.999123  ratio   0.999  met",
        "long.name       100  ms         80  MISSED",
    ]


def test_an_id_stands_for_one_figure(results: Results) -> None:
    results.add("a", [1], "ms")
    with pytest.raises(ValueError, match="result a is there already"):
        results.add("a", [1], "ms")


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentile_is_by_nearest_rank(percent: float, value: float) -> None:
    assert percentile(range(1, 101), percent) == value
    assert math.isnan(percentile([], percent))
    assert math.isnan(percentile(sorted([1.0, math.nan, 2.0]), percent))


def test_here_tells_of_this_machine() -> None:
    meta = Results.here().meta
    assert meta.cpus >= 1
    assert meta.kernel[0].isdigit()
    assert meta.commit
