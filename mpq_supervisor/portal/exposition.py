"""The metrics as Prometheus reads them: text format or OpenMetrics, as asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mpq_supervisor import __version__
from mpq_supervisor.portal.metrics import SCOPES, Buckets, Row, Scope, labels_of
from mpq_supervisor.portal.state import State


class Exposition(Collector):
    """Of one host."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._now = 0.0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, accept: str, now: float) -> tuple[bytes, str]:
        """The page at monotonic time `now` and its content type, for an Accept header."""
        self._now = now
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """One family per row, in the order of the rows."""
        for scope in SCOPES:
            things = list(scope.things(self._state, self._now))
            for row in scope.rows:
                yield self._family(scope, row, things)

    def _family(self, scope: Scope, row: Row, things: list[tuple[tuple[str, ...], object]]) -> Metric:
        labels = labels_of(scope, row)
        if row.kind == "info":
            info = InfoMetricFamily(row.name.removesuffix("_info"), row.help)
            setup = self._state.setup
            info.add_metric([], {"version": __version__, "role": setup.role, "host": setup.name})
            return info
        if row.kind == "histogram":
            return _histogram(row, labels, things)
        kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
        family = kind(row.name, row.help, labels=labels)
        for values, thing in things:
            value = row.value(thing)
            if isinstance(value, float | int):
                family.add_metric(values, value)
            elif value is not None and not isinstance(value, Buckets):
                for own, number in value.items():
                    family.add_metric((*values, own), number)
        return family


def _histogram(row: Row, labels: tuple[str, ...], things: list[tuple[tuple[str, ...], object]]) -> Metric:
    family = HistogramMetricFamily(row.name, row.help, labels=labels)
    for values, thing in things:
        value = row.value(thing)
        if isinstance(value, Buckets):
            family.add_metric(values, list(value.cumulative()), value.sum)
    return family
