"""Events of links at the real product: one of each kind of `make acceptance`'s plan of 200."""

from __future__ import annotations

import os

import pytest

from tools.acceptance.ground import running
from tools.acceptance.link_events import KINDS, make_plan
from tools.acceptance.links import SEED, eager, exercise

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_after_each_event_all_is_as_it_should_be_and_nobody_else_noticed() -> None:
    plan = make_plan(SEED, len(KINDS))
    assert {event.kind for event in plan} == set(KINDS)
    with running(edit=eager) as system:
        report = exercise(system, plan)
    assert report.wrong == []
    assert report.broken == []
    assert (report.astray, report.clear) == (0, 0)
