"""A real Prometheus in a namespace of the lab, and what it knows."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.netns.portals import PORT, TOKENS
from tests.netns.product import System
from tools.product import Side
from tools.wait import end, until

RULES = Path(__file__).parents[2] / "etc/prometheus/mpq-alerts.yaml"
INTERVAL = 2
"""Seconds between scrapes."""
_OWN_PORT = 9090
_CONFIG = """
global: {{ scrape_interval: {interval}s, evaluation_interval: {interval}s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: mpq
    authorization: {{ credentials: "{token}" }}
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
  - job_name: prometheus
    static_configs: [{{ targets: ["127.0.0.1:{own}"] }}]
"""


class Series(NamedTuple):
    """The samples of one series, oldest first."""

    labels: dict[str, str]
    values: list[float]

    @property
    def growth(self) -> float:
        """From the first sample to the last."""
        return self.values[-1] - self.values[0]


class Prometheus:
    """It runs already."""

    def __init__(self, system: System, side: Side) -> None:
        self._system = system
        self._side = side

    def get(self, path: str) -> Any:
        """`data` of an answer of its API. Raises ConnectionError before it is ready."""
        with self._system.inside(self._side):
            connection = http.client.HTTPConnection("127.0.0.1", _OWN_PORT, timeout=10)
            connection.connect()
        with closing(connection):
            connection.request("GET", f"/api/v1/{path}")
            response = connection.getresponse()
            if response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise ConnectionError
            answer = json.loads(response.read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, expression: str) -> list[Series]:
        """What an expression comes to now; of `name[60s]`, all samples of that time."""
        result = self.get(f"query?query={quote(expression)}")["result"]
        return [
            Series(one["metric"], [float(value) for _, value in one.get("values", [one.get("value")])])
            for one in result
        ]

    def scrapes(self) -> int:
        """How many there have been of the portal, good or bad."""
        return sum(len(series.values) for series in self.ask('up{job="mpq"}[1h]'))

    def until_scraped(self, more: int = 2) -> None:
        """So many times from now on."""
        begin = self.scrapes()
        until(lambda: self.scrapes() >= begin + more)


@contextmanager
def prometheus(system: System, side: Side, directory: Path) -> Iterator[Prometheus]:
    """It scrapes the portal of one end, and evaluates the rules that ship with mpq."""
    config = directory / "prometheus.yml"
    config.write_text(
        _CONFIG.format(interval=INTERVAL, rules=RULES, token=TOKENS["viewer"], port=PORT, own=_OWN_PORT)
    )
    argv = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}", "--log.level=warn"]
    process = system.lab.exec(
        side, [*argv, f"--web.listen-address=127.0.0.1:{_OWN_PORT}"], stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    found = Prometheus(system, side)
    try:
        until(lambda: _scraped(found), seconds=60)
        yield found
    finally:
        end(process.pid)
        process.wait()
        assert process.stdout is not None
        print(process.stdout.read().decode())


def _scraped(found: Prometheus) -> bool:
    try:
        return found.scrapes() > 0
    except ConnectionError:
        return False
