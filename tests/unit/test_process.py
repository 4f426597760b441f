"""A hub's worker as its supervisor sees it: when its process is configured, what of it is stored and lent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from mpq_supervisor import happenings
from mpq_supervisor.config import parse
from mpq_supervisor.incarnation import Incarnation, Surroundings
from mpq_supervisor.lifecycle import Policy, State
from mpq_supervisor.orders import Entry
from mpq_supervisor.plan import HubWorkerPlan, make_plan
from mpq_supervisor.process import Worker
from mpq_supervisor.survivors import Survivor
from mpq_supervisor.zygote import Process
from mpq_worker.channel import Channel, ChannelClosed, pair
from mpq_worker.contract import (
    CONTRACT_VERSION,
    Adopt,
    ConfigureHub,
    Credentials,
    Drained,
    ExitCode,
    Fork,
    Ready,
    SetSites,
    Started,
    ToWorker,
)

PLAN = make_plan(parse((Path(__file__).parents[2] / "etc" / "hub.toml").read_text()))
PID = 4711
STARTED = Started(PID, CONTRACT_VERSION)


class Rig:
    """One worker; its processes are the other ends of their channels, and pidfds that are none."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.forgotten: list[int] = []  # generations
        self.ends: list[Channel[ToWorker]] = []
        self._null = os.open("/dev/null", os.O_RDWR)
        around = SimpleNamespace(
            loop=SimpleNamespace(
                time=lambda: 1000.0,
                call_later=lambda *_: SimpleNamespace(cancel=lambda: None),
                call_soon=lambda *_: None,
                add_reader=lambda *_: None,
                remove_reader=lambda *_: None,
            ),
            plan=PLAN,
            policy=Policy(),
            secrets=SimpleNamespace(
                credentials=Credentials("ca", "certificate"),
                reset_key=lambda _: bytes(32),
                retry_key=lambda _: bytes(32),
            ),
            network=SimpleNamespace(
                hub_fds=lambda *_: (self._null, self._null),
                admit=lambda *_: None,
                forget=lambda _, generation: self.forgotten.append(generation),
            ),
            zygote=SimpleNamespace(fork=self._fork),
            may_raise_priority=False,
            weights=None,
            store=SimpleNamespace(put=lambda name, _: self.stored.add(name), drop=self.stored.discard),
        )
        self.worker = Worker(PLAN.hub_workers[0], cast(Surroundings, around), lambda _: None)

    def _fork(self, order: Fork, worker_end: int, process: Process) -> bool:
        self.ends.append(Channel[ToWorker].from_fd(os.dup(worker_end), ToWorker))
        return True

    def pidfd(self) -> int:
        """A descriptor to give away."""
        return os.dup(self._null)

    def leader(self) -> Incarnation:
        """There is one."""
        assert self.worker.leader is not None
        return self.worker.leader

    def names(self, version: int = CONTRACT_VERSION) -> set[str]:
        """What is to be stored of the leader."""
        leader = self.leader()
        where = f"{self.worker.name}/{leader.generation}"
        return {f"channel/{where}/{version}/{leader.fingerprint}", f"pidfd/{where}"}

    def up(self) -> Incarnation:
        """It is UP, by a process of generation 0."""
        self.worker.feed(happenings.StartWanted())
        leader = self.configured(self.leader())
        self.worker.on_message(leader, Ready())
        return leader

    def configured(self, who: Incarnation | None) -> Incarnation:
        """A process that has been ordered, from now on."""
        assert who is not None
        who.process.begin(PID, self.pidfd())
        self.worker.on_message(who, STARTED)
        return who

    def told(self, end: int = -1) -> list[ToWorker]:
        """What a process has been told since."""
        messages = list[ToWorker]()
        while (received := self.ends[end].receive()) is not None:
            messages.append(received[0])
            for fd in received[1]:
                os.close(fd)
        return messages

    def heard(self, end: int = -1) -> list[type]:
        """The kinds of that."""
        return [type(message) for message in self.told(end)]

    def close(self) -> None:
        """Nobody is left."""
        while processes := self.worker.processes:  # after the first end there may be others
            for process in processes:
                process.end(None)
        for end in self.ends:
            end.close()
        os.close(self._null)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.mark.parametrize("born_first", [True, False])
def test_a_process_is_configured_once_it_is_known_by_pid_and_has_said_started(rig: Rig, born_first: bool) -> None:
    rig.worker.feed(happenings.StartWanted())
    leader = rig.leader()
    steps: list[Callable[[], None]] = [
        lambda: leader.process.begin(PID, rig.pidfd()),
        lambda: rig.worker.on_message(leader, STARTED),
    ]
    first, second = steps if born_first else steps[::-1]
    first()
    assert rig.heard() == []
    second()
    assert rig.heard() == [ConfigureHub]


def test_a_process_lost_with_its_zygote_before_it_was_known_has_nothing_and_sees_the_end(rig: Rig) -> None:
    rig.worker.feed(happenings.StartWanted())
    rig.worker.on_message(rig.leader(), STARTED)
    rig.leader().process.end(None)
    with pytest.raises(ChannelClosed):
        rig.ends[0].receive()


def test_only_a_configured_leader_is_stored(rig: Rig) -> None:
    """The next supervisor says Adopt, and throws away whatever was said before."""
    rig.worker.feed(happenings.StartWanted())
    leader = rig.leader()
    leader.process.begin(PID, rig.pidfd())
    assert rig.stored == set()
    rig.worker.on_message(leader, STARTED)
    assert rig.stored == rig.names()
    leader.process.end(0)
    assert rig.stored == set()


def test_a_successor_that_inherits_is_stored_once_it_is_configured(rig: Rig) -> None:
    rig.worker.feed(happenings.StartWanted())
    first = rig.leader()
    first.process.begin(PID, rig.pidfd())
    rig.worker.on_message(first, STARTED)
    rig.worker.on_message(first, Ready())
    rig.worker.feed(happenings.RestartWanted())
    assert rig.stored == rig.names()
    first.process.end(-9)
    second = rig.leader()
    assert second is not first
    second.process.begin(PID + 1, rig.pidfd())
    assert rig.stored == set()
    rig.worker.on_message(second, STARTED)
    assert rig.stored == rig.names()


def test_a_process_is_stored_under_its_own_version(rig: Rig) -> None:
    """Of the next release, whose files have replaced ours."""
    rig.worker.feed(happenings.StartWanted())
    leader = rig.leader()
    leader.process.begin(PID, rig.pidfd())
    rig.worker.on_message(leader, Started(PID, CONTRACT_VERSION + 1))
    assert rig.stored == rig.names(CONTRACT_VERSION + 1)


def test_what_was_stored_of_an_adopted_process_stays_until_it_ends_and_no_longer(rig: Rig) -> None:
    names = f"channel/{rig.worker.name}/1/{CONTRACT_VERSION - 1}/abc/more", f"pidfd/{rig.worker.name}/1"
    rig.stored.update(names)
    ours, theirs = pair()
    rig.ends.append(Channel[ToWorker](theirs, ToWorker))
    rig.worker.adopt(Survivor(rig.worker.name, 1, PID, ours.detach(), rig.pidfd(), "abc", names))
    assert rig.heard() == [Adopt, SetSites]
    assert rig.stored == set(names)
    rig.leader().process.end(0)
    assert rig.stored == set()


def without_ship1(entry: Entry) -> HubWorkerPlan:
    """The same worker after the first of its sites was revoked."""
    assert isinstance(entry, HubWorkerPlan)
    first, *others = entry.sites
    return msgspec.structs.replace(entry, sites=(msgspec.structs.replace(first, inner=(), prefixes=()), *others))


def test_a_change_of_sites_before_a_process_is_configured_is_not_lost(rig: Rig) -> None:
    rig.worker.feed(happenings.StartWanted())
    new = without_ship1(rig.worker.entry)
    rig.worker.replace_entry(new)
    rig.configured(rig.leader())
    (message,) = rig.told()
    assert isinstance(message, ConfigureHub)
    assert message.sites == new.sites


def test_a_change_of_sites_during_a_restart_reaches_both_processes(rig: Rig) -> None:
    rig.up()
    rig.worker.feed(happenings.RestartWanted())
    rig.told(0)
    new = without_ship1(rig.worker.entry)
    rig.worker.replace_entry(new)
    rig.configured(rig.worker.other)
    assert rig.told(0) == [SetSites(new.sites)]
    (message,) = rig.told(1)
    assert isinstance(message, ConfigureHub)
    assert message.sites == new.sites


@pytest.mark.parametrize("drains", [False, True])
def test_a_leader_that_dies_in_its_restart_gives_up_its_slot(rig: Rig, drains: bool) -> None:
    leader = rig.up()
    rig.worker.feed(happenings.RestartWanted())
    successor = rig.configured(rig.worker.other)
    if drains:
        rig.worker.on_message(successor, Ready())
        assert rig.worker.life.state is State.DRAINING
    leader.process.end(-9)
    assert rig.leader() is successor
    assert rig.forgotten == [0]


def test_a_restart_gives_up_the_old_slot_when_the_old_process_has_gone(rig: Rig) -> None:
    leader = rig.up()
    rig.worker.feed(happenings.RestartWanted())
    rig.worker.on_message(rig.configured(rig.worker.other), Ready())
    rig.worker.on_message(leader, Drained())
    assert rig.forgotten == []
    leader.process.end(0)
    assert rig.forgotten == [0]


def test_a_crash_keeps_the_slot_for_the_next_process(rig: Rig) -> None:
    rig.up().process.end(-9)
    rig.leader().process.end(-9)
    assert rig.worker.life.state is State.BACKOFF
    assert rig.forgotten == []


@pytest.mark.parametrize("end", ["stopped", "stopped while it waits", "failed"])
def test_a_worker_that_is_down_has_no_slot(rig: Rig, end: str) -> None:
    leader = rig.up()
    if end == "stopped":
        rig.worker.feed(happenings.StopWanted())
        assert rig.forgotten == []
        leader.process.end(0)
    elif end == "failed":
        leader.process.end(ExitCode.NOPERM)
    else:
        leader.process.end(-9)
        rig.leader().process.end(-9)
        rig.worker.feed(happenings.StopWanted())
    assert rig.worker.life.state is (State.FAILED if end == "failed" else State.STOPPED)
    assert rig.forgotten == [0]
