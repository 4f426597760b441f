"""The lab with portals, for tests that need the big programs of `make portal-test`. Results: build/portal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.conftest import running
from tests.netns.portals import Portal, open_portals
from tests.netns.product import System
from tests.process.conftest import make_plan_of, pki_directory, run, site_plan
from tools.product import Side
from tools.results import Results

__all__ = ["make_plan_of", "pki_directory", "run", "running", "site_plan"]
_TABLES = pytest.StashKey[list[str]]()


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


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, build: Path) -> Iterator[Results]:
    """The figures of a file of tests: `test_api.py` has build/portal/api.json."""
    results = Results.here()
    yield results
    results.write(build / f"{request.path.stem.removeprefix('test_')}.json")
    request.config.stash[_TABLES] += results.table().splitlines()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash[_TABLES]:
        terminalreporter.write_line(line)
