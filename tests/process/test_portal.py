"""The portal as a process: unprivileged, expendable, and behind its tokens."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mpq_supervisor import pki, portal_process
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal.door import MAX_FROM_ONE
from tests.process.portals import EXPIRED, LOG, Portals

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def test_metrics_of_a_fleet(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            answer = await portals.get("/metrics")
            families = {f.name: f for f in text_string_to_metric_families(answer.body.decode())}
            up = {s.labels["tunnel"]: s.value for s in families["mpq_tunnel_up"].samples}
            assert up == dict.fromkeys(("cr1", "br1", "df1", "cr2", "br2", "df2"), 1.0)
            assert {s.labels["class"]: s.value for s in families["mpq_class_tunnels_up"].samples} == {
                "critical": 2.0, "bulk": 2.0, "default": 2.0,
            }  # fmt: skip
            openmetrics = await portals.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
            assert openmetrics.body.endswith(b"# EOF\n")

    run(body())


def test_isolation(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            assert portals.portal.pid is not None
            process = psutil.Process(portals.portal.pid)
            uid = site_plan.supervisor.uid_base - 1
            assert (process.uids().saved, process.gids().saved, process.nice()) == (uid, uid, 10)
            status = status_of(process.pid)
            assert (int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]) == (0, 0, "1")
            assert (portals.directory / "portal").stat().st_mode & 0o777 == 0o770

    run(body())


def test_death_touches_nobody_and_it_comes_back(
    run: Run, site_plan: HostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_process, "PAUSE", (0.1, 0.2))

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            workers = await portals.rig.pids()
            for number in (signal.SIGKILL, signal.SIGTERM):
                pid = portals.portal.pid
                assert pid is not None
                os.kill(pid, number)
                await portals.rig.until(lambda pid=pid: portals.portal.pid not in (pid, None))  # type: ignore[misc]  # a lambda's default
                await portals.until_answering()
            assert await portals.rig.pids() == workers
            assert portals.pids[::2] == [pid for pid in portals.pids if pid]

    run(body())


def test_a_portal_that_does_not_read_holds_nobody_up(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            assert portals.portal.pid is not None
            os.kill(portals.portal.pid, signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            for second in range(1000):
                portals.feed.tick(loop.time() + second)
            assert portals.feed.lost > 0
            os.kill(portals.portal.pid, signal.SIGCONT)
            await portals.until_answering()

    run(body())


def test_only_tokens_open(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            assert (await portals.get("/metrics", "")).status == 401
            for token in ("wrong", EXPIRED):
                answer = await portals.get("/metrics", token)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            answers = [await portals.get("/metrics", f"guess{n}") for n in range(5)]
            assert [answer.status for answer in answers] == [401, 401, 401, 401, 429]
            assert 0 < int(answers[-1].headers["retry-after"]) <= 60
            assert (await portals.get("/metrics")).status == 200  # used well before
            assert (await portals.get("/metrics", "operator")).status == 429
            assert (await portals.get("/metrics", "operator", X_Forwarded_For="10.9.8.7")).status == 429

    run(body())


def test_a_thousand_idle_connections_shut_nobody_out(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, before[1]))
            with ExitStack() as idle:
                idle.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
                for _ in range(1000):
                    sock = idle.enter_context(socket.socket())
                    sock.setblocking(False)
                    with suppress(BlockingIOError):
                        sock.connect(("127.0.0.1", portals.port))
                portals.source = "127.0.0.2"
                async with asyncio.timeout(10):
                    while True:
                        page = (await portals.get("/metrics")).body.decode()
                        found = re.search(r'refused_connections_total\{reason="source"\} (\S+)', page)
                        if found and float(found[1]) >= 1000 - MAX_FROM_ONE:
                            break
            assert portals.portal.pid is not None
            assert portals.rig.fleet.summary() == "6 UP"

    run(body())


def test_it_ends_with_its_supervisor(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            pid = portals.portal.pid
            assert pid is not None
            portals.feed.close_channel()
            await portals.rig.until(lambda: portals.pids[-1] is None)
            assert not psutil.pid_exists(pid)

    run(body())


def test_the_next_portal_knows_what_happened_while_it_replaced_the_last(
    run: Run,
    site_plan: HostPlan,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals, portals.listening() as told:

            def counted(pids: int) -> bool:
                return len(portals.pids) == pids

            await anext(told)
            assert portals.plan.portal is not None
            for step in range(2):
                portal = msgspec.structs.replace(portals.plan.portal, history_mb=17 + step)
                LOG.info("before change %d", step, extra=marks(Kind.CONFIG))
                portals.feed.tick(0.0)  # the one that is about to end has it
                portals.portal.configure(msgspec.structs.replace(portals.plan, portal=portal))
                LOG.info("after change %d", step, extra=marks(Kind.CONFIG))
                await portals.rig.until(partial(counted, 2 * step + 3))
            await portals.until_answering()
            async with asyncio.timeout(5):
                texts: list[str] = []
                while len(texts) < 4:
                    page = (await portals.get("/api/v1/events?kind=config")).json()
                    texts = [event["text"] for event in page["events"]]
            assert texts == [f"{when} change {step}" for step in range(2) for when in ("before", "after")]

    run(body())
    assert "portal: killed" not in caplog.text
    assert "again in" not in caplog.text
    assert "Cancel" not in capfd.readouterr().err


def test_tls_by_its_own_certificate(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    """The key is the supervisor's to read: the portal takes it before it gives up its uid."""
    authority = pki.issue_authority()
    pki.save(authority, tmp_path, "ca")
    pki.save(pki.issue_hub(authority, "portal.test", (IPv4Address("127.0.0.1"),)), tmp_path, "portal")
    certificate, key = tmp_path / "portal.crt", tmp_path / "portal.key"
    assert key.stat().st_mode & 0o777 == 0o600

    async def body() -> None:
        portals = Portals(site_plan, tmp_path, certificate=str(certificate), key=str(key))
        portals.trusted = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        async with portals:
            assert len((await portals.get("/api/v1/tunnels")).json()) == 6
            portals.trusted = None
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                await portals.get("/api/v1/tunnels")

    run(body())
