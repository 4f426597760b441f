"""HTB as it should be: `shaper`; all of it or nothing: `shaping`."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from mpq_supervisor import shaping
from mpq_supervisor.config import parse
from mpq_supervisor.netlink_socket import NetlinkSocket
from mpq_supervisor.plan import make_plan
from mpq_supervisor.shaper import Shaper, ShaperClass, shaper
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


_NEWQDISC, _DELQDISC, _NEWCLASS, _NEWFILTER = 36, 37, 40, 44


class WithoutFilters(NetlinkSocket):
    """A kernel without `cls_u32`; it notes the kinds of messages."""

    def __init__(self) -> None:
        self.kinds: list[int] = []

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.kinds.append(kind)
        if kind == _NEWFILTER:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def test_of_a_shaper_that_the_kernel_does_not_take_nothing_is_left() -> None:
    site = make_plan(parse(SITE))
    htb = shaper(site.wans[0], site.classes)
    assert htb is not None
    kernel = WithoutFilters()
    with pytest.raises(FileNotFoundError):
        shaping.apply(kernel, htb, 4)
    assert kernel.kinds == [_DELQDISC, _NEWQDISC, *[_NEWCLASS] * 4, _NEWQDISC, _NEWFILTER, _DELQDISC]


def test_of_a_shaper_that_no_message_can_hold_nothing_is_sent() -> None:
    kernel = WithoutFilters()
    with pytest.raises(struct.error):
        shaping.apply(kernel, Shaper("wan4", 100, (ShaperClass(16, 0, 1, 100, 15140),)), 4)
    assert kernel.kinds == []
