"""Who may begin a connection: the first few, then those who prove their address, then nobody."""

from __future__ import annotations

from typing import cast

import pytest

from mpq_worker import admission
from mpq_worker.admission import HELLO_TIME, Accept, Admission
from mpq_worker.contract import Limits
from mpq_worker.errors import DropReason
from mpq_worker.peer import Peer
from mpq_worker.quic.header import Header
from mpq_worker.quic.retry import LIFETIME, RetryTokens
from tests.unit.test_retry import second

LIMITS = Limits(connections=20, handshakes=6, per_source=2, retry_from=2)
NOW = 1000.0


class Crowd:
    """Strangers from many addresses."""

    def __init__(self) -> None:
        self.admission = Admission(RetryTokens(b"r" * 32, 5), LIMITS)
        self.count = 0

    def initial(self) -> Header:
        self.count += 1
        return Header(b"\x05" + self.count.to_bytes(7, "big"), True, True, b"site-cid")

    def knock(self, host: str, port: int = 1, *, connections: int = 0, now: float = NOW) -> Peer | bytes | DropReason:
        """An Initial and, if a Retry comes back, the next one with its token."""
        return self.come(self.initial(), host, port, connections=connections, now=now)

    def come(
        self, initial: Header, host: str, port: int = 1, *, connections: int = 0, now: float = NOW
    ) -> Peer | bytes | DropReason:
        verdict = self.admission.judge(initial, (host, port), connections, now)
        if isinstance(verdict, bytes):
            return self.come(second(verdict), host, port, connections=connections, now=now)
        if isinstance(verdict, Accept):
            peer = cast(Peer, object())
            self.admission.begin(peer, verdict, now)
            return peer
        return verdict


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


def test_the_first_need_no_token(crowd: Crowd) -> None:
    for port in range(LIMITS.retry_from):
        verdict = crowd.admission.judge(crowd.initial(), ("192.0.2.1", port), 0, NOW)
        assert isinstance(verdict, Accept)
        assert verdict.retry_cid is None
        crowd.admission.begin(cast(Peer, object()), verdict, NOW)
    assert isinstance(crowd.admission.judge(crowd.initial(), ("192.0.2.1", 99), 0, NOW), bytes)


def test_whoever_spoofs_gets_no_more_than_that(crowd: Crowd) -> None:
    for number in range(1000):
        verdict = crowd.admission.judge(crowd.initial(), (f"192.0.2.{number % 256}", number), 0, NOW)
        if isinstance(verdict, Accept):
            crowd.admission.begin(cast(Peer, object()), verdict, NOW)
    assert len(crowd.admission) == LIMITS.retry_from
    assert not isinstance(crowd.knock("198.51.100.9"), bytes | DropReason)


def test_who_is_gone_keeps_its_place_for_its_time(crowd: Crowd) -> None:
    """So the threshold bounds the rate as well, of those who prove their address and of those who do not."""
    for number in range(LIMITS.retry_from):
        assert crowd.admission.lose(cast(Peer, crowd.knock(f"192.0.2.{number}")))
    later = NOW + HELLO_TIME - 0.1
    assert isinstance(crowd.admission.judge(crowd.initial(), ("192.0.2.9", 1), 0, later), bytes)
    for port in range(LIMITS.per_source):
        assert crowd.admission.lose(cast(Peer, crowd.knock("198.51.100.1", port, now=later)))
    assert crowd.knock("198.51.100.1", 99, now=later) is DropReason.LIMIT
    assert crowd.admission.overdue(NOW + HELLO_TIME) == []
    assert isinstance(crowd.admission.judge(crowd.initial(), ("192.0.2.9", 1), 0, later), bytes)
    assert crowd.admission.overdue(later + HELLO_TIME) == []
    assert not len(crowd.admission)
    assert not crowd.admission._sources
    assert crowd.admission.deadline() is None


def test_handshakes_are_bounded(crowd: Crowd) -> None:
    verdicts = [crowd.knock(f"192.0.2.{number}") for number in range(8)]
    assert [isinstance(verdict, DropReason) for verdict in verdicts] == [False] * 6 + [True] * 2
    assert verdicts[-1] is DropReason.LIMIT


@pytest.mark.parametrize(
    ("hosts", "fits"),
    [
        pytest.param(["192.0.2.9"] * 3, 2, id="one address"),
        pytest.param([f"2001:db8::{n}" for n in range(3)], 2, id="one /64"),
        pytest.param([f"2001:db8:0:{n}::1" for n in range(3)], 3, id="three /64"),
    ],
)
def test_one_source_gets_its_share(crowd: Crowd, hosts: list[str], fits: int) -> None:
    for number in range(LIMITS.retry_from):
        crowd.knock("192.0.2.1", number)
    guests = [peer for host in hosts if not isinstance(peer := crowd.knock(host), bytes | DropReason)]
    assert len(guests) == fits
    for peer in guests:
        crowd.admission.admit(peer)
    assert not crowd.admission.lose(guests[0])  # it is no stranger any more
    assert not isinstance(crowd.knock(hosts[0]), bytes | DropReason)


def test_connections_are_bounded_in_all(crowd: Crowd) -> None:
    assert crowd.knock("192.0.2.1", connections=LIMITS.connections) is DropReason.LIMIT
    assert crowd.knock("192.0.2.1", connections=LIMITS.connections - 1) is not DropReason.LIMIT


def test_a_token_is_good_once(crowd: Crowd) -> None:
    for number in range(LIMITS.retry_from):
        crowd.knock("192.0.2.1", number)
    retry = crowd.admission.judge(crowd.initial(), ("192.0.2.2", 7), 0, NOW)
    assert isinstance(retry, bytes)
    answer = second(retry)
    peer = crowd.come(answer, "192.0.2.2", 7)
    assert not isinstance(peer, bytes | DropReason)
    crowd.admission.admit(peer)
    assert crowd.come(answer, "192.0.2.2", 7) is DropReason.TOKEN
    assert crowd.come(answer, "192.0.2.2", 7, now=NOW + LIFETIME) is DropReason.TOKEN
    assert crowd.come(answer, "192.0.2.2", 8) is DropReason.TOKEN


def test_a_token_that_met_a_full_house_is_not_used_up(crowd: Crowd) -> None:
    strangers = [crowd.knock(f"192.0.2.{number}") for number in range(5)]
    retry = crowd.admission.judge(crowd.initial(), ("198.51.100.1", 7), 0, NOW)
    assert isinstance(retry, bytes)
    strangers.append(crowd.knock("192.0.2.100"))
    answer = second(retry)
    assert crowd.come(answer, "198.51.100.1", 7) is DropReason.LIMIT
    crowd.admission.admit(cast(Peer, strangers[0]))
    assert not isinstance(crowd.come(answer, "198.51.100.1", 7), bytes | DropReason)


def test_what_is_remembered_of_tokens_is_bounded(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_REDEEMED", 3)
    for number in range(LIMITS.retry_from):
        crowd.knock("192.0.2.1", number)
    for number in range(10):
        peer = crowd.knock("198.51.100.1", number, now=NOW + number)
        assert not isinstance(peer, bytes | DropReason)
        crowd.admission.admit(peer)
    assert len(crowd.admission._redeemed) == 3
    crowd.knock("198.51.100.1", 99, now=NOW + 100)
    assert len(crowd.admission._redeemed) == 1


def test_time_is_over(crowd: Crowd) -> None:
    assert crowd.admission.deadline() is None
    first, later = crowd.knock("192.0.2.1"), crowd.knock("192.0.2.2", now=NOW + 1)
    assert crowd.admission.deadline() == NOW + HELLO_TIME
    assert crowd.admission.overdue(NOW + HELLO_TIME - 0.001) == []
    assert crowd.admission.overdue(NOW + HELLO_TIME) == [first]
    assert crowd.admission.deadline() == NOW + 1 + HELLO_TIME
    assert crowd.admission.overdue(NOW + HELLO_TIME + 1) == [later]
