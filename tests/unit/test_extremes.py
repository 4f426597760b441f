"""Whatever `check` accepts can be told to the kernel: every number of a configuration at its bounds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from math import inf, nextafter
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq_supervisor import guard, ruleset
from mpq_supervisor.decode import Problem, decode, unread_fields
from mpq_supervisor.desired import desired
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.netlink_encode import vlan_body
from mpq_supervisor.network import MAIN_TABLE, Address, Link, Route, Snapshot
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.reconcile import reconcile
from mpq_supervisor.schema import Config, HubConfig, SiteConfig
from mpq_supervisor.validate import validate
from tests.unit.test_config import HUB
from tests.unit.test_validate import RICH

_Change = tuple[tuple[str | int, ...], float]
"""Where in a TOML table, and what."""
_NO_BOUND = 1 << 70


class Deaf(Netlink):
    """A kernel in which all is there that mpq does not make, and which takes whatever can be said."""

    def __init__(self, plan: HostPlan) -> None:
        self.changes = 0
        wans = [wan.interface for wan in plan.wans]
        names = [*wans, *(lan.interface for lan in plan.lans), *(worker.tun for worker in plan.workers)]
        self.there = Snapshot(
            links={name: Link(name, 2 + i, False, True, 1500, 1000) for i, name in enumerate(names)},
            addresses=tuple(Address(wan, f"{net}{i}", 24) for i, wan in enumerate(wans, 2) for net in _WAYS),
            routes=tuple(Route(MAIN_TABLE, to, wan, via) for wan in wans for to, via in _WAYS.values()),
        )

    def snapshot(self) -> Snapshot:
        return self.there

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        return []

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.changes += 1


_WAYS = {"10.0.0.": ("0.0.0.0/0", "10.0.0.1"), "2001:db8::": ("::/0", "fe80::1")}


def changes_of(table: dict[str, Any]) -> list[_Change]:
    """Each number that the file may hold at its lower bound and at its upper one, whether the table has it or not."""
    return list(_changes(HubConfig if table["role"] == "hub" else SiteConfig, table))


def plan_with(table: dict[str, Any], changes: list[_Change]) -> HostPlan:
    """The plan with those of the changes that `check` accepts beside the ones before them."""
    config = _read(table)
    for path, value in changes:
        candidate = deepcopy(table)
        entry: Any = candidate
        for step in path[:-1]:
            entry = entry.setdefault(step, {}) if isinstance(step, str) else entry[step]
        entry[path[-1]] = value
        if (accepted := _read(candidate)) is not None:
            table, config = candidate, accepted
    assert config is not None
    return make_plan(config)


TABLES = tomllib.loads(RICH), tomllib.loads(HUB)
"""A site and a hub in which much is said."""


@pytest.mark.parametrize("table", TABLES, ids=["site", "hub"])
def test_all_numbers_at_their_bounds(table: dict[str, Any]) -> None:
    changes = changes_of(table)
    assert len(changes) > 40
    for some in (changes[::2], changes[1::2], changes, changes[::-1]):
        _tell(plan_with(table, some))


@settings(max_examples=20, deadline=None)
@given(data=st.data(), table=st.sampled_from(TABLES))
def test_some_numbers_at_their_bounds(data: st.DataObject, table: dict[str, Any]) -> None:
    chosen = st.lists(st.sampled_from(changes_of(table)), min_size=2, max_size=8)
    _tell(plan_with(table, data.draw(chosen)))


def _tell(plan: HostPlan) -> None:
    kernel = Deaf(plan)
    assert reconcile(kernel, partial(desired, plan)).refused == ()
    assert kernel.changes > len(plan.workers)
    assert ruleset.render(plan)
    assert plan.role == "site" or guard.render(plan)
    for lan in plan.lans:
        assert lan.vlan is None or vlan_body(lan.interface, 1, lan.vlan)


def _read(table: dict[str, Any]) -> Config | None:
    problems: list[Problem] = []
    config: Config = decode(HubConfig if table["role"] == "hub" else SiteConfig, table, "", problems)
    return None if problems or validate(config, unread_fields(problems)) else config


def _changes(kind: Any, value: Any, path: tuple[str | int, ...] = ()) -> Iterator[_Change]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        entries = value if isinstance(value, dict) else {}
        for field in msgspec.structs.fields(kind):
            yield from _changes(field.type, entries.get(field.encode_name), (*path, field.encode_name))
    elif get_origin(kind) is Annotated:
        yield from ((path, bound) for bound in _bounds(*get_args(kind)))
    elif get_origin(kind) is tuple:
        for index, item in enumerate(value if isinstance(value, list) else []):
            yield from _changes(get_args(kind)[0], item, (*path, index))
    elif get_origin(kind) is dict:
        for key, item in (value or {}).items():
            yield from _changes(get_args(kind)[1], item, (*path, key))
    else:
        for option in get_args(kind):
            yield from _changes(option, value, path)


def _bounds(kind: Any, meta: Any) -> Iterator[float]:
    if kind in (int, float) and isinstance(meta, msgspec.Meta):
        low = nextafter(meta.gt, inf) if meta.gt is not None else meta.ge
        yield from (kind(low), kind(_NO_BOUND if meta.le is None else meta.le))
