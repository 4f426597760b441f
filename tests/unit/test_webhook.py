"""The sender: what a receiver took is out of the file at once, and no URL ends it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mpq_supervisor.portal import webhook as webhook_module
from mpq_supervisor.portal.outbox import Kept, Outbox
from mpq_supervisor.portal.webhook import Webhook
from tests.unit.test_outbox import ALARM, OVER, RAISED

BAD_URLS = (
    "http://127.0.0.1:port/", "http://127.0.0.1:99999/", "http://[::1/", "http://a b/", "http:///nowhere",
    "http://127.0.0.1:1/ä", "http://" + "x" * 64 + ".example/", "http://user:secret@127.0.0.1:1/", "http://a..b/",
    "nonsense", "", "http://127.0.0.1:1/a\nb", "https://%0a/", "gopher://127.0.0.1/",
)  # fmt: skip


def filled() -> Outbox:
    outbox = Outbox("one", Kept())
    for active, change in (({"a/cr2": ALARM}, RAISED), ({}, OVER)):
        outbox.follow(active, [change], lambda _: False, "ship1", 1e9)
    return outbox


def test_each_delivery_is_told_when_the_queue_is_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Webhook, "_post", lambda *_: "")
    waiting: list[list[int]] = []

    async def body() -> None:
        webhook = Webhook("http://192.0.2.1/", b"", filled(), lambda: waiting.append(ids()))

        def ids() -> list[int]:
            return [message.id for message in webhook.outbox.kept().queue]

        task = asyncio.create_task(webhook.run())
        async with asyncio.timeout(5):
            while len(waiting) < 2:  # noqa: ASYNC110 - the post is in another thread
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(body())
    assert waiting == [[2], []]


@pytest.mark.parametrize("url", BAD_URLS, ids=range(len(BAD_URLS)))
def test_no_url_ends_it_and_each_failure_is_counted(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook_module, "PAUSE", (0.001, 0.001))

    async def body() -> None:
        webhook = Webhook(url, b"", filled(), lambda: None)
        task = asyncio.create_task(webhook.run())
        async with asyncio.timeout(5):
            while webhook.failures < 3:  # noqa: ASYNC110 - the post is in another thread
                await asyncio.sleep(0.001)
        assert not task.done()
        assert webhook.outbox.waiting == 2
        task.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(body())
    assert caplog.text.count("webhook: ") >= 3
    assert "secret" not in caplog.text
