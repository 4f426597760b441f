"""What the alarms of a portal are fed with, and what outlives it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec

from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.history.query import History
from mpq_supervisor.portal.history.samples import Batch, Row
from mpq_supervisor.portal.history.store import Store
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.portal.state import State
from mpq_supervisor.portal.watch import FILE_NAME, VOLUME_INTERVAL, Watch
from mpq_supervisor.schema import Alarm as Rule
from mpq_supervisor.schema import Webhook
from mpq_supervisor.status import WanCounters, WorkerStatus
from tests.unit.samples import SETUP, changed, state_with

QUOTA = Rule(name="metered", kind="quota", above=1.0)
DOWN = Rule(name="gone", kind="down", seconds=0.0)
HOOK = Webhook(url="https://alarms.example.net/of-the-secret", secret_file="/s")
T = 1_000_000_000


def watch_of(directory: Path, *rules: Rule, webhook: Webhook | None = None, role: str = "site") -> Watch:
    setup = msgspec.structs.replace(SETUP, directory=str(directory), alarms=rules, webhook=webhook, role=role)
    return Watch(setup, Journal(), History(directory), b"")


def carry(directory: Path, t: int, **volumes: int) -> None:
    """These tunnels of wan5 carry so many bytes in the second `t`."""
    store = Store(directory, 16)
    rows = (
        Row(name, "tunnel", "wan5", "critical", True, True, None, None, None, None, volume, 0, 0)
        for name, volume in volumes.items()
    )
    store.add(Batch(t, tuple(rows), ()))
    store.close()
    Store(directory, 16).close()  # adds up what the last one left


def raised(watch: Watch) -> list[str]:
    return list(watch.alarms.active)


def test_a_quota_counts_what_a_hubs_workers_carried_that_are_not_there_any_more(tmp_path: Path) -> None:
    carry(tmp_path, T, cr2=600_000_000, br2=600_000_000)
    watch = watch_of(tmp_path, QUOTA, role="hub")
    watch.look(state_with(changed()), 1.0, T)
    assert raised(watch) == ["metered/wan5"]


def test_a_quota_stays_when_the_history_cannot_be_read(tmp_path: Path) -> None:
    carry(tmp_path, T, cr2=1_200_000_000)
    watch = watch_of(tmp_path, QUOTA, role="hub")
    watch.look(state_with(changed()), 1.0, T)
    for path in tmp_path.glob("history.*"):
        path.write_bytes(b"nonsense")
    later = watch_of(tmp_path, QUOTA, role="hub")
    for second in range(3):
        later.look(state_with(changed()), 1.0 + second * VOLUME_INTERVAL, T + 32 * 86_400)
    assert raised(later) == ["metered/wan5"]


def test_a_sites_quota_counts_what_its_interfaces_carried_also_without_a_portal(tmp_path: Path) -> None:
    def look(t: float, received: int, watch: Watch) -> list[str]:
        state = state_with(changed())
        assert state.host is not None
        wans = {"wan5": WanCounters("eth1", received, 0)}
        state.host = msgspec.structs.replace(state.host, wans=wans)
        watch.look(state, t, T + t)
        return raised(watch)

    first = watch_of(tmp_path, QUOTA)
    assert look(1.0, 7_000_000_000, first) == []
    assert look(2.0, 7_900_000_000, first) == []
    assert look(3.0, 7_900_000_000, watch_of(tmp_path, QUOTA)) == [], "killed: the first look alone is written down"
    assert look(4.0, 8_000_000_001, watch_of(tmp_path, QUOTA)) == ["metered/wan5"]


def test_what_was_told_outlives_the_portal_and_the_url_is_not_in_the_file(tmp_path: Path) -> None:
    async def body() -> None:
        def look(*rules: Rule, **changes: object) -> list[tuple[bool, str]]:
            watch = watch_of(tmp_path, *rules, webhook=HOOK)
            watch.look(at(changed(**changes)), 1.0, T)
            assert watch.webhook is not None
            delivery = watch.delivery()
            assert delivery is not None
            queue = watch.webhook.outbox.kept().queue
            assert delivery.waiting == len(queue)
            return [(message.raised, message.reason) for message in queue]

        def at(worker: WorkerStatus) -> State:
            state = state_with(worker)
            state.take(WorkerSample(1.0, worker), 1.0)
            return state

        assert look(DOWN, state=Life.BACKOFF) == [(True, "")]
        assert look(DOWN, state=Life.BACKOFF) == [(True, "")]
        assert look() == [(True, ""), (False, "rule")]
        assert look(DOWN, state=Life.BACKOFF) == [(True, ""), (False, "rule"), (True, "")]

    asyncio.run(body())
    text = (tmp_path / FILE_NAME).read_text()
    assert "secret" not in text
    assert len(json.loads(text)["outbox"]["queue"]) == 3


def test_without_a_receiver_what_was_told_is_kept(tmp_path: Path) -> None:
    watch = watch_of(tmp_path, DOWN, webhook=HOOK)
    watch.look(state_with(changed(state=Life.BACKOFF)), 1.0, T)
    without = watch_of(tmp_path, DOWN)
    without.look(state_with(changed()), 1.0, T + 1)
    assert without.delivery() is None
    again = watch_of(tmp_path, DOWN, webhook=HOOK)
    again.look(state_with(changed()), 1.0, T + 2)
    assert again.webhook is not None
    assert [message.raised for message in again.webhook.outbox.kept().queue] == [True, False]
