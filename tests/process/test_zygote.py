"""What the zygote's workers are, and may not do; what becomes of them when the zygote goes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyprctl
import pytest

from mpq_supervisor.zygote import Process, Zygote
from mpq_worker.channel import Channel, pair
from mpq_worker.contract import Fork, FromWorker, Heartbeat, Notice, Started
from tests.process.conftest import FAKE_ZYGOTE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
UID = 47900
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    pyprctl.set_child_subreaper(True)
    yield
    pyprctl.set_child_subreaper(False)


class Nursery:
    """A zygote and workers forked from it, without a fleet."""

    def __init__(self, command: tuple[str, ...] = FAKE_ZYGOTE) -> None:
        self.loop = asyncio.get_running_loop()
        self.zygote = Zygote(self.loop, command)
        self.statuses: dict[str, int | None] = {}

    async def __aenter__(self) -> Nursery:
        self.zygote.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.zygote.close()

    def fork(self, name: str, uid: int = UID, nice: int = 0) -> Process:
        ours, theirs = pair()
        channel = Channel[FromWorker](ours, FromWorker)
        process = Process(name, channel, lambda pid: None, lambda status: self.statuses.__setitem__(name, status))
        with theirs:
            assert self.zygote.fork(Fork(0, name, uid, uid, nice), theirs.fileno(), process)
        return process

    async def hear(self, process: Process, kind: type) -> object:
        """The next message of this kind; other ones are passed over."""
        async with asyncio.timeout(8):
            while True:
                received = process.channel.receive()
                if received is None:
                    await asyncio.sleep(0.005)
                elif isinstance(received[0], kind):
                    return received[0]

    async def started(self, process: Process) -> int:
        message = await self.hear(process, Started)
        assert isinstance(message, Started)
        await self.until(lambda: process.pid is not None)
        assert process.pid == message.pid
        return message.pid

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(8):
            while not condition():  # noqa: ASYNC110 - a process's doings set no event
                await asyncio.sleep(0.005)

    async def tick_until(self, condition: Callable[[], bool]) -> None:
        """Does what the fleet does for the zygote."""

        def tick() -> bool:
            self.zygote.tick(self.loop.time())
            return condition()

        await self.until(tick)

    async def answered(self) -> int:
        """The zygote's pid, once it has answered a Ping."""
        await self.tick_until(lambda: self.zygote.rss > 0)
        assert self.zygote.pid is not None
        return self.zygote.pid

    async def spare(self) -> psutil.Process:
        """The process that waits for an order."""

        def spares() -> list[psutil.Process]:
            children = psutil.Process(self.zygote.pid).children()
            return [child for child in children if child.name() == "mpq-spare"]

        def waits() -> bool:
            try:
                return [spare.status() for spare in spares()] == [psutil.STATUS_SLEEPING]
            except psutil.NoSuchProcess:  # it went while we looked
                return False

        await self.until(waits)
        [spare] = spares()
        return spare

    async def end(self, *processes: Process) -> None:
        for process in processes:
            process.kill()
        await self.until(lambda: all(process.name in self.statuses for process in processes))
        for process in processes:
            process.channel.close()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


NOTHING = "0" * 16


def test_workers_are_isolated(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            workers = [nursery.fork(f"w{n}", UID + n, nice=n) for n in range(5)]
            for n, worker in enumerate(workers):
                status = status_of(await nursery.started(worker))
                assert status["Uid"].split() == [str(UID + n)] * 4
                assert status["Gid"].split() == [str(UID + n)] * 4
                assert status["Groups"] == ""
                assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {NOTHING}
                assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
                assert status["Name"] == f"mpq-w{n}"
                assert os.getpriority(os.PRIO_PROCESS, worker.pid or 0) == n
            await nursery.end(*workers)
            assert set(nursery.statuses.values()) == {-signal.SIGKILL}

    run(body())


def test_worker_can_do_nothing_it_should_not(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, public = tmp_path / "secret", tmp_path / "public"
    secret.write_text("s")
    secret.chmod(0o600)
    public.write_text("p")
    public.chmod(0o666)
    monkeypatch.setenv("MPQ_TEST_SECRET", str(secret))
    monkeypatch.setenv("MPQ_TEST_PUBLIC", str(public))
    outcomes: dict[str, object] = {}

    async def body() -> None:
        monkeypatch.setenv("MPQ_TEST_NEIGHBOUR", str(os.getpid()))
        async with Nursery() as nursery:
            worker = nursery.fork("probe")
            while not outcomes or "cwd" not in outcomes:
                notice = await nursery.hear(worker, Notice)
                assert isinstance(notice, Notice)
                name, outcome = json.loads(notice.text)
                outcomes[name] = outcome
            await nursery.end(worker)

    run(body())
    assert outcomes == {
        "kill neighbour": "EPERM",
        "kill self": "EPERM",
        "open secret": "EACCES",
        "open for writing": "EPERM",
        "append to public": "EPERM",
        "list directory": "EPERM",
        "fork": "EPERM",
        "new socket": "EPERM",
        "bind": "EPERM",
        "io_uring_setup": "ENOSYS",
        "memory to execute": "EPERM",
        "set uid 0": "EPERM",
        "raise descriptors": "not allowed to raise maximum limit",
        "lower nice": "EPERM",
        "descriptors": [0, 1, 2, 3],
        "pss": True,
        "cwd": "/",
    }


def test_isolation_that_fails_is_no_worker(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            worker = nursery.fork("root", uid=0)
            await nursery.until(lambda: "root" in nursery.statuses)
            assert nursery.statuses == {"root": 77}
            worker.channel.close()

    run(body())


def test_two_hundred_forks_leave_nothing_behind(run: Run) -> None:
    def descriptors(pid: int | str) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    async def body() -> None:
        async with Nursery() as nursery:
            counts: set[tuple[int, int]] = set()
            for generation in range(4):
                workers = [nursery.fork(f"g{generation}n{n}") for n in range(50)]
                for worker in workers:
                    await nursery.started(worker)
                await nursery.end(*workers)
                await nursery.spare()
                counts.add((descriptors("self"), descriptors(nursery.zygote.pid or 0)))
            assert len(counts) == 1
            assert len(nursery.statuses) == 200

    run(body())


def test_spare_becomes_the_next_worker(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            spare = await nursery.spare()
            worker = nursery.fork("taken", nice=3)
            assert await nursery.started(worker) == spare.pid
            status = status_of(spare.pid)
            assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
            assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {NOTHING}
            assert (status["NoNewPrivs"], status["Seccomp"], status["Name"]) == ("1", "2", "mpq-taken")
            assert os.getpriority(os.PRIO_PROCESS, spare.pid) == 3
            assert len(os.listdir(f"/proc/{spare.pid}/fd")) == 4
            assert (await nursery.spare()).pid != spare.pid
            await nursery.end(worker)
            assert nursery.statuses == {"taken": -signal.SIGKILL}

    run(body())


def test_spare_that_died_is_no_worker_and_is_replaced(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            first = await nursery.spare()
            first.kill()
            await nursery.until(lambda: not first.is_running())
            worker = nursery.fork("alive")
            assert await nursery.started(worker) != first.pid
            second = await nursery.spare()
            assert second.pid not in (first.pid, worker.pid)
            await nursery.end(worker)

    run(body())


def test_no_spare_stays_behind(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            orphan = await nursery.spare()
            await nursery.answered()
            os.kill(nursery.zygote.pid or 0, signal.SIGKILL)
            await nursery.tick_until(lambda: not orphan.is_running())
            last = await nursery.spare()
        assert not last.is_running()

    run(body())


def test_workers_outlive_their_zygote_and_are_reaped(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            one, two = nursery.fork("one"), nursery.fork("two")
            await nursery.started(one)
            await nursery.started(two)
            first = await nursery.answered()
            os.kill(first, signal.SIGKILL)
            await nursery.until(lambda: nursery.zygote.pid not in (None, first))
            await nursery.hear(one, Heartbeat)
            three = nursery.fork("three")
            await nursery.started(three)
            os.kill(one.pid or 0, signal.SIGTERM)
            await nursery.end(two, three)
            await nursery.until(lambda: "one" in nursery.statuses)
            assert nursery.statuses == {"one": -signal.SIGTERM, "two": -signal.SIGKILL, "three": -signal.SIGKILL}
            assert nursery.zygote.losses == 1
            one.channel.close()

    run(body())


def test_order_lost_with_the_zygote_is_told(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            await nursery.started(early := nursery.fork("early"))
            os.kill(nursery.zygote.pid or 0, signal.SIGSTOP)
            lost = nursery.fork("lost")
            os.kill(nursery.zygote.pid or 0, signal.SIGKILL)
            await nursery.until(lambda: "lost" in nursery.statuses)
            assert nursery.statuses == {"lost": None}
            lost.channel.close()
            await nursery.end(early)

    run(body())


def test_stopped_zygote_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq_supervisor.zygote.PONG_TIMEOUT", 0.3)
    monkeypatch.setattr("mpq_supervisor.zygote.PING_INTERVAL", 0.05)

    async def body() -> None:
        async with Nursery() as nursery:
            first = await nursery.answered()
            os.kill(first, signal.SIGSTOP)
            await nursery.tick_until(lambda: nursery.zygote.pid not in (None, first))
            worker = nursery.fork("late")
            await nursery.started(worker)
            await nursery.end(worker)

    run(body())


def test_zygote_that_cannot_start_is_tried_again_without_haste(run: Run) -> None:
    async def body() -> None:
        nursery = Nursery((sys.executable, "-c", "raise SystemExit(3)"))
        nursery.zygote.start()
        await nursery.until(lambda: nursery.zygote.pid is None)
        nursery.zygote.tick(nursery.loop.time())
        assert nursery.zygote.pid is None
        nursery.zygote.tick(nursery.loop.time() + 1.01)
        assert nursery.zygote.pid is not None
        await nursery.zygote.close()

    run(body())


def test_nonsense_among_the_last_words_of_a_zygote_ends_nobody_else(run: Run) -> None:
    async def body() -> None:
        nursery = Nursery((sys.executable, "-c", "import os, sys; os.write(int(sys.argv[-1]), b'nonsense')"))
        nursery.zygote.start()
        assert nursery.zygote._channel is not None
        nursery.loop.remove_reader(nursery.zygote._channel.fileno())  # its end is seen first
        await nursery.until(lambda: nursery.zygote.pid is None)
        await nursery.zygote.close()

    run(body())


def test_worker_sees_the_end_of_its_channel(run: Run) -> None:
    async def body() -> None:
        async with Nursery() as nursery:
            worker = nursery.fork("orphan")
            await nursery.started(worker)
            worker.channel.close()
            await nursery.until(lambda: nursery.statuses == {"orphan": 0})

    run(body())


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_without_root_ambient_capabilities_are_enough_and_do_not_reach_workers(run: Run) -> None:
    capabilities = "+setuid,+setgid,+sys_nice,+kill"
    command = (
        *("setpriv", "--reuid", "47899", "--regid", "47899", "--groups", "4,27"),
        *("--inh-caps", capabilities, "--ambient-caps", capabilities),
        *FAKE_ZYGOTE,
    )

    async def body() -> None:
        async with Nursery(command) as nursery:
            worker = nursery.fork("plain", nice=-5)
            status = status_of(await nursery.started(worker))
            assert status["Uid"].split() == [str(UID)] * 4
            assert status["Groups"] == ""
            assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {NOTHING}
            assert os.getpriority(os.PRIO_PROCESS, worker.pid or 0) == -5
            zygote = status_of(nursery.zygote.pid or 0)
            assert (zygote["CapPrm"], zygote["CapAmb"]) == (f"{1 << 6 | 1 << 7 | 1 << 23:016x}", NOTHING)
            await nursery.end(worker)

    run(body())
