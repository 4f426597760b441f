"""Dashboard and alert rules ask only for what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.grafana import FILE, check, dashboard

ALERTS = Path(__file__).parents[2] / "etc/prometheus/mpq-alerts.yaml"


def test_the_dashboard_is_what_the_metrics_make_it() -> None:
    assert json.loads(FILE.read_text()) == dashboard(), "run python -m tools.grafana"


@pytest.mark.parametrize(
    ("expression", "legend"),
    [
        ("rate(mpq_tunnel_bytes_total[1m])", ""),
        ('mpq_tunnel_up{sitte="x"}', ""),
        ("mpq_tunnel_up", "{{site}}"),
        ("up", ""),
    ],
)
def test_what_does_not_exist_is_found(expression: str, legend: str) -> None:
    with pytest.raises(ValueError, match="no "):
        check(expression, legend)


def test_alerts_ask_for_metrics_that_exist() -> None:
    text = ALERTS.read_text()
    rules = re.findall(r"expr: (?:>-\n)?(.*?)\n        (?:for|labels):", text, re.DOTALL)
    assert len(rules) == text.count("- alert:") == 8
    for rule in rules:
        for part in re.findall(r"mpq_\w+(?:{[^}]*})?", rule):
            check(part)
