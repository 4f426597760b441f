"""What must hold of the life-cycle after any history: a model of whoever executes its actions."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpq_supervisor.happenings import (
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
)
from mpq_supervisor.lifecycle import Life, State, step
from tests.unit.test_lifecycle import ALIVE, POLICY, RESTARTING


class Histories(RuleBasedStateMachine):
    """A model of whoever executes the actions: at most one process, at most one timer, nothing lost."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.now = 0.0
        self.process = self.other = False
        self.killed = False
        self.timer: type[BackoffElapsed] | type[StopTimeout] | type[HandoverTimeout] | None = None
        self.wanted = False

    def feed(self, event: Event, chance: float = 0.5) -> None:
        before = self.life.state
        self.life, actions = step(self.life, event, self.now, chance, POLICY)
        if self.life.state is not before:
            self.timer = None
        for action in actions:
            match action:
                case Fork():
                    assert not self.process, "two processes at once"
                    self.process, self.killed = True, False
                case Kill():
                    assert self.process
                    self.killed = True
                case SendStop() | SendRebind() | SendDrain() | SendLead():
                    assert self.process
                case ForkSuccessor():
                    assert self.process
                    assert not self.other, "three processes at once"
                    self.other = True
                case Promote():
                    assert self.other
                    self.process, self.other, self.killed = True, self.process, False
                case Discard():
                    self.other = False
                case Retire():
                    self.timer = None
                case ArmBackoff(delay=delay):
                    assert 0 <= delay <= POLICY.backoff_max
                    self.timer = BackoffElapsed
                case ArmStop():
                    self.timer = StopTimeout
                case ArmHandover():
                    self.timer = HandoverTimeout

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(event=st.sampled_from([LinkUp(), LinkDown("down"), Ready(), PeerSilent(), PeerBack()]))
    def something_happens(self, event: Event) -> None:
        self.feed(event)

    @rule(event=st.sampled_from([HeartbeatMissed(2.0), MemoryExceeded(1), Unfit("x")]))
    def watchdog_barks(self, event: Event) -> None:
        self.feed(event)

    @rule(event=st.sampled_from([StartWanted(), RestartWanted(), StopWanted()]))
    def operator(self, event: Event) -> None:
        self.wanted = not isinstance(event, StopWanted)
        self.feed(event)

    @precondition(lambda self: self.process)
    @rule(status=st.sampled_from([0, 1, 70, 75, 77, 78, -9, None]), chance=st.floats(0, 1, exclude_max=True))
    def process_ends(self, status: int | None, chance: float) -> None:
        self.process = False
        self.feed(Exited(-9 if self.killed else status), chance)

    @precondition(lambda self: self.other)
    @rule(event=st.sampled_from([SuccessorReady(), SuccessorLost("x"), PredecessorGone(0), Drained()]))
    def restart_goes_on(self, event: Event) -> None:
        if isinstance(event, SuccessorReady) and self.life.state is not State.REPLACING:
            return
        if isinstance(event, PredecessorGone) != (self.life.state is State.RETIRING):
            return
        if isinstance(event, SuccessorLost | PredecessorGone):
            self.other = False
        self.feed(event)

    @precondition(lambda self: self.timer is not None)
    @rule()
    def timer_fires(self) -> None:
        assert self.timer is not None
        timer, self.timer = self.timer, None
        self.feed(timer())

    @invariant()
    def process_exists_exactly_where_it_should(self) -> None:
        assert self.process == (self.life.state in ALIVE)

    @invariant()
    def a_second_process_exists_in_restarts_only(self) -> None:
        assert self.other == (self.life.state in RESTARTING)

    @invariant()
    def wish_is_never_forgotten(self) -> None:
        if self.life.state is State.STOPPED:
            assert not self.wanted
        if self.life.state is State.STOPPING:
            assert self.life.wanted == self.wanted
        assert not self.life.again or self.life.state in (State.DRAINING, State.RETIRING)

    @invariant()
    def nothing_is_stuck(self) -> None:
        if self.life.state is State.BACKOFF:
            assert self.timer is BackoffElapsed
        if self.life.state is State.STOPPING:
            assert self.killed or self.timer is StopTimeout
        if self.life.state is State.WAITING:
            assert self.life.obstacle


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30)
