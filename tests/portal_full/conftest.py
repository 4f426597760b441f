"""The lab with portals, for tests that need the big programs of `make portal-test`. Results: build/portal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.conftest import running
from tests.netns.portals import Portal, open_portals
from tests.netns.product import System
from tools.product import Side

__all__ = ["running"]


@pytest.fixture(scope="module")
def portals(running: System) -> Iterator[dict[Side, Portal]]:
    """At both ends of nine tunnels."""
    with open_portals(running) as portals:
        yield portals


@pytest.fixture(scope="session")
def build() -> Path:
    """Where results are kept."""
    directory = Path(__file__).parents[2] / "build/portal"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
