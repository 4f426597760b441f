"""The life-cycle table: every cell, and the rules of restarting."""

from __future__ import annotations

from typing import get_args

import pytest

from mpq_supervisor.happenings import (
    Action,
    Adopted,
    ArmBackoff,
    ArmHandover,
    ArmStop,
    BackoffElapsed,
    Discard,
    Drained,
    Event,
    Exited,
    Fork,
    ForkSuccessor,
    HandoverTimeout,
    HeartbeatMissed,
    Kill,
    LinkDown,
    LinkUp,
    MemoryExceeded,
    PeerBack,
    PeerSilent,
    PredecessorGone,
    Promote,
    Ready,
    RestartWanted,
    Retire,
    SendDrain,
    SendLead,
    SendRebind,
    SendStop,
    StartWanted,
    StopTimeout,
    StopWanted,
    SuccessorLost,
    SuccessorReady,
    Unfit,
    explain,
)
from mpq_supervisor.lifecycle import START_PAUSE, Life, Policy, State, backoff, cause, step
from mpq_worker.contract import ExitCode

POLICY = Policy(backoff_initial=0.1, backoff_max=30.0, healthy_after=10.0, stop_grace=1.0)
EVENTS: dict[type, Event] = {
    type(event): event
    for event in (
        StartWanted(),
        Adopted(),
        StopWanted(),
        RestartWanted(),
        LinkUp(),
        LinkDown("no carrier"),
        Ready(),
        PeerSilent("silent"),
        PeerBack(),
        HeartbeatMissed(2.0),
        MemoryExceeded(300_000_000),
        Unfit("nonsense"),
        Exited(70),
        BackoffElapsed(),
        StopTimeout(),
        SuccessorReady(),
        SuccessorLost("exit 78"),
        Drained(),
        PredecessorGone(0),
        HandoverTimeout(),
    )
}
RUNNING = {State.STARTING, State.UP, State.DEGRADED}
RESTARTING = {State.REPLACING, State.DRAINING, State.RETIRING}
ALIVE = RUNNING | RESTARTING | {State.STOPPING}


def life_in(state: State) -> Life:
    obstacle = "no carrier" if state is State.WAITING else ""
    ready = 0.0 if state in (State.UP, State.DEGRADED, *RESTARTING) else None
    return Life(state, obstacle=obstacle, ready_at=ready, starts=1, wanted=True)


def go(life: Life, *events: Event, now: float = 100.0, chance: float = 0.5) -> tuple[Life, list[Action]]:
    actions: list[Action] = []
    for event in events:
        life, more = step(life, event, now, chance, POLICY)
        actions += more
    return life, actions


def test_every_event_has_a_column_for_every_state() -> None:
    assert set(EVENTS) == set(get_args(Event))
    for state in State:
        for event in EVENTS.values():
            after, _ = step(life_in(state), event, 100.0, 0.5, POLICY)
            assert isinstance(after.state, State)


# What each state becomes, "." for unchanged.
EXPECTED = """
                 STOPPED  WAITING  STARTING UP       REPLACING DRAINING RETIRING DEGRADED BACKOFF  STOPPING FAILED
StartWanted      STARTING .        .        .        .        .        .        .        STARTING .        STARTING
Adopted           STARTING . . . . . . . . . .
StopWanted       .        STOPPED  STOPPING STOPPING STOPPING STOPPING STOPPING STOPPING STOPPED  .        STOPPED
RestartWanted    STARTING .        STOPPING REPLACING .        .        .        STOPPING STARTING .        STARTING
LinkUp           .        STARTING .        .        .        .        .        .        .        .        .
LinkDown         .        .        STOPPING DEGRADED STOPPING .        DEGRADED .        WAITING  .        .
Ready            .        .        UP       .        .        .        .        UP       .        .        .
PeerSilent       .        .        DEGRADED DEGRADED STOPPING .        DEGRADED .        .        .        .
PeerBack         .        .        .        .        .        .        .        UP       .        .        .
HeartbeatMissed  .        .        STOPPING STOPPING .        .        STOPPING STOPPING .        .        .
MemoryExceeded   .        .        STOPPING STOPPING .        .        STOPPING STOPPING .        .        .
Unfit            .        .        STOPPING STOPPING .        .        STOPPING STOPPING .        .        .
Exited           .        .        BACKOFF  STARTING STARTING UP       STARTING STARTING .        STARTING .
BackoffElapsed   .        .        .        .        .        .        .        .        STARTING .        .
StopTimeout      .        .        .        .        .        .        .        .        .        .        .
SuccessorReady   .        .        .        .        DRAINING .        .        .        .        .        .
SuccessorLost    .        .        .        .        UP       UP       .        .        .        .        .
Drained          .        .        .        .        .        RETIRING .        .        .        .        .
PredecessorGone  .        .        .        .        .        .        UP       .        .        .        .
HandoverTimeout  .        .        .        .        UP       .        .        .        .        .        .
"""


def test_states_follow_the_table() -> None:
    head, *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    assert [State(name) for name in head] == list(State)
    assert {row[0] for row in rows} == {event.__name__ for event in EVENTS}
    for name, *cells in rows:
        event = next(event for kind, event in EVENTS.items() if kind.__name__ == name)
        for state, cell in zip(State, cells, strict=True):
            after, _ = step(life_in(state), event, 100.0, 0.5, POLICY)
            assert after.state == (state if cell == "." else cell), (name, state)


def test_start_to_up() -> None:
    life, actions = go(Life(), StartWanted(), Ready())
    assert (life.state, life.starts, life.ready_at, actions) == (State.UP, 1, 100.0, [Fork()])


def test_an_adopted_process_says_how_it_stands() -> None:
    life, actions = go(Life(), Adopted(), StartWanted(), Ready())
    assert (life.state, life.starts, life.reason, actions) == (State.UP, 1, "", [])
    assert go(Life(), Adopted(), Ready(), PeerSilent())[0].state is State.DEGRADED
    assert go(Life(), LinkDown("no carrier"), Adopted(), Exited(None))[0].state is State.WAITING


def test_healthy_run_restarts_at_once_and_forgets_failures() -> None:
    life = Life(State.UP, ready_at=80.0, failures=7)
    life, actions = go(life, Exited(-9), now=90.0)
    assert (life.state, actions, life.failures) == (State.STARTING, [Fork()], 0)


def test_first_early_death_after_ready_restarts_at_once_then_backs_off() -> None:
    life, actions = go(Life(State.UP, ready_at=99.0), Exited(-9))
    assert (life.state, actions, life.failures) == (State.STARTING, [Fork()], 1)
    life, actions = go(life, Ready(), Exited(-9))
    assert (life.state, actions) == (State.BACKOFF, [ArmBackoff(0.05)])


def test_death_before_ready_pauses_at_least_a_second() -> None:
    life, actions = go(Life(State.STARTING), Exited(70), chance=0.0)
    assert (life.state, actions) == (State.BACKOFF, [ArmBackoff(START_PAUSE)])
    life, actions = go(Life(State.STARTING, failures=20), Exited(70), chance=0.9)
    assert actions == [ArmBackoff(27.0)]


def test_backoff_is_full_jitter_under_a_growing_bounded_ceiling() -> None:
    assert [backoff(n, 1.0, POLICY) for n in range(6)] == [0.0, 0.0, 0.1, 0.2, 0.4, 0.8]
    assert backoff(5, 0.0, POLICY) == 0.0
    assert backoff(10_000, 1.0, POLICY) == POLICY.backoff_max


@pytest.mark.parametrize("code", [ExitCode.CONFIG, ExitCode.NOPERM])
@pytest.mark.parametrize("state", sorted(RUNNING))
def test_permanent_codes_are_not_retried(state: State, code: ExitCode) -> None:
    life, actions = go(life_in(state), Exited(code))
    assert (life.state, actions, life.last_exit) == (State.FAILED, [], code)
    assert code.name in life.reason
    assert go(life, LinkUp(), BackoffElapsed(), Ready())[0].state is State.FAILED
    assert go(life, StartWanted())[0].state is State.STARTING


@pytest.mark.parametrize("code", [0, 1, 69, 70, 75, -9, -11, None])
def test_everything_else_is_retried(code: int | None) -> None:
    assert go(life_in(State.STARTING), Exited(code))[0].state is State.BACKOFF
    assert go(life_in(State.UP), Exited(code))[0].state is State.STARTING


def test_hung_worker_is_killed_and_counted_as_a_failure() -> None:
    life, actions = go(Life(State.UP, ready_at=99.0, failures=1), HeartbeatMissed(1.6), Exited(-9))
    assert actions == [Kill(), ArmBackoff(0.05)]
    assert (life.state, life.failures, life.reason) == (State.BACKOFF, 2, "no heartbeat for 1.6 s")


def test_planned_restart_while_the_peer_is_silent_is_plain_and_no_failure() -> None:
    life, actions = go(life_in(State.DEGRADED), RestartWanted(), Exited(0))
    assert actions == [SendStop(), ArmStop(1.0), Fork()]
    assert (life.state, life.failures) == (State.STARTING, 0)


def test_planned_restart_makes_before_it_breaks() -> None:
    life, actions = go(life_in(State.UP), RestartWanted(), SuccessorReady(), Drained(), HandoverTimeout())
    assert actions == [
        ForkSuccessor(),
        ArmHandover(POLICY.replace_timeout),
        SendDrain(),
        ArmHandover(POLICY.drain_timeout),
        Promote(),
        SendLead(),
        ArmHandover(POLICY.linger),
        Retire(),
    ]
    life, actions = go(life, PredecessorGone(0))
    assert (life.state, life.starts, life.failures, life.reason, actions) == (State.UP, 2, 0, "", [])


@pytest.mark.parametrize("failure", [SuccessorLost("exit 78"), HandoverTimeout()])
def test_a_successor_that_fails_changes_nothing_but_the_reason(failure: Event) -> None:
    life, actions = go(life_in(State.UP), RestartWanted(), failure)
    assert actions[2:] == [Discard()]
    assert (life.state, life.starts, life.failed_restarts) == (State.UP, 1, 1)
    assert life.reason.startswith("restart failed: ")


def test_a_leader_that_drains_for_a_lost_successor_leads_on() -> None:
    life, actions = go(life_in(State.DRAINING), SuccessorLost("killed by signal 9"))
    assert (life.state, actions) == (State.UP, [Discard(), SendLead()])


def test_a_leader_that_dies_is_inherited_from() -> None:
    life, actions = go(life_in(State.REPLACING), Exited(-9))
    assert (life.state, life.starts, actions) == (State.STARTING, 2, [Promote(), SendLead()])
    life, actions = go(life_in(State.DRAINING), HandoverTimeout(), Exited(-9))
    assert (life.state, life.starts, actions) == (State.UP, 2, [Kill(), Promote(), SendLead()])


def test_a_wish_during_a_restart_is_another_restart() -> None:
    life, actions = go(life_in(State.DRAINING), RestartWanted(), Drained(), PredecessorGone(0))
    assert (life.state, actions[-2:]) == (State.REPLACING, [ForkSuccessor(), ArmHandover(POLICY.replace_timeout)])
    assert go(life_in(State.REPLACING), RestartWanted())[1][:2] == [Discard(), ForkSuccessor()]


@pytest.mark.parametrize(
    ("events", "state", "actions"),
    [
        ((SuccessorLost("exit 78"),), State.REPLACING, [Discard(), SendLead(), ForkSuccessor()]),
        ((Exited(-9),), State.REPLACING, [Promote(), SendLead(), ForkSuccessor()]),
        ((LinkDown("gone"), SuccessorLost("exit 78")), State.STOPPING, [Discard(), SendLead(), SendStop()]),
        ((LinkDown("gone"), Exited(-9)), State.STOPPING, [Promote(), SendLead(), SendStop()]),
        ((Drained(), LinkDown("gone")), State.STOPPING, [Discard(), SendStop()]),
        ((Drained(), PeerSilent()), State.STOPPING, [Discard(), SendStop()]),
        ((LinkDown("gone"), Drained(), PredecessorGone(0)), State.STOPPING, [SendStop()]),
    ],
)
def test_a_wish_during_a_restart_outlives_whatever_becomes_of_that(
    events: tuple[Event, ...], state: State, actions: list[Action]
) -> None:
    life, done = go(life_in(State.DRAINING), RestartWanted(), *events)
    assert (life.state, life.again, life.failures) == (state, False, 0)
    assert [action for action in done if not isinstance(action, ArmHandover | ArmStop)][-len(actions) :] == actions
    if state is State.STOPPING:
        assert go(life, LinkUp(), Exited(0))[0].state is State.STARTING


def test_a_wan_lost_while_draining_shows_afterwards() -> None:
    for last in [Drained(), PredecessorGone(0)], [Exited(-9)], [SuccessorLost("exit 78")]:
        life, _ = go(life_in(State.DRAINING), LinkDown("no carrier"), *last)
        assert (life.state, life.reason) == (State.DEGRADED, "no carrier")


def test_stop_is_forced_when_it_takes_too_long() -> None:
    life, actions = go(life_in(State.UP), StopWanted(), StopTimeout(), Exited(-9))
    assert actions == [SendStop(), ArmStop(1.0), Kill()]
    assert life.state is State.STOPPED


def test_last_word_while_stopping_counts() -> None:
    assert go(life_in(State.UP), StopWanted(), StartWanted(), Exited(0))[0].state is State.STARTING
    assert go(life_in(State.DEGRADED), RestartWanted(), StopWanted(), Exited(0))[0].state is State.STOPPED
    assert go(life_in(State.UP), RestartWanted(), StopWanted(), Exited(0))[0].state is State.STOPPED
    assert go(life_in(State.UP), HeartbeatMissed(2), StopWanted(), Exited(-9))[0].state is State.STOPPED


def test_tunnel_waits_quietly_for_its_wan() -> None:
    life, actions = go(Life(), LinkDown("no carrier"), StartWanted(), LinkDown("no address"))
    assert (life.state, life.reason, life.failures, actions) == (State.WAITING, "no address", 0, [])
    life, actions = go(life, LinkUp())
    assert (life.state, actions) == (State.STARTING, [Fork()])


def test_worker_outlives_a_flap_of_its_wan() -> None:
    life, actions = go(life_in(State.UP), LinkDown("no carrier"), LinkUp(), PeerBack())
    assert (life.state, actions) == (State.UP, [SendRebind()])


def test_death_without_wan_waits() -> None:
    life, actions = go(life_in(State.UP), LinkDown("no carrier"), Exited(-9))
    assert (life.state, life.reason, actions) == (State.WAITING, "no carrier", [])


def test_wan_lost_while_starting() -> None:
    life, actions = go(life_in(State.STARTING), LinkDown("no carrier"), Exited(0))
    assert (life.state, life.failures, actions) == (State.WAITING, 0, [SendStop(), ArmStop(1.0)])


def test_peer_back_before_ready_is_not_up() -> None:
    assert go(life_in(State.STARTING), PeerSilent(), PeerBack())[0].state is State.STARTING


def test_state_begins_once() -> None:
    life, _ = go(Life(State.WAITING, since=5.0, obstacle="a"), LinkDown("b"))
    assert life.since == 5.0


def test_explain() -> None:
    assert explain(78) == "exit 78 (CONFIG)"
    assert explain(3) == "exit 3"
    assert explain(-9) == "killed by signal 9"


@pytest.mark.parametrize(
    ("state", "event", "word"),
    [
        (State.UP, Exited(-9), "crash"),
        (State.STARTING, Exited(1), "crash"),
        (State.DEGRADED, HeartbeatMissed(2.0), "heartbeat"),
        (State.UP, MemoryExceeded(1), "memory"),
        (State.UP, Unfit("it"), "unfit"),
        (State.UP, RestartWanted(), "order"),
        (State.DRAINING, RestartWanted(), "order"),  # after this one
        (State.STARTING, LinkDown("gone"), "link"),
        (State.UP, LinkDown("gone"), None),  # it goes on
        (State.UP, StopWanted(), None),
        (State.STOPPING, Exited(0), None),  # what stopped it has been counted
        (State.UP, Exited(78), None),  # not started anew
        (State.WAITING, LinkUp(), None),
    ],
)
def test_every_restart_has_one_cause(state: State, event: Event, word: str | None) -> None:
    before = Life(state=state, failures=2, starts=3, wanted=True)
    after, _ = step(before, event, 1.0, 0.5, POLICY)
    assert cause(before, event, after) == word
