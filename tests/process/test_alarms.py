"""Alarms of a running portal: raised, told to a receiver that is away for a while, acknowledged, silenced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mpq_supervisor import portal_process
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.schema import Alarm, Webhook
from tests.process.portals import Portals, free_port
from tests.process.receiver import SECRET, Receiver
from tests.process.test_control import ctl_in_thread

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]
API = "/api/v1"
RULE = Alarm(name="gone", kind="down", seconds=1.0, severity="critical")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(free_port())
    yield receiver
    receiver.close()


def test_from_raised_to_over(
    run: Run, site_plan: HostPlan, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_process, "PAUSE", (0.1, 0.2))
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    hook = Webhook(url=f"http://127.0.0.1:{receiver.port}/x", secret_file=str(secret))

    async def body() -> None:
        async with Portals(site_plan, tmp_path, alarm=(RULE,), webhook=hook) as portals:

            async def raised(*subjects: str) -> list[dict[str, Any]]:
                async with asyncio.timeout(15):
                    while True:
                        found = (await portals.get(f"{API}/alarms")).json()["alarms"]
                        if {alarm["subject"] for alarm in found} == set(subjects):
                            return list(found)
                        await asyncio.sleep(0.1)

            portals.rig.network.set_link("wan5", False)
            (first, *_) = await raised("cr2", "br2", "df2")
            assert (first["severity"], first["wan"], first["acknowledged"]) == ("critical", "wan5", "")
            path = f"{API}/alarms/gone/br2/acknowledge"
            assert (await portals.ask("POST", path, "viewer")).status == 403
            assert (await portals.ask("POST", path, "operator")).json()["acknowledged"] == "operator"
            assert (await portals.ask("POST", f"{API}/alarms/gone/br1/acknowledge", "operator")).status == 404
            pid = portals.portal.pid
            assert pid is not None
            await asyncio.sleep(1.2)  # until the queue is in its file
            os.kill(pid, signal.SIGKILL)
            await portals.rig.until(lambda: portals.portal.pid not in (pid, None))
            await portals.until_answering()
            found = await raised("cr2", "br2", "df2")
            assert {alarm["subject"]: alarm["acknowledged"] for alarm in found}["br2"] == "operator"
            portals.rig.network.set_link("wan5", True)
            for name in ("cr2", "br2", "df2"):  # the fake worker does not notice that its peer is back
                assert (await portals.ask("POST", f"{API}/tunnels/{name}/restart", "operator")).status == 202
            await raised()
            assert receiver.got == []
            receiver.open()
            await portals.rig.until(lambda: len(receiver.got) >= 6)
            assert [message["id"] for message in receiver.got] == list(range(1, 7))
            assert [message["raised"] for message in receiver.got] == [True] * 3 + [False] * 3

            silence = {"minutes": 5, "rule": "gone", "reason": "we know"}
            made = (await portals.ask("POST", f"{API}/silences", "operator", silence)).json()
            portals.rig.network.set_link("wan4", False)
            await raised("cr1", "br1", "df1")
            assert len(receiver.got) == 6
            assert (await portals.ask("DELETE", f"{API}/silences/{made['id']}", "operator")).status == 204
            assert (await portals.ask("DELETE", f"{API}/silences/{made['id']}", "operator")).status == 404
            await portals.rig.until(lambda: len(receiver.got) >= 9)  # what is still raised is told now
            assert [message["raised"] for message in receiver.got[6:]] == [True] * 3
            for name in ("cr1", "br1", "df1"):
                assert (await portals.ask("POST", f"{API}/tunnels/{name}/stop", "operator")).status == 202
            await portals.rig.until(lambda: len(receiver.got) >= 12)
            assert [message["reason"] for message in receiver.got[9:]] == ["stopped"] * 3
            page = (await portals.get(f"{API}/events?kind=alarm&limit=1000")).json()
            assert "alarm gone: cr2: is down" in [event["text"] for event in page["events"]]

    run(body())


def test_from_the_command_line(
    run: Run, site_plan: HostPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path, alarm=(RULE,)) as portals:
            await portals.control.start(tmp_path, "no-such-group")

            async def out(code: int, *args: str) -> str:
                assert await ctl_in_thread(tmp_path, *args) == code
                return capsys.readouterr().out

            assert await out(0, "alarms") == "no alarm is raised\n"
            portals.rig.network.set_link("wan5", False)
            async with asyncio.timeout(15):
                while True:
                    if "gone/br2" in await out(0, "alarms"):
                        break
                    await asyncio.sleep(0.1)
            line = next(
                li for li in (await out(0, "acknowledge", "gone/br2")).splitlines() if li.startswith("gone/br2")
            )
            assert line.split()[-1] == "ctl:root"
            assert await ctl_in_thread(tmp_path, "acknowledge", "gone/br1") == 3
            assert capsys.readouterr().err == 'no alarm "gone/br1" is raised\n'
            assert await out(0, "silence", "--of", "wan5", "--minutes", "90", "--reason", "dish is moved")
            line = (await out(0, "alarms")).splitlines()[-1]
            assert line.split()[:4] == ["1", "any", "wan5", "1h29m"]
            assert line.endswith("ctl:root  dish is moved")
            assert await ctl_in_thread(tmp_path, "silence", "--of", "wna5") == 3
            assert capsys.readouterr().err == 'no "wna5" here (did you mean "wan5"?)\n'
            assert await out(0, "unsilence", "1")
            assert await out(3, "unsilence", "1")
            audits = await portals.audits(3)
            assert audits[0]["text"] == "ctl:root (operator): acknowledge gone/br2: nobody → ctl:root"
            assert {event["reason"] for event in audits} == {"ctl:root"}

    run(body())


def test_a_secret_that_is_not_there_is_a_fault_of_the_configuration(
    run: Run, site_plan: HostPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Webhook(url="http://127.0.0.1:1/", secret_file=str(tmp_path / "none"))

    async def body() -> None:
        portals = Portals(site_plan, tmp_path, webhook=hook)
        async with portals.rig:
            portals.portal.configure(portals.plan)
            await portals.rig.until(lambda: "exit 78" in caplog.text)
            assert portals.portal.pid is None
            good = msgspec.structs.replace(portals.plan, portal=None)
            portals.portal.configure(good)
        portals.remove()

    run(body())
