"""Portals at both ends of a running lab, and a client for them."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from mpq_supervisor.portal.auth import hash_of
from tests.netns.product import System, ok
from tools.product import Side
from tools.system import SIDES
from tools.wait import until

PORT = 8450
TOKENS = {role: secrets.token_urlsafe(32) for role in ("viewer", "operator", "admin")}

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


class Portal(NamedTuple):
    """That of one end."""

    system: System
    side: Side

    def get(self, path: str) -> bytes:
        status, body = self.ask("GET", path)
        assert status == 200, body
        return body

    def ask(self, method: str, path: str, role: str = "viewer", body: object = None) -> tuple[int, bytes]:
        """Status and body of the answer."""
        with self.system.inside(self.side):
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
            connection.connect()
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Authorization": f"Bearer {TOKENS[role]}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def metrics(self) -> Samples:
        """Sample name → labels → value."""
        found: Samples = {}
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    def by_tunnel(self, name: str) -> dict[str, float]:
        """The values of a metric of tunnels."""
        return {dict(labels)["tunnel"]: value for labels, value in self.metrics().get(name, {}).items()}

    def rtts(self) -> list[float]:
        """Of all paths, smoothed."""
        return list(self.metrics()["mpq_path_rtt_seconds"].values())

    def answers(self) -> bool:
        try:
            return len(self.by_tunnel("mpq_tunnel_up")) == 9
        except ConnectionError:
            return False

    def pid(self) -> int:
        pid = self.system.portal(self.side)
        assert pid is not None
        return pid


@contextmanager
def open_portals(running: System, more: str = "") -> Iterator[dict[Side, Portal]]:
    """One at each end, begun by a reload that touches no tunnel; taken away again at the end.

    `more` is what the site's section has beside the tokens, TOML.
    """
    entries = [f'{{ name = "{role}", role = "{role}", hash = "{hash_of(token)}" }}' for role, token in TOKENS.items()]
    pids = {side: running.pids(side) for side in SIDES}
    for side in SIDES:
        section = f"[portal]\ntoken = [{', '.join(entries)}]\n{more if side == 'site' else ''}"
        running.configs[side].write_text(running.configs[side].read_text() + section)
        ok(running.lab.ctl(side, "reload"))
    found = {side: Portal(running, side) for side in SIDES}
    for portal in found.values():
        until(portal.answers, seconds=60)
    assert {side: running.pids(side) for side in SIDES} == pids
    with running.logged("site") as lines:
        yield found
    print("\n".join(lines))
    running.restore()
