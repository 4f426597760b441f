"""Rows, ratios and targets of the ladder, and its picture, from made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench.ladder import CONTENDERS, RATIOS, Samples, add_rows, unit_of
from tools.bench.plot import PANELS, draw
from tools.results import Meta, Results, Row

LABELS = [contender.label for contender in CONTENDERS]


@pytest.fixture
def results() -> Results:
    return Results(Meta("abc", "6.18", 2, "2025-11-23T00:00:00+00:00"), [])


def made_up(results: Results, ours: float, others: float) -> dict[str, Row]:
    """Every measure that a ratio or the picture wants, three runs each."""
    measures = {target.measure for target in RATIOS} | {m for panel in PANELS for m in panel.measures.values()}
    samples: Samples = {
        measure: {label: [ours if label == "tunnel" else others] * 3 for label in LABELS}
        for measure in sorted(measures | {"memory.busy.send"})
    }
    add_rows(results, samples)
    return {row.id: row for row in results.rows}


def test_every_contender_has_its_row_and_ids_of_old_stay(results: Results) -> None:
    rows = made_up(results, 50.0, 10.0)
    assert rows["tcp.one_stream.tunnel"].value == 50
    assert rows["tcp.one_stream.wireguard"].value == 10
    for name in ("tcp.one_stream.bare", "tcp.one_stream.ratio", "tcp.cpu.send", "udp.64B.ratio", "udp.full.tunnel"):
        assert name in rows
    assert rows["rtt.added.p50"].value == 40
    assert rows["tcp.cpu.receive"].unit == "s/Gbit"


def test_a_ratio_is_ours_by_theirs_and_knows_its_better_side(results: Results) -> None:
    rows = made_up(results, 50.0, 10.0)
    assert rows["tcp.one_stream.ratio.openvpn"].runs == [5.0] * 3
    assert rows["tcp.one_stream.ratio.openvpn"].met is True
    assert rows["tcp.cpu.send.ratio.wireguard"].met is False
    assert rows["rtt.idle.p50.ratio.openvpn"].met is False
    assert rows["udp.64B.ratio"].met is None
    assert rows["memory.busy.send.tunnel"].met is False
    assert rows["memory.busy.send.openvpn"].met is None


@pytest.mark.parametrize(
    ("measure", "unit"),
    [("rtt.idle.lost", "1"), ("rtt.idle.p99", "ms"), ("tcp.cpu.send", "s/Gbit"), ("tcp.x", "Mbit/s")],
)
def test_units(measure: str, unit: str) -> None:
    assert unit_of(measure) == unit


def test_the_picture_is_drawn(results: Results, tmp_path: Path) -> None:
    made_up(results, 50.0, 10.0)
    draw(results, LABELS, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
