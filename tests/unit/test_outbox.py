"""What a receiver is told: each alarm by a pair of messages or not at all, whatever happens in between."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpq_supervisor.life import State as Life
from mpq_supervisor.portal import outbox
from mpq_supervisor.portal.alarm_models import Alarm, Over
from mpq_supervisor.portal.alarm_rules import Alarms, Change, Memory
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.portal.outbox import MAX_QUEUE, Kept, Message, Outbox
from mpq_supervisor.portal.state import State
from mpq_supervisor.schema import Alarm as Rule
from tests.unit.samples import PATH, SETUP, changed, host_sample

ALARM = Alarm(
    id="a/cr2", rule="a", kind="down", severity="warning", subject="cr2", tunnel="cr2", wan="wan5",
    traffic_class="critical", value=1.0, above=0.0, since=1e9,
)  # fmt: skip
TUNNELS = {"cr1": ("wan4", "critical"), "br1": ("wan4", "bulk"), "cr2": ("wan5", "critical")}
RULES = (
    Rule(name="down", kind="down", seconds=0.0),
    Rule(name="down", kind="down", seconds=2.0, of=("wan4",)),
    Rule(name="down", kind="flapping", above=1, seconds=5.0),
    Rule(name="skew", kind="asymmetric", above=0.1, seconds=0.0),
    Rule(name="skew", kind="asymmetric", above=0.1, seconds=0.0, of=("bulk",)),
    Rule(name="slow", kind="rtt", above=0.1, seconds=1.0),
)


def told(box: Outbox) -> list[tuple[str, bool, str]]:
    return [(message.alarm.id, message.raised, message.reason) for message in box.kept().queue]


class Box:
    """An outbox, and what is raised."""

    def __init__(self, kept: Kept | None = None, receiver: str = "one") -> None:
        self.box = Outbox(receiver, kept or Kept())
        self.active: dict[str, Alarm] = {}
        self.silent = False

    def look(self, *changes: Change) -> None:
        for change in changes:
            if change.raised:
                self.active[change.alarm.id] = change.alarm
            else:
                del self.active[change.alarm.id]
        self.box.follow(self.active, changes, lambda _: self.silent, "ship1", 2e9)

    def again(self, receiver: str = "one") -> Box:
        """The same alarms, another portal."""
        kept = msgspec.json.decode(msgspec.json.encode(self.box.kept()), type=Kept)
        other = Box(kept, receiver)
        other.active = self.active
        return other


RAISED, OVER = Change(ALARM), Change(ALARM, Over.CLEAR)


def test_raised_and_over() -> None:
    box = Box()
    box.look(RAISED)
    box.look()
    box.look(OVER)
    assert told(box.box) == [("a/cr2", True, ""), ("a/cr2", False, "clear")]


def test_of_what_is_raised_and_over_in_silence_nothing_is_told() -> None:
    box = Box()
    box.silent = True
    box.look(RAISED)
    box.look(OVER)
    box.silent = False
    box.look()
    assert told(box.box) == []


def test_what_is_still_raised_when_the_silence_ends_is_told_then() -> None:
    box = Box()
    box.silent = True
    box.look(RAISED)
    box.silent = False
    box.look()
    box.look(OVER)
    assert told(box.box) == [("a/cr2", True, ""), ("a/cr2", False, "clear")]


def test_what_was_told_and_is_over_in_silence_is_told_over() -> None:
    box = Box()
    box.look(RAISED)
    box.silent = True
    box.look(OVER)
    assert told(box.box) == [("a/cr2", True, ""), ("a/cr2", False, "clear")]


def test_another_portal_goes_on_where_the_last_one_ended() -> None:
    box = Box()
    box.look(RAISED)
    later = box.again()
    later.look()
    later.look(OVER)
    assert told(later.box) == [("a/cr2", True, ""), ("a/cr2", False, "clear")]
    assert [message.id for message in later.box.kept().queue] == [1, 2]


def test_what_was_over_while_there_was_no_receiver_is_told_when_there_is() -> None:
    box = Box()
    box.look(RAISED)
    later = box.again()
    later.active.clear()
    later.look()
    assert told(later.box) == [("a/cr2", True, ""), ("a/cr2", False, "")]


def test_an_alarm_raised_anew_is_another() -> None:
    box = Box()
    box.look(RAISED)
    again = msgspec.structs.replace(ALARM, since=1.5e9)
    box.look(OVER, Change(again))
    assert [entry[1] for entry in told(box.box)] == [True, False, True]


def test_another_receiver_is_told_what_is_raised_and_nothing_of_before() -> None:
    box = Box()
    other = msgspec.structs.replace(ALARM, id="a/br2")
    box.look(RAISED, Change(other))
    box.look(Change(other, Over.CLEAR))
    later = box.again("two")
    later.look()
    assert told(later.box) == [("a/cr2", True, "")]
    assert later.box.first.id == 4
    assert (later.box.given_up, box.again().box.given_up) == (3, 0)


def test_a_full_queue_takes_no_half_of_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_QUEUE", 5)
    box = Box()
    alarms = [msgspec.structs.replace(ALARM, id=f"a/cr{number}") for number in range(4)]
    box.look(*map(Change, alarms))
    assert [entry[0] for entry in told(box.box)] == ["a/cr0", "a/cr1"]
    for alarm in alarms[:3]:
        box.look(Change(alarm, Over.CLEAR))
    assert [entry[:2] for entry in told(box.box)] == [
        (f"a/cr{n}", raised) for raised in (True, False) for n in (0, 1)
    ]
    assert box.box.lost == 1
    box.box.pop()
    box.look()
    assert told(box.box)[-1] == ("a/cr3", True, "")
    box.look(Change(alarms[3], Over.CLEAR))
    assert told(box.box)[-1] == ("a/cr3", False, "clear")
    assert box.box.lost == 1


class Receiver(RuleBasedStateMachine):
    """Tunnels, rules, silences, restarts and a receiver that takes when it likes: no order of these tells it half."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.alarm_rules: tuple[Rule, ...] = RULES[:1]
        self.workers = {name: changed(name=name, wan=wan, traffic_class=c) for name, (wan, c) in TUNNELS.items()}
        self.got: list[Message] = []
        self.kept, self.box = Kept(), Outbox("one", Kept())
        self.hook = True
        self._begin(Memory())

    def _begin(self, memory: Memory) -> None:
        self.state = State(SETUP)
        self.alarms = Alarms(self.alarm_rules, memory, self.now, 1e9 + self.now)

    def _look(self) -> None:
        self.now += 1
        for worker in self.workers.values():
            self.state.take(WorkerSample(self.now, worker), self.now)
        self.state.take(host_sample(*self.workers.values()), self.now)
        changes = self.alarms.look(self.state, {}, self.now, 1e9 + self.now)
        if self.hook:
            self.box.follow(self.alarms.active, changes, self._silenced, "ship1", 1e9 + self.now)

    def _silenced(self, alarm: Alarm) -> bool:
        return self.alarms.silenced(alarm, 1e9 + self.now)

    @rule(count=st.integers(1, 4))
    def seconds(self, count: int) -> None:
        for _ in range(count):
            self._look()

    @rule(name=st.sampled_from(list(TUNNELS)), life=st.sampled_from(list(Life)))
    def state_is(self, name: str, life: Life) -> None:
        if name in self.workers:
            self.workers[name] = msgspec.structs.replace(self.workers[name], state=life)
        self._look()

    @rule(
        name=st.sampled_from(list(TUNNELS)), rtt=st.sampled_from([0.01, 0.5, None]), loss=st.sampled_from([0.0, 0.9])
    )
    def path_is(self, name: str, rtt: float | None, loss: float) -> None:
        if name in self.workers:
            path = msgspec.structs.replace(PATH, rtt=rtt, loss_tx=loss, loss_rx=0.0)
            self.workers[name] = msgspec.structs.replace(self.workers[name], path=path)
        self._look()

    @rule(name=st.sampled_from(list(TUNNELS)))
    def tunnel_goes_or_comes(self, name: str) -> None:
        if name in self.workers:
            del self.workers[name]
        else:
            wan, traffic_class = TUNNELS[name]
            self.workers[name] = changed(name=name, wan=wan, traffic_class=traffic_class)
        self._look()

    @rule(
        word=st.sampled_from(["", "down"]),
        of=st.sampled_from(["", "wan4", "critical", "cr2"]),
        life=st.integers(1, 9),
    )
    def silence(self, word: str, of: str, life: int) -> None:
        self.alarms.silence(word, of, 1e9 + self.now + life, "ann", "")
        self._look()

    @precondition(lambda self: self.alarms.silences)
    @rule()
    def unsilence(self) -> None:
        self.alarms.silences.popitem()
        self._look()

    @rule(rules=st.sets(st.sampled_from(range(len(RULES)))), hook=st.booleans(), looks=st.booleans())
    def another_configuration(self, rules: set[int], hook: bool, looks: bool) -> None:
        """And so another portal."""
        self.alarm_rules = tuple({RULES[place].name: RULES[place] for place in sorted(rules)}.values())
        self.restart(hook, looks)

    @rule(hook=st.booleans(), looks=st.booleans())
    def restart(self, hook: bool, looks: bool) -> None:
        if self.hook:
            self.kept = msgspec.json.decode(msgspec.json.encode(self.box.kept()), type=Kept)
        self.hook = hook
        self.box = Outbox("one", self.kept)
        self._begin(msgspec.json.decode(msgspec.json.encode(self.alarms.memory()), type=Memory))
        if looks:
            self._look()

    @precondition(lambda self: self.hook and self.box.waiting)
    @rule()
    def takes(self) -> None:
        self.got.append(self.box.first)
        self.box.pop()

    @invariant()
    def what_it_is_told_is_whole(self) -> None:
        if not self.hook:
            return
        kept = self.box.kept()
        log = [*self.got, *kept.queue]
        assert [message.id for message in log] == list(range(1, len(log) + 1))
        open_: dict[str, float] = {}
        for message in log:
            alarm = message.alarm
            if message.raised:
                assert alarm.id not in open_, "raised twice"
                open_[alarm.id] = alarm.since
            else:
                assert open_.pop(alarm.id, None) == alarm.since, "over without raised"
        assert {key: alarm.since for key, alarm in kept.told.items()} == open_
        assert len(kept.queue) + len(kept.told) <= outbox.MAX_QUEUE

    @invariant()
    def what_is_raised_is_told(self) -> None:
        if not self.hook:
            return
        self._look()
        kept = self.box.kept()
        for key, alarm in self.alarms.active.items():
            crowded = len(kept.queue) + len(kept.told) > outbox.MAX_QUEUE - 2
            assert key in kept.told or self._silenced(alarm) or crowded
        for key, alarm in kept.told.items():
            assert self.alarms.active[key].since == alarm.since, "over, but not told"
        for message in kept.queue:
            if message.raised and message.t == 1e9 + self.now:
                assert not self._silenced(message.alarm)


class CrowdedReceiver(Receiver):
    """With room for hardly anything."""

    def __init__(self) -> None:
        outbox.MAX_QUEUE = 4
        super().__init__()

    def teardown(self) -> None:
        outbox.MAX_QUEUE = MAX_QUEUE


SETTINGS = settings(max_examples=40, stateful_step_count=40)
TestReceiver = Receiver.TestCase
TestReceiver.settings = SETTINGS
TestCrowdedReceiver = CrowdedReceiver.TestCase
TestCrowdedReceiver.settings = SETTINGS
