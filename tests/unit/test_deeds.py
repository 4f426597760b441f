"""What people do about alarms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from mpq_supervisor.entries import UnknownName
from mpq_supervisor.portal import console, deeds
from mpq_supervisor.portal.alarm_models import NewSilence
from mpq_supervisor.portal.auth import Identity, Role
from mpq_supervisor.portal.history.query import History
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.parts import Parts
from mpq_supervisor.portal.state import State
from mpq_supervisor.portal.watch import Watch
from mpq_supervisor.requests import Code, Request
from mpq_supervisor.schema import Alarm as Rule
from tests.unit.samples import SETUP, changed, state_with

ANN = Identity("ann", Role.OPERATOR)


def parts_of(directory: Path, state: State) -> Parts:
    watch = Watch(state.setup, Journal(), History(directory), b"")
    return cast(Parts, SimpleNamespace(state=state, watch=watch, audit=lambda *_: None))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    setup = msgspec.structs.replace(SETUP, directory=str(tmp_path), alarms=(Rule(name="gone", kind="down"),))
    return parts_of(tmp_path, state_with(changed(), setup=setup))


@pytest.mark.parametrize("subject", ["", "cr2", "wan5", "critical"])
def test_what_is_there_can_be_silenced(parts: Parts, subject: str) -> None:
    assert deeds.silence(parts, ANN, NewSilence(5, "gone", subject)) is not None


@pytest.mark.parametrize(("rule", "subject"), [("", "wna5"), ("gonne", ""), ("cr2", ""), ("", "gone")])
def test_what_is_not_there_cannot(parts: Parts, rule: str, subject: str) -> None:
    with pytest.raises(UnknownName):
        deeds.silence(parts, ANN, NewSilence(5, rule, subject))
    assert deeds.alarm_list(parts).silences == ()


def test_ctl_says_what_may_have_been_meant(parts: Parts) -> None:
    answer = console.respond(parts, Request("silence", by="ctl:ann", silence=NewSilence(5, "", "wan55")))
    assert (answer.code, answer.lines) == (Code.UNKNOWN, ('no "wan55" here (did you mean "wan5"?)',))


def test_while_it_is_not_known_what_is_there_anything_can(tmp_path: Path) -> None:
    state = State(msgspec.structs.replace(SETUP, directory=str(tmp_path)))
    assert deeds.silence(parts_of(tmp_path, state), ANN, NewSilence(5, "", "wan9")) is not None


def test_there_is_room_for_a_hundred_silences(parts: Parts) -> None:
    order = Request("silence", by="ctl:ann", silence=NewSilence(5))
    assert [console.respond(parts, order).code for _ in range(101)] == [*[Code.OK] * 100, Code.FAILED]
    assert console.respond(parts, order).lines == ("there are 100 silences already",)
