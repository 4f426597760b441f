"""Every metric is printed and documented, and says what the feed said."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.exposition import Exposition
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.portal.metrics import PORTAL, SCOPES, SUPERVISOR, labels_of
from mpq_supervisor.portal.state import FRESH, Delivery, State
from mpq_worker.contract import RTT_BOUNDS, PathStats, SiteStatus
from tests.unit.samples import PATH, SETUP, WORKER, host_sample, state_with

DOCUMENT = Path(__file__).parents[2] / "docs/metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def printed(state: State, now: float = 3.0) -> Samples:
    """Sample name → labels → value, as Prometheus reads it."""
    found: Samples = {}
    for family in parse_text(Exposition(state).render("", now)[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def one(samples: Samples, name: str, **labels: str) -> float:
    """The value of the only sample with these labels."""
    (value,) = (v for key, v in samples[name].items() if set(labels.items()) <= set(key))
    return value


def test_the_page_lists_every_metric() -> None:
    documented = re.findall(r"^\| `(mpq_\w+)` \| (\w+) \| ([a-z ]*) ?\| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    rows = [(row.name, row.kind, " ".join(labels_of(s, row)), row.help) for s in SCOPES for row in s.rows]
    assert [(name, kind, labels.strip(), text) for name, kind, labels, text in documented] == rows


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_row_is_printed(accept: str) -> None:
    page, content_type = Exposition(state_with(WORKER)).render(accept, 3.0)
    parse = parse_openmetrics if accept else parse_text
    families = {family.name: family for family in parse(page.decode())}
    for scope in SCOPES:
        for row in scope.rows:
            family = families[row.name.removesuffix("_total").removesuffix("_info" if accept else "")]
            assert family.documentation == row.help
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels == set(labels_of(scope, row)), row.name
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    assert all(name.startswith("mpq_") for name in families)


def test_values() -> None:
    samples = printed(state_with(WORKER))
    cr2 = {"tunnel": "cr2", "wan": "wan5", "class": "critical"}
    assert one(samples, "mpq_tunnel_up", **cr2) == 1
    assert one(samples, "mpq_tunnel_state", **cr2, state="DEGRADED") == 0
    assert one(samples, "mpq_tunnel_dropped_packets_total", **cr2, reason="codel") == 2
    assert one(samples, "mpq_tunnel_restarts_total", cause="crash") == 1
    path = {**cr2, "path": "wan5", "site": "ship1"}
    assert one(samples, "mpq_path_loss_ratio", **path, direction="sent") == 0.001
    assert one(samples, "mpq_path_probe_rtt_seconds_bucket", **path, le=str(RTT_BOUNDS[4])) == 3
    assert one(samples, "mpq_path_probe_rtt_seconds_bucket", **path, le="+Inf") == 4
    assert one(samples, "mpq_path_probe_rtt_seconds_sum", **path) == 2.06
    assert one(samples, "mpq_wan_sent_bytes_total", wan="wan5") == 2


def test_a_receiver_of_webhooks() -> None:
    state = state_with(WORKER)
    assert "mpq_webhook_waiting_messages" not in printed(state)
    state.delivery = Delivery(waiting=0, failures=3, lost=1)
    samples = printed(state)
    assert one(samples, "mpq_webhook_waiting_messages") == 0
    assert one(samples, "mpq_webhook_failures_total") == 3
    assert one(samples, "mpq_webhook_lost_alarms_total") == 1


def test_what_is_not_known_is_absent() -> None:
    worker = msgspec.structs.replace(WORKER, path=None, state=Life.WAITING, pss=0, uptime=None, rtt_counts=())
    samples = printed(state_with(worker))
    assert not [name for name in samples if name.startswith("mpq_path_")]
    assert "mpq_worker_memory_pss_bytes" not in samples
    assert one(samples, "mpq_tunnel_up") == 0
    assert "mpq_supervisor_uptime_seconds" not in printed(State(SETUP))


def test_of_a_supervisor_that_is_silent_nothing_else_is_known() -> None:
    state = state_with(WORKER)
    known = printed(state, 1.0 + FRESH - 0.01)
    assert one(known, "mpq_supervisor_up") == one(known, "mpq_tunnel_up") == 1
    samples = printed(state, 1.0 + FRESH)
    assert one(samples, "mpq_supervisor_up") == 0
    ours = {row.name for scope in (SUPERVISOR, PORTAL) for row in scope.rows}
    assert samples.keys() < ours
    assert {"mpq_build_info", "mpq_feed_timestamp_seconds", "mpq_history_bytes"} < samples.keys()


def test_a_tunnel_that_is_not_told_of_is_not_known() -> None:
    state = state_with(WORKER, msgspec.structs.replace(WORKER, name="br2"))
    state.take(WorkerSample(7.0, WORKER), 7.0)
    samples = printed(state, 7.0)
    assert {dict(key)["tunnel"] for key in samples["mpq_tunnel_up"]} == {"cr2"}
    assert one(samples, "mpq_wan_received_bytes_total", wan="wan5") == 2


def test_counters_outlive_processes_and_connections() -> None:
    state = state_with(WORKER)

    def tell(**changes: object) -> Samples:
        worker = msgspec.structs.replace(WORKER, **changes)
        state.take(WorkerSample(2.0, worker), 2.0)
        return printed(state)

    sent = PATH.packets_sent
    tell(bytes_out=100, path=msgspec.structs.replace(PATH, packets_sent=sent + 5))
    tell(pid=None, bytes_out=0, drops={}, path=None)
    samples = tell(
        pid=2, bytes_out=150, drops={"codel": 1, "sunk": 7}, path=msgspec.structs.replace(PATH, packets_sent=3)
    )
    assert one(samples, "mpq_tunnel_sent_bytes_total") == 250
    assert one(samples, "mpq_class_sent_bytes_total") == 250
    assert one(samples, "mpq_tunnel_dropped_packets_total", reason="codel") == 3
    assert one(samples, "mpq_path_sent_packets_total") == sent + 5 + 3
    samples = tell(pid=3, drops={"sunk": 9})
    assert one(samples, "mpq_tunnel_dropped_packets_total", reason="sunk") == 9


def test_a_hub_has_a_path_per_site() -> None:
    sites = tuple(SiteStatus(name, ("192.0.2.1", 46010), 1.0, PATH) for name in ("ship1", "ship2"))
    worker = msgspec.structs.replace(
        WORKER, name="mt5.critical", wan="mt5", sites=sites, path=None, rtt_counts=(), connected=2
    )
    setup = msgspec.structs.replace(SETUP, role="hub", name="hub")
    state = state_with(worker, setup=setup)
    samples = printed(state)
    assert one(samples, "mpq_path_rtt_seconds", site="ship2", path="mt5") == PATH.rtt
    assert one(samples, "mpq_wan_connections", wan="mt5") == 2
    assert "mpq_path_probe_rtt_seconds_bucket" not in samples
    state.take(host_sample(worker, sites=("ship2",)), 2.0)
    state.take(WorkerSample(3.0, msgspec.structs.replace(worker, sites=sites[1:])), 3.0)
    assert {dict(key)["site"] for key in printed(state)["mpq_path_rtt_seconds"]} == {"ship2"}


def test_tunnels_that_are_gone_are_forgotten() -> None:
    other = msgspec.structs.replace(WORKER, name="br2")
    state = state_with(WORKER, other)
    assert list(state.tunnels) == ["cr2", "br2"]
    state.take(host_sample(other), 2.0)
    assert list(state.tunnels) == ["br2"]


def test_labels_are_escaped() -> None:
    """Names are checked by the configuration, but nothing here relies on it."""
    worker = msgspec.structs.replace(WORKER, name='a"\\\nb', path=PathStats())
    assert one(printed(state_with(worker)), "mpq_tunnel_up", tunnel='a"\\\nb') == 1
