"""Light sites connect to a hub by real handshakes, stay, and go."""

from __future__ import annotations

import os

import pytest

from tools.bench.crowd import crowd_of
from tools.bench.mpq import Mpq
from tools.wait import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_a_crowd_connects_and_the_hub_knows_each_by_name() -> None:
    expected = {"ship1", *(f"g{number}" for number in range(1, 20))}
    with crowd_of(f"mpqc{os.getpid()}", 20) as hub:
        assert hub.ready.sites == 19
        until(lambda: names(hub.mpq) == expected, lambda: str(names(hub.mpq)))


def names(mpq: Mpq) -> set[str]:
    """The sites that the hub's one worker reports."""
    status = mpq.ctl("hub", "status").status
    assert status is not None
    return {site.site for worker in status.workers for site in worker.sites}
