"""Writes `etc/grafana/mpq.json`, the dashboard, from the metrics there are: `python -m tools.grafana`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from mpq_supervisor.portal.metrics import SCOPES

FILE = Path(__file__).parents[1] / "etc/grafana/mpq.json"
WIDTH, HEIGHT = 12, 8
_PROBES = "mpq_path_probe_rtt_seconds_bucket"
_WHERE = 'instance=~"$host",wan=~"$wan",class=~"$class"'


class Panel(NamedTuple):
    """One graph: its expressions with their legends."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


PANELS = (
    Panel("Tunnels that serve", "none", ((f"sum by (class) (mpq_tunnel_up{{{_WHERE}}})", "{{class}}"),)),
    Panel("State", "none", ((f"mpq_tunnel_state{{{_WHERE}}} == 1", "{{tunnel}} {{state}}"),)),
    Panel("Round trip", "s", ((f"mpq_path_rtt_seconds{{{_WHERE}}}", "{{tunnel}} {{site}}"),)),
    Panel(
        "Round trip of probes, 95 %", "s",
        (
            (
                f"histogram_quantile(0.95, sum by (le, tunnel) (rate({_PROBES}{{{_WHERE}}}[5m])))",
                "{{tunnel}}",
            ),
        ),
    ),
    Panel("Loss", "percentunit", ((f"mpq_path_loss_ratio{{{_WHERE}}}", "{{tunnel}} {{direction}} {{site}}"),)),
    Panel("Jitter", "s", ((f"mpq_path_jitter_seconds{{{_WHERE}}}", "{{tunnel}} {{site}}"),)),
    Panel("Received", "bps", ((f"8 * rate(mpq_tunnel_received_bytes_total{{{_WHERE}}}[1m])", "{{tunnel}}"),)),
    Panel("Sent", "bps", ((f"8 * rate(mpq_tunnel_sent_bytes_total{{{_WHERE}}}[1m])", "{{tunnel}}"),)),
    Panel(
        "Drops", "pps",
        (
            (
                f"sum by (tunnel, reason) (rate(mpq_tunnel_dropped_packets_total{{{_WHERE}}}[1m])) > 0",
                "{{tunnel}} {{reason}}",
            ),
        ),
    ),
    Panel(
        "Restarts and reconnects", "none",
        (
            (f"increase(mpq_tunnel_restarts_total{{{_WHERE}}}[5m]) > 0", "{{tunnel}} restart: {{cause}}"),
            (f"increase(mpq_tunnel_reconnects_total{{{_WHERE}}}[5m]) > 0", "{{tunnel}} reconnect"),
        ),
    ),
    Panel(
        "Congestion window and in flight", "bytes",
        (
            (f"mpq_path_congestion_window_bytes{{{_WHERE}}}", "{{tunnel}} window"),
            (f"mpq_path_in_flight_bytes{{{_WHERE}}}", "{{tunnel}} in flight"),
        ),
    ),
    Panel("CPU of workers", "percentunit", ((f"rate(mpq_worker_cpu_seconds_total{{{_WHERE}}}[1m])", "{{tunnel}}"),)),
    Panel("Memory of workers (PSS)", "bytes", ((f"mpq_worker_memory_pss_bytes{{{_WHERE}}}", "{{tunnel}}"),)),
    Panel("Refusals", "none", (
        (f"increase(mpq_tunnel_refusals_total{{{_WHERE}}}[5m]) > 0", "{{tunnel}} {{reason}}"),)),
)  # fmt: skip


def dashboard() -> dict[str, object]:
    """As Grafana imports it. Raises ValueError where a panel asks for a metric or a label that does not exist."""
    for panel in PANELS:
        for expression, legend in panel.lines:
            check(expression, legend)
    return {
        "title": "mpq",
        "uid": "mpq",
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_variable("host", "instance"), _variable("wan", "wan"), _variable("class", "class")]},
        "panels": [_panel(place, panel) for place, panel in enumerate(PANELS)],
    }


def check(expression: str, legend: str = "") -> None:
    """Raises ValueError where a metric or a label in PromQL, or in a legend, is none of ours."""
    known = {row.name: {*scope.labels, row.label, "le", "instance"} for scope in SCOPES for row in scope.rows}
    metrics = re.findall(r"\bmpq_\w+", expression)
    if not metrics:
        raise ValueError(f"no metric in {expression}")
    for metric in metrics:
        name = metric if metric in known else re.sub(r"_(bucket|sum|count)$", "", metric)
        if name not in known:
            raise ValueError(f"no metric {metric}")
        labels = {*re.findall(r"(\w+)=~?\"", expression), *re.findall(r"{{(\w+)}}", legend)}
        if not labels <= known[name]:
            raise ValueError(f"{metric} has no label {', '.join(labels - known[name])}")


def _variable(name: str, label: str) -> dict[str, object]:
    query = f"label_values(mpq_tunnel_up, {label})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "mpq"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(place: int, panel: Panel) -> dict[str, object]:
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "mpq"},
        "gridPos": {"x": place % 2 * WIDTH, "y": place // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(panel.lines)
        ],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")
