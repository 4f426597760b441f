"""The webhook's queue: what a receiver took is out of the file at once."""

from __future__ import annotations

import asyncio

import pytest

from mpq_supervisor.portal.alarm_models import Alarm
from mpq_supervisor.portal.webhook import Outbox, Webhook

ALARM = Alarm(
    id="gone/br2", rule="gone", kind="down", severity="critical", subject="br2", tunnel="br2", wan="wan5",
    traffic_class="bulk", value=1.0, above=0.0, since=1e9,
)  # fmt: skip


def test_each_delivery_is_told_when_the_queue_is_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Webhook, "_post", lambda *_: "")
    waiting: list[list[int]] = []

    async def body() -> None:
        webhook = Webhook("http://192.0.2.1/", b"", Outbox(), lambda: waiting.append(ids()))

        def ids() -> list[int]:
            return [message.id for message in webhook.outbox().queue]

        for raised in (True, False):
            webhook.put("ship1", 1e9, raised, ALARM)
        task = asyncio.create_task(webhook.run())
        async with asyncio.timeout(5):
            while len(waiting) < 2:  # noqa: ASYNC110 - the post is in another thread
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(body())
    assert waiting == [[2], []]
