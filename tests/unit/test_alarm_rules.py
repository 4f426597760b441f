"""Alarms: each kind is raised and over when its rule says so, and not before."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.alarm_models import Over
from mpq_supervisor.portal.alarm_rules import Alarms, Change, Memory
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.portal.state import State
from mpq_supervisor.schema import Alarm as Rule
from tests.unit.samples import PATH, SETUP, changed, host_sample

LOSS = Rule(name="loss", kind="loss", above=0.05, clear=0.02, seconds=10.0)


NOTHING = Memory()


class Bench:
    """Alarms over tunnels that a test has in hand."""

    def __init__(self, *rules: Rule, memory: Memory = NOTHING) -> None:
        self.state = State(SETUP)
        self.volumes: dict[str, int] | None = {}
        self.now, self.epoch = 0.0, 1e9
        self.alarms = Alarms(rules, memory, self.now, self.epoch)

    def restart(self, *rules: Rule, away: float = 1.0) -> None:
        """Another portal, after these seconds."""
        memory = msgspec.json.decode(msgspec.json.encode(self.alarms.memory()), type=Memory)
        self.now += away
        self.alarms = Alarms(rules, memory, self.now, self.epoch + self.now)
        self.state = State(SETUP)

    def over(self, **changes: object) -> list[Over | None]:
        """As `second`: why what changed is over."""
        return [change.over for change in self.changes(**changes)]

    def second(self, **changes: object) -> list[tuple[str, bool]]:
        """The tunnel cr2 is so in this second: what follows."""
        return [(change.alarm.id, change.raised) for change in self.changes(**changes)]

    def changes(self, **changes: object) -> list[Change]:
        path = {k: v for k, v in changes.items() if k in PATH.__struct_fields__ and k != "path"}
        rest = {k: v for k, v in changes.items() if k not in path}
        worker = changed(**{"path": msgspec.structs.replace(PATH, **path), **rest})
        self.now += 1
        self.state.take(WorkerSample(self.now, worker), self.now)
        self.state.take(host_sample(worker), self.now)
        return self.alarms.look(self.state, self.volumes, self.now, self.epoch + self.now)

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


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (Rule(name="a", kind="down", seconds=3.0), {"state": Life.BACKOFF}),
        (Rule(name="a", kind="rtt", above=0.2, seconds=3.0), {"rtt": 0.3}),
        (Rule(name="a", kind="asymmetric", above=0.1, seconds=3.0), {"loss_tx": 0.2, "loss_rx": 0.01}),
    ],
)
def test_what_is_wrong_with_a_tunnel_is_over_when_somebody_stops_it(rule: Rule, bad: dict[str, object]) -> None:
    bench = Bench(rule)
    bench.seconds(4, **bad)
    assert bench.over(state=Life.STOPPING, path=None) == []
    assert bench.over(state=Life.STOPPED, path=None) == [Over.STOPPED]
    assert bench.seconds(9, state=Life.STOPPED, path=None) == []


def test_being_stopped_is_no_fault() -> None:
    bench = Bench(Rule(name="a", kind="down", seconds=0.0))
    assert bench.second() + bench.second(state=Life.STOPPING) + bench.second(state=Life.STOPPED) == []


def test_what_was_before_a_stop_does_not_count_after_it() -> None:
    bench = Bench(Rule(name="a", kind="down", seconds=10.0))
    bench.seconds(9, state=Life.BACKOFF)
    bench.seconds(60, state=Life.STOPPED)
    assert bench.seconds(9, state=Life.STARTING) == []


def test_a_time_of_which_nothing_is_known_does_not_count() -> None:
    bench = Bench(Rule(name="a", kind="rtt", above=0.2, seconds=10.0))
    bench.second(rtt=0.3)
    assert bench.seconds(60, path=None, state=Life.BACKOFF) == []
    assert bench.seconds(10, rtt=0.3) == []
    assert bench.second(rtt=0.3) == [("a/cr2", True)]


def test_falls_are_forgotten_when_somebody_stops_the_tunnel() -> None:
    bench = Bench(Rule(name="a", kind="flapping", above=2, clear=0, seconds=600.0))
    assert bench.second(causes={}) + bench.second(causes={"crash": 3}) == [("a/cr2", True)]
    assert bench.over(state=Life.STOPPED, causes={"crash": 3}) == [Over.STOPPED]
    assert bench.second(causes={"crash": 3}) == []
    assert bench.second(causes={"crash": 5}) == []
    assert bench.second(causes={"crash": 6}) == [("a/cr2", True)]


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


FLAPPING = Rule(name="a", kind="flapping", above=2, clear=0, seconds=60.0)


def test_being_stopped_is_no_fall() -> None:
    bench = Bench(FLAPPING)
    assert bench.second(causes={}) + bench.second(causes={"crash": 2}) == []
    assert bench.second(state=Life.STOPPING, causes={"crash": 2}) == []
    assert bench.second(state=Life.STOPPED, causes={"crash": 2}) == []


def test_being_killed_for_a_fault_is_one() -> None:
    bench = Bench(FLAPPING)
    assert bench.second(causes={}) + bench.second(causes={"crash": 2}) == []
    assert bench.second(state=Life.STOPPING, causes={"crash": 2, "heartbeat": 1}) == []
    assert bench.second(state=Life.BACKOFF, causes={"crash": 2, "heartbeat": 1}) == [("a/cr2", True)]


def test_falls_are_known_to_the_next_portal() -> None:
    bench = Bench(FLAPPING)
    assert bench.second(causes={}) + bench.second(causes={"crash": 2}) == []
    bench.restart(FLAPPING)
    assert bench.second(causes={"crash": 3}) == [("a/cr2", True)]  # while nobody looked
    bench.restart(FLAPPING, away=20.0)
    assert bench.seconds(37, causes={"crash": 3}) == []
    assert bench.seconds(3, causes={"crash": 3}) == [("a/cr2", False)]


def test_an_adopted_tunnel_has_not_fallen() -> None:
    """Another supervisor counts anew, and does not know at once that its worker serves."""
    bench = Bench(FLAPPING)
    bench.second(causes={"crash": 2})
    for _ in range(9):
        bench.restart(FLAPPING)
        assert bench.second(causes={}, state=Life.STARTING) + bench.second(causes={}) == []


def test_falls_do_not_stay_when_the_clock_is_set_back() -> None:
    bench = Bench(FLAPPING)
    assert bench.second(causes={}) + bench.second(causes={"crash": 3}) == [("a/cr2", True)]
    bench.epoch -= 86_400
    bench.restart(FLAPPING)
    assert bench.seconds(62, causes={"crash": 3}) == [("a/cr2", False)]


def test_quota_is_of_the_wan_and_the_month() -> None:
    bench = Bench(Rule(name="a", kind="quota", above=500))
    bench.volumes = {"wan5": 499_000_000_000}
    assert bench.second() == []
    bench.volumes = {"wan5": 501_000_000_000}
    assert bench.second() == [("a/wan5", True)]
    bench.volumes = None
    assert bench.second() == []
    bench.volumes = {}  # a history begun anew
    assert bench.second() == []
    bench.epoch -= 365 * 86_400  # a host that has lost its clock
    assert bench.second() == []
    bench.epoch += (365 + 31) * 86_400
    assert bench.over() == [Over.CLEAR]


def test_a_quota_is_not_over_before_the_volume_is_known() -> None:
    rule = Rule(name="a", kind="quota", above=500)
    bench = Bench(rule)
    bench.volumes = {"wan5": 501_000_000_000}
    bench.second()
    bench.restart(rule)
    bench.epoch += 31 * 86_400
    bench.volumes = None
    assert bench.seconds(20) == []


def test_rules_are_of_whom_they_name() -> None:
    for word, raised in (("cr2", 1), ("wan5", 1), ("critical", 1), ("bulk", 0)):
        rule = msgspec.structs.replace(LOSS, of=(word,), seconds=0.0)
        assert len(Bench(rule).second(loss_rx=0.5)) == raised, word


def test_silences_cover_what_they_name_while_they_last() -> None:
    bench = Bench(msgspec.structs.replace(LOSS, seconds=0.0))
    bench.second(loss_rx=0.5)
    alarm = bench.alarms.active["loss/cr2"]
    for rule, subject, covers in (
        ("", "", True),
        ("loss", "", True),
        ("", "cr2", True),
        ("", "wan5", True),
        ("loss", "critical", True),
        ("rtt", "", False),
        ("rtt", "wan5", False),
        ("", "wan4", False),
        ("", "bulk", False),
    ):
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
    assert later.over(name="br2", loss_rx=0.0, loss_tx=0.0) == [Over.GONE]


@pytest.mark.parametrize(
    ("rules", "over"),
    [
        ((), [Over.RULE]),
        ((msgspec.structs.replace(LOSS, name="other"),), [Over.RULE]),
        ((msgspec.structs.replace(LOSS, kind="rtt"),), [Over.RULE]),
        ((msgspec.structs.replace(LOSS, of=("br2", "wan4")),), [Over.NOT_COVERED]),
        ((msgspec.structs.replace(LOSS, of=("wan5",)),), []),
        ((msgspec.structs.replace(LOSS, severity="critical", above=0.1),), []),
    ],
)
def test_another_configuration_ends_what_it_does_not_cover(rules: tuple[Rule, ...], over: list[Over]) -> None:
    bench = Bench(msgspec.structs.replace(LOSS, seconds=0.0))
    bench.second(loss_rx=0.5)
    bench.restart(*rules)
    assert bench.over(loss_rx=0.5) == over


def test_the_alarm_of_a_wan_ends_with_its_last_tunnel_that_is_meant() -> None:
    rule = Rule(name="a", kind="asymmetric", above=0.1, seconds=0.0)
    bench = Bench(rule)
    assert bench.second(loss_tx=0.5, loss_rx=0.0) == [("a/wan5", True)]
    bench.restart(msgspec.structs.replace(rule, of=("bulk",)))
    assert bench.over(loss_tx=0.5, loss_rx=0.0) == [Over.NOT_COVERED]


def test_a_tunnel_of_which_nothing_has_been_told_yet_is_not_gone() -> None:
    bench = Bench(msgspec.structs.replace(LOSS, seconds=0.0))
    bench.second(loss_rx=0.5)
    bench.restart(LOSS)
    bench.state.take(host_sample(changed()), bench.now)
    assert bench.alarms.look(bench.state, {}, bench.now, bench.epoch) == []
    bench.state.take(host_sample(), bench.now)
    assert [change.over for change in bench.alarms.look(bench.state, {}, bench.now, bench.epoch)] == [Over.GONE]


def test_a_tunnel_that_comes_back_begins_anew() -> None:
    bench = Bench(Rule(name="a", kind="down", seconds=10.0))
    bench.seconds(9, state=Life.BACKOFF)
    bench.state.take(host_sample(), bench.now)
    bench.alarms.look(bench.state, {}, bench.now, bench.epoch)
    assert bench.seconds(10, state=Life.STARTING) == []
