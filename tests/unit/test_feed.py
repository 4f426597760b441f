"""The feed: everything arrives in order where somebody reads, and nothing is held where nobody does."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec
import pytest

from mpq_supervisor.events import Kind, marks
from mpq_supervisor.feed import MAX_LINES, Feed
from mpq_supervisor.portal.messages import HostSample, Line, Message, Setup, WorkerSample
from mpq_supervisor.status import HostStatus, WorkerStatus
from mpq_worker.channel import Channel, pair
from tests.unit.samples import SETUP, WORKER

LOG = logging.getLogger("test.feed")


class Fed:
    """A feed with somebody at its other end."""

    def __init__(self) -> None:
        self.workers: tuple[WorkerStatus, ...] = (WORKER,)
        self.feed = Feed(lambda: HostStatus("site", "ship1", 1, 5.0, 2, 0, self.workers, ()))
        LOG.addHandler(self.feed)
        LOG.setLevel(logging.DEBUG)
        ours, theirs = pair()
        self.end = Channel[Message](theirs, Message)
        self.feed.open(ours, SETUP)

    def close(self) -> None:
        LOG.removeHandler(self.feed)
        self.feed.close_channel()
        self.end.close()

    def told(self) -> list[Message]:
        found = []
        while (received := self.end.receive()) is not None:
            found.append(received[0])
        return found


@pytest.fixture
def fed() -> Iterator[Fed]:
    fed = Fed()
    yield fed
    fed.close()


def test_setup_comes_first_then_lines_then_samples(fed: Fed) -> None:
    LOG.info("%s: said", "cr2", extra=marks(Kind.NOTICE, wan="wan5", reason="why"))
    LOG.debug("not for the portal")
    fed.feed.tick(10.0)
    setup, line, worker, host = fed.told()
    assert isinstance(setup, Setup)
    assert isinstance(line, Line)
    assert line.marks is not None
    assert (line.text, line.marks.wan, line.marks.reason) == ("cr2: said", "wan5", "why")
    assert worker == WorkerSample(worker.at, WORKER)  # type: ignore[union-attr]  # what has no `at` fails here
    assert isinstance(host, HostSample)
    assert host.workers == ("cr2",)


def test_samples_come_once_a_second_and_at_once_when_a_state_changed(fed: Fed) -> None:
    for now in (10.0, 10.25, 10.5, 10.75):
        fed.feed.tick(now)
    assert len(fed.told()) == 3
    fed.feed.tick(11.0)
    assert len(fed.told()) == 2
    LOG.info("UP → DEGRADED", extra=marks(Kind.STATE))
    fed.feed.tick(11.25)
    assert [type(message) for message in fed.told()] == [Line, WorkerSample, HostSample]


def test_who_does_not_read_gets_the_newest_lines_and_the_count_of_the_lost(fed: Fed) -> None:
    fed.workers = tuple(msgspec.structs.replace(WORKER, name=f"w{n}") for n in range(200))
    for second in range(10):
        fed.feed.tick(float(second))
    before = fed.feed.lost
    assert before > 0
    for n in range(MAX_LINES + 7):
        LOG.info("line %d", n)
    assert fed.feed.lost == before + 7
    fed.told()
    lines: list[Message] = []
    for second in range(100, 120):
        fed.feed.tick(float(second))
        lines += [message for message in fed.told() if isinstance(message, Line)]
    assert [line.text for line in lines if isinstance(line, Line)] == [f"line {n}" for n in range(7, MAX_LINES + 7)]


def test_what_can_never_be_sent_does_not_block_the_rest(fed: Fed) -> None:
    fed.workers = (msgspec.structs.replace(WORKER, name="big", reason="x" * 200_000), WORKER)
    fed.feed.tick(10.0)
    assert [message.worker.name for message in fed.told() if isinstance(message, WorkerSample)] == ["cr2"]
    assert fed.feed.lost == 1


def test_without_a_portal_lines_wait_for_it(fed: Fed) -> None:
    fed.feed.close_channel()
    LOG.info("meanwhile")
    fed.feed.tick(10.0)
    ours, theirs = pair()
    fed.end.close()
    fed.end = Channel[Message](theirs, Message)
    fed.feed.open(ours, SETUP)
    fed.feed.tick(10.25)
    assert [message.text for message in fed.told() if isinstance(message, Line)] == ["meanwhile"]


def test_a_new_portal_is_told_nothing_stale(fed: Fed) -> None:
    """The host comes after its workers, or it would seem to have none."""
    fed.workers = tuple(msgspec.structs.replace(WORKER, name=f"w{n}") for n in range(400))
    fed.feed.tick(10.0)
    assert fed.feed._samples
    fed.end.close()
    ours, theirs = pair()
    fed.end = Channel[Message](theirs, Message)
    fed.workers = (WORKER,)
    fed.feed.open(ours, SETUP)
    fed.feed.tick(10.25)
    assert [type(message) for message in fed.told()] == [Setup, WorkerSample, HostSample]
