"""What a worker says of itself is not lost in what others make it say."""

from __future__ import annotations

from mpq_worker.contract import Drained, FromWorker, Notice, PeerMoved, Ready, SignRequest
from mpq_worker.mailbox import MAX_MESSAGES, Mailbox


def test_own_words_have_room_and_come_first() -> None:
    mailbox = Mailbox()
    others: list[FromWorker] = [PeerMoved(("10.200.11.5",)), Notice("site", "ship1"), SignRequest(1, "tls", b"")]
    caused = [others[number % 3] for number in range(MAX_MESSAGES)]
    assert all(mailbox.put(message) for message in caused)
    assert not any(mailbox.put(message) for message in others)
    assert mailbox.put(Ready())
    assert mailbox.put(Drained())
    assert [mailbox.take() for _ in range(MAX_MESSAGES + 2)] == [Ready(), Drained(), *caused]
    assert mailbox.take() is None


def test_own_words_are_bounded_too() -> None:
    mailbox = Mailbox()
    assert [mailbox.put(Ready()) for _ in range(MAX_MESSAGES + 1)] == [True] * MAX_MESSAGES + [False]
    assert mailbox.put(Notice("a", "b"))
