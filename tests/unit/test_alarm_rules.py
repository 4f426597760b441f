"""Alarms: each kind is raised and over when its rule says so, and not before."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.alarm_rules import Alarms, Memory
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.portal.state import State
from mpq_supervisor.schema import Alarm as Rule
from tests.unit.samples import PATH, SETUP, changed, host_sample

LOSS = Rule(name="loss", kind="loss", above=0.05, clear=0.02, seconds=10.0)


NOTHING = Memory()


class Bench:
    """Alarms over tunnels that a test has in hand."""

    def __init__(self, *rules: Rule, memory: Memory = NOTHING) -> None:
        self.alarms = Alarms(rules, memory)
        self.state = State(SETUP)
        self.volumes: dict[str, int] = {}
        self.now = 0.0

    def second(self, **changes: object) -> list[tuple[str, bool]]:
        """The tunnel cr2 is so in this second: what follows."""
        path = {k: v for k, v in changes.items() if k in PATH.__struct_fields__ and k != "path"}
        rest = {k: v for k, v in changes.items() if k not in path}
        worker = changed(path=msgspec.structs.replace(PATH, **path), **rest)
        self.now += 1
        self.state.take(WorkerSample(self.now, worker), self.now)
        self.state.take(host_sample(worker), self.now)
        found = self.alarms.look(self.state, self.volumes, self.now, 1e9 + self.now)
        return [(change.alarm.id, change.raised) for change in found]

    def seconds(self, count: int, **changes: object) -> list[tuple[str, bool]]:
        return [change for _ in range(count) for change in self.second(**changes)]


def test_it_is_raised_after_its_time_and_over_after_its_time() -> None:
    bench = Bench(LOSS)
    assert bench.seconds(10, loss_rx=0.06) == []
    assert bench.second(loss_rx=0.06) == [("loss/cr2", True)]
    alarm = bench.alarms.active["loss/cr2"]
    assert (alarm.tunnel, alarm.wan, alarm.traffic_class, alarm.value) == ("cr2", "wan5", "critical", 0.06)
    assert bench.seconds(30, loss_rx=0.03) == []  # better, but not clear
    assert bench.seconds(14, loss_rx=0.01) == []  # five until the mean of ten is clear
    assert bench.second(loss_rx=0.01) == [("loss/cr2", False)]


def test_a_short_break_does_not_count() -> None:
    bench = Bench(Rule(name="rtt", kind="rtt", above=0.2, seconds=10.0))
    assert bench.seconds(9, rtt=0.3) + bench.second(rtt=0.1) + bench.seconds(9, rtt=0.3) == []


def test_a_loss_that_light_traffic_does_not_see_every_second() -> None:
    bench = Bench(LOSS)
    found = [change for _ in range(10) for change in bench.second(loss_tx=0.0) + bench.second(loss_tx=0.2)]
    assert found == [("loss/cr2", True)]


def test_one_bad_second_is_no_alarm() -> None:
    bench = Bench(LOSS)
    assert bench.seconds(20) + bench.second(loss_tx=1.0) + bench.seconds(20) == []


def test_what_is_not_known_changes_nothing() -> None:
    bench = Bench(LOSS)
    bench.seconds(11, loss_rx=0.06)
    assert bench.seconds(20, loss_tx=None, loss_rx=None) == []
    assert list(bench.alarms.active) == ["loss/cr2"]


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (Rule(name="a", kind="down", seconds=3.0), {"state": Life.BACKOFF}, {"state": Life.UP}),
        (Rule(name="a", kind="rtt", above=0.2, seconds=3.0), {"rtt": 0.3}, {"rtt": 0.15}),
        (
            Rule(name="a", kind="asymmetric", above=0.1, seconds=3.0),
            {"loss_tx": 0.2, "loss_rx": 0.01},
            {"loss_tx": 0.03, "loss_rx": 0.01},
        ),
    ],
)
def test_kinds(rule: Rule, bad: dict[str, object], good: dict[str, object]) -> None:
    bench = Bench(rule)
    subject = "wan5" if rule.kind == "asymmetric" else "cr2"
    assert bench.seconds(4, **bad) == [(f"a/{subject}", True)]
    assert bench.seconds(15, **good) == [(f"a/{subject}", False)]


def test_a_tunnel_that_somebody_stopped_is_not_down() -> None:
    assert Bench(Rule(name="a", kind="down", seconds=3.0)).seconds(60, state=Life.STOPPED) == []


def test_flapping_counts_falls_in_its_time() -> None:
    bench = Bench(Rule(name="a", kind="flapping", above=2, clear=0, seconds=60.0))
    for fall in range(3):
        raised = bench.second(state=Life.UP) + bench.second(state=Life.DEGRADED)
        assert raised == ([("a/cr2", True)] if fall == 2 else [])
    assert bench.seconds(58, state=Life.UP) == []
    assert bench.seconds(3, state=Life.UP) == [("a/cr2", False)]


def test_a_fall_that_nobody_saw_is_known_by_its_cause() -> None:
    """A worker that was killed serves again within a second; a planned restart is no fall."""
    bench = Bench(Rule(name="a", kind="flapping", above=2, clear=0, seconds=60.0))
    assert bench.second(causes={"crash": 1, "order": 1}) == []
    assert bench.second(causes={"crash": 2, "order": 5}) == []
    assert bench.second(causes={"crash": 3, "order": 5}, state=Life.STARTING) == []
    assert bench.second(causes={"crash": 3, "order": 5}) == []
    assert bench.second(causes={"crash": 3, "heartbeat": 1, "order": 5}) == [("a/cr2", True)]
    assert bench.second(causes={}) == []  # another supervisor


def test_quota_is_of_the_wan_and_the_month() -> None:
    bench = Bench(Rule(name="a", kind="quota", above=500))
    bench.volumes = {"wan5": 499_000_000_000}
    assert bench.second() == []
    bench.volumes = {"wan5": 501_000_000_000}
    assert bench.second() == [("a/wan5", True)]
    bench.volumes = {"wan5": 0}  # the next month
    assert bench.second() == [("a/wan5", False)]


def test_rules_are_of_whom_they_name() -> None:
    for word, raised in (("cr2", 1), ("wan5", 1), ("critical", 1), ("bulk", 0)):
        rule = msgspec.structs.replace(LOSS, of=(word,), seconds=0.0)
        assert len(Bench(rule).second(loss_rx=0.5)) == raised, word


def test_silences_cover_what_they_name_while_they_last() -> None:
    bench = Bench(msgspec.structs.replace(LOSS, seconds=0.0))
    bench.second(loss_rx=0.5)
    alarm = bench.alarms.active["loss/cr2"]
    for rule, subject, covers in (("", "", True), ("loss", "", True), ("", "cr2", True), ("rtt", "", False)):
        silence = bench.alarms.silence(rule, subject, 2e9, "ann", "")
        assert silence is not None
        assert bench.alarms.silenced(alarm, 1e9) is covers
        assert not bench.alarms.silenced(alarm, 2e9)
        del bench.alarms.silences[silence.id]


def test_an_alarm_outlives_the_portal_and_is_over_with_its_tunnel() -> None:
    bench = Bench(msgspec.structs.replace(LOSS, seconds=0.0))
    bench.second(loss_rx=0.5)
    bench.alarms.acknowledge("loss/cr2", "ann")
    memory = msgspec.json.decode(msgspec.json.encode(bench.alarms.memory()), type=Memory)
    later = Bench(LOSS, memory=memory)
    assert later.alarms.active["loss/cr2"].acknowledged == "ann"
    assert later.alarms.look(later.state, {}, 0.0, 1e9) == []  # nothing told yet
    assert later.seconds(20, loss_rx=0.5) == []
    assert later.second(name="br2", loss_rx=0.0, loss_tx=0.0) == [("loss/cr2", False)]
