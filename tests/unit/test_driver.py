"""A worker's loop and a supervisor that does not listen for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from mpq_worker.channel import Channel, pair
from mpq_worker.contract import Drained, FromWorker, Heartbeat, PeerMoved, ToWorker
from mpq_worker.driver import Driver


def test_what_meets_a_full_channel_is_said_later_and_once() -> None:
    said: list[FromWorker] = [PeerMoved(("10.200.11.5",)), Drained()]
    ours, theirs = pair()
    with ours, theirs:
        supervisor: Channel[FromWorker] = Channel(theirs, FromWorker)
        driver = driver_of(Channel(ours, ToWorker), said)
        while driver._tell(Heartbeat(1, 1)):
            pass
        driver._flush(0.0)
        driver._flush(0.1)
        assert [message for message in everything(supervisor) if not isinstance(message, Heartbeat)] == []
        driver._flush(0.2)
        driver._flush(0.3)
        assert everything(supervisor) == said


def driver_of(channel: Channel[ToWorker], said: Iterable[FromWorker]) -> Driver:
    """With a core that has nothing but these words to say."""
    words = deque(said)
    driver = Driver(channel, cast(Any, None), cast(Any, None))
    driver._core = cast(
        Any,
        SimpleNamespace(
            poll_transmit=lambda now: [],
            poll_packet=lambda: None,
            poll_message=lambda: words.popleft() if words else None,
            poll_timeout=lambda: None,
            stopped=False,
        ),
    )
    driver._socket, driver._links = cast(Any, object()), cast(Any, SimpleNamespace(look=lambda now: None))
    return driver


def everything(channel: Channel[FromWorker]) -> list[FromWorker]:
    messages = []
    while (received := channel.receive()) is not None:
        messages.append(received[0])
    return messages
