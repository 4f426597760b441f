"""HTB as it should be: `shaper`."""

from __future__ import annotations

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.plan import make_plan
from mpq_supervisor.shaper import shaper
from tests.unit.test_network import SITE


def test_shaper_prefers_critical_and_assures_no_more_than_there_is() -> None:
    site = make_plan(parse(SITE))
    htb = shaper(site.wans[0], site.classes)
    assert htb is not None
    critical, default, bulk = htb.classes
    assert (critical.prio, default.prio, bulk.prio) == (0, 1, 2)
    assert (critical.dscp, default.dscp, bulk.dscp) == (46, None, 8)
    assert htb.rate == 18e6 / 8
    assert sum(c.rate for c in htb.classes) <= htb.rate
    assert {c.ceil for c in htb.classes} == {htb.rate}
    assert critical.limit == pytest.approx(0.020 * 18e6 / 8)
    assert shaper(site.wans[1], site.classes) is None
