"""Fixtures of the tests inside the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.vm.lab import Surroundings

Figure = Callable[[str, float, str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Tell a figure: its name, value and unit."""
    return lambda name, value, unit: record_property(name, f"{value:.3g} {unit}")


@pytest.fixture
def around() -> Iterator[Surroundings]:
    """What is around the site."""
    around = Surroundings()
    yield around
    around.end()
