"""A whole fleet over fake workers: start, watchdog, links, reload, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pyprctl
import pytest

from mpq_supervisor import happenings
from mpq_supervisor.fleet import LATE, TICK
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.schema import Watchdog
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.zygote import Process
from mpq_worker.contract import HEARTBEAT_INTERVAL
from tests.process.conftest import BEAT, HUB, WATCHDOG, Rig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]


def test_the_default_watchdog_forgives_lost_heartbeats() -> None:
    assert Watchdog().heartbeat_timeout >= 4 * HEARTBEAT_INTERVAL


def test_all_come_up_and_all_go(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            await rig.all_in("UP")
            status = rig.fleet.status()
            assert [w.name for w in status.workers] == ["cr1", "br1", "df1", "cr2", "br2", "df2"]
            assert {w.uid for w in status.workers} == set(range(47000, 47006))
            assert {psutil.Process(w.pid).uids().real for w in status.workers if w.pid} == set(range(47000, 47006))
            assert rig.fleet.summary() == "6 UP"
            nice = {w.name: psutil.Process(w.pid).nice() for w in status.workers if w.pid}
            assert (nice["cr1"], nice["df1"], nice["br1"]) == (-5, 0, 10)
            await rig.until(lambda: rig.duties >= 2)
        assert {w.process for w in rig.fleet.workers.values()} == {None}

    run(body())


def test_killed_and_stopped_workers_come_back_alone(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids = await rig.pids()
            os.kill(pids["cr1"], signal.SIGKILL)
            os.kill(pids["br2"], signal.SIGSTOP)
            await rig.until(lambda: not psutil.pid_exists(pids["br2"]))
            await rig.all_in("UP")
            changed = {name for name in pids if rig.pid(name) != pids[name]}
            assert changed == {"cr1", "br2"}
            by_name = {w.name: w for w in rig.fleet.status().workers}
            assert (by_name["cr1"].restarts, by_name["cr1"].last_exit) == (1, "killed by signal 9")
            assert by_name["cr2"].restarts == 0

    run(body())


def test_memory_above_the_limit(
    run: Run, site_plan: HostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpq_supervisor.fleet.MEMORY_INTERVAL", 0.1)
    limit = msgspec.structs.replace(site_plan.supervisor, memory_limit_mb=1)

    async def body() -> None:
        async with Rig(msgspec.structs.replace(site_plan, supervisor=limit), tmp_path) as rig:
            await rig.until(lambda: any("MB" in w.life.reason for w in rig.fleet.workers.values()))

    run(body())


def test_a_starved_worker_gets_more_time_than_a_stopped_one(
    run: Run, site_plan: HostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent process that the kernel does not call stopped may only want for CPU; for ever it may not."""
    monkeypatch.setattr(Process, "stopped", lambda self: False)

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids = await rig.pids()
            os.kill(pids["br2"], signal.SIGSTOP)
            await asyncio.sleep(2 * WATCHDOG.heartbeat_timeout)
            assert await rig.pids() == pids
            await rig.until(lambda: not psutil.pid_exists(pids["br2"]))
            await rig.all_in("UP")

    run(body())


def test_after_a_freeze_of_the_whole_host_nobody_is_judged(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids = await rig.pids()
            await asyncio.sleep(2 * BEAT)
            for pid in pids.values():
                os.kill(pid, signal.SIGSTOP)
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, LATE + 0.2)
            signal.pause()  # the loop stands still too
            for pid in pids.values():
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(WATCHDOG.heartbeat_timeout + TICK)
            assert await rig.pids() == pids

    run(body())


def test_wan_goes_and_comes(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(site_plan, tmp_path)
        rig.network.set_link("wan5", False)
        for worker in rig.fleet.workers.values():
            worker.look_at_link()
        async with rig:
            await rig.all_in("UP", "cr1", "br1", "df1")
            assert {rig.states()[name] for name in ("cr2", "br2", "df2")} == {"WAITING"}
            assert "no carrier" in rig.fleet.workers["cr2"].life.reason
            rig.network.set_link("wan5", True)
            await rig.all_in("UP")
            rig.network.set_link("wan4", False)
            await rig.all_in("DEGRADED", "cr1", "br1", "df1")
            rig.network.set_link("wan4", True)
            assert rig.network.rebinds == 3

    run(body())


def test_crash_backs_off_and_says_why(
    run: Run, site_plan: HostPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crash = msgspec.structs.replace(site_plan.tunnels[0], name="crash")
    plan = msgspec.structs.replace(site_plan, tunnels=(crash, *site_plan.tunnels[1:]))

    async def body() -> None:
        async with Rig(plan, tmp_path) as rig:
            await rig.all_in("BACKOFF", "crash")
            await rig.all_in("UP", *[name for name in rig.fleet.workers if name != "crash"])

    with caplog.at_level(logging.INFO):
        run(body())
    assert "crash: STARTING → BACKOFF: exit 70 (SOFTWARE)" in caplog.messages


def test_signatures_that_are_not_due_are_refused(
    run: Run, site_plan: HostPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hoard = msgspec.structs.replace(site_plan.tunnels[0], name="hoard")

    async def body() -> None:
        plan = msgspec.structs.replace(site_plan, tunnels=(hoard,))
        async with Rig(plan, tmp_path) as rig:
            await rig.until(lambda: any("signature: 0 bytes" in line for line in caplog.messages))
            assert rig.fleet.workers["hoard"].refused_signatures == 1

    with caplog.at_level(logging.INFO):
        run(body())


def test_reload_touches_only_what_changed(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    cr1, br1, df1, *second = site_plan.tunnels
    new = msgspec.structs.replace(br1, name="xx1")
    changed = msgspec.structs.replace(df1, mtu=1300)
    plan = msgspec.structs.replace(site_plan, tunnels=(cr1, new, changed, *second))

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids = await rig.pids()
            changes = rig.fleet.reload(plan, Secrets(plan))
            assert changes == {"br1": "remove", "xx1": "add", "df1": "restart"}
            await rig.until(lambda: "br1" not in rig.fleet.workers)
            await rig.all_in("UP")
            assert rig.network.plans[-1] is plan
            same = {name for name in rig.fleet.workers if pids.get(name) == rig.pid(name)}
            assert same == {"cr1", "cr2", "br2", "df2"}
            assert rig.fleet.reload(plan, Secrets(plan)) == {}
            assert rig.fleet.reload(site_plan, Secrets(site_plan)) == {
                "xx1": "remove",
                "br1": "add",
                "df1": "restart",
            }
            await rig.until(lambda: "xx1" not in rig.fleet.workers)
            await rig.all_in("UP")

    run(body())


def test_a_restart_for_a_reload_that_fails_is_tried_again(
    run: Run, site_plan: HostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next reload, though nothing else has changed, and later by itself."""
    changed = tuple(msgspec.structs.replace(tunnel, mtu=1300) for tunnel in site_plan.tunnels[:1])
    plan = msgspec.structs.replace(site_plan, tunnels=(*changed, *site_plan.tunnels[1:]))

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids, worker = await rig.pids(), rig.fleet.workers["cr1"]
            with monkeypatch.context() as patch:
                patch.setattr(rig.network, "tunnel_fds", lambda tunnel, generation: None)
                for failed in (1, 2):
                    assert rig.fleet.reload(plan, Secrets(plan)) == {"cr1": "restart"}
                    await rig.until(lambda: worker.life.failed_restarts == failed)  # noqa: B023 - used up at once
                    assert rig.fleet.outdated() == {"cr1"}
            assert await rig.pids() == pids
            monkeypatch.setattr("mpq_supervisor.rolling.RETRY", 0.0)
            await rig.until(lambda: not rig.fleet.outdated())
            await rig.all_in("UP")
            assert {name for name in pids if rig.pid(name) != pids[name]} == {"cr1"}
            assert rig.fleet.reload(plan, Secrets(plan)) == {}

    run(body())


def test_reload_gives_a_running_hub_its_sites(
    run: Run, make_plan_of: Callable[[str], HostPlan], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = make_plan_of(HUB)
    without = make_plan_of(HUB.replace('name = "ship2"', 'name = "ship2"\nrevoked = true'))

    async def body() -> None:
        async with Rig(plan, tmp_path) as rig:
            await rig.all_in("UP")
            pids = list((await rig.pids()).values())
            assert len(rig.fleet.reload(without, Secrets(without))) == 3
            await rig.until(lambda: sum("SetSites" in line for line in caplog.messages) == 3)
            assert [rig.pid(name) for name in rig.fleet.workers] == pids
            assert rig.fleet.status().sites == ("ship1",)

    with caplog.at_level(logging.INFO):
        run(body())
    told = [line for line in caplog.messages if "SetSites" in line]
    assert all("name='ship2', identity='mpq://site/ship2', inner=()" in line for line in told), told


def test_stop_of_the_operator_outlives_a_reload(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    changed = tuple(msgspec.structs.replace(tunnel, mtu=1300) for tunnel in site_plan.tunnels)
    plan = msgspec.structs.replace(site_plan, tunnels=changed)

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            await rig.all_in("UP")
            rig.fleet.command(["cr1"], happenings.StopWanted())
            await rig.all_in("STOPPED", "cr1")
            assert rig.fleet.stopped() == {"cr1"}
            rig.fleet.reload(plan, Secrets(plan))
            await rig.all_in("UP", *[name for name in rig.fleet.workers if name != "cr1"])
            assert rig.states()["cr1"] == "STOPPED"

    run(body())


def test_killed_zygote_costs_no_worker(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    pyprctl.set_child_subreaper(True)

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            await rig.all_in("UP")
            await rig.until(lambda: rig.zygote.rss > 0)
            pids = {name: rig.pid(name) for name in rig.fleet.workers}
            os.kill(rig.zygote.pid or 0, signal.SIGKILL)
            await rig.until(lambda: rig.zygote.losses == 1)
            os.kill(pids["cr1"], signal.SIGKILL)
            await rig.until(lambda: rig.fleet.workers["cr1"].life.starts == 2)
            await rig.all_in("UP")
            assert {name for name in pids if rig.pid(name) != pids[name]} == {"cr1"}

    try:
        run(body())
    finally:
        pyprctl.set_child_subreaper(False)


def test_without_descriptors_it_is_tried_again_until_there_are_some(
    run: Run, site_plan: HostPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker and the zygote die while the supervisor can open nothing: no channel, no file of /proc."""

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids = await rig.pids()
            zygote = rig.zygote.pid
            assert zygote
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                os.kill(zygote, signal.SIGKILL)
                os.kill(pids["br2"], signal.SIGKILL)
                await rig.until(lambda: rig.states()["br2"] == "BACKOFF" and "no zygote" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await rig.all_in("UP")
            assert rig.pid("br2") != pids["br2"]

    run(body())


def test_a_socket_that_cannot_be_had_is_asked_for_again(
    run: Run, site_plan: HostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WAN is there, so that nobody will tell when the host can give one."""
    monkeypatch.setattr("mpq_supervisor.incarnation.REBIND_PAUSE", 0.05)

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            pids = await rig.pids()
            with monkeypatch.context() as patch:
                patch.setattr(rig.network, "tunnel_fds", lambda tunnel, generation: None)
                patch.setattr(rig.network, "rebind", lambda tunnel, generation: None)
                rig.fleet.workers["br1"].look_at_link()  # as when its WAN got another address
                os.kill(pids["br2"], signal.SIGKILL)
                await rig.until(lambda: rig.states()["br2"] == "BACKOFF")
            assert "cannot be bound" in rig.fleet.workers["br2"].life.reason
            await rig.all_in("UP")
            await rig.until(lambda: rig.network.rebinds == 1)
            assert rig.pid("br1") == pids["br1"]

    run(body())


@pytest.mark.parametrize("ahead", [1, 2])
def test_workers_of_the_next_release_but_not_of_the_one_after_it(
    run: Run, site_plan: HostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Its files have replaced ours under a running supervisor, whose zygote then dies."""
    monkeypatch.setenv("MPQ_TEST_RELEASES_AHEAD", str(ahead))

    async def body() -> None:
        async with Rig(site_plan, tmp_path) as rig:
            if ahead == 1:
                await rig.all_in("UP")
            else:
                await rig.all_in("BACKOFF")
                reasons = {worker.life.reason for worker in rig.fleet.workers.values()}
                assert reasons == {"speaks version 3 of the contract, we 1"}

    run(body())
