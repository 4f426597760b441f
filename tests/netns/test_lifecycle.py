"""What becomes of the tunnels when processes, WANs and hubs die, stop and come back, and of the host afterwards."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from mpq_supervisor import ctl
from mpq_supervisor.lifecycle import State
from mpq_supervisor.requests import SOCKET_NAME, Code, Request, Response, Verb
from tests.netns.product import System, ok, wan_of
from tools.lab_config import SITE_NAME
from tools.product import Side
from tools.system import SIDES, pid_of
from tools.wait import end, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

OF_WAN5 = ("cr2", "br2", "df2")
HUB_WORKERS = {"mt4.bulk": "br1", "mt5.critical": "cr2", "mt6.default": "df3"}
"""A hub's worker of each class, and the tunnel that it serves."""


def others(system: System, *names: str) -> set[str]:
    return set(system.tunnels) - set(names)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A SIGSTOPped process; it goes on at the end if it still lives."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGCONT)


# ---------------------------------------------------------------- workers


def test_kill_9_of_each_worker_costs_only_its_own_tunnel_and_only_for_a_moment(system: System) -> None:
    faults: dict[str, list[int]] = {name: [] for name in system.tunnels}
    with system.pinged() as pings:
        for name in system.tunnels:
            before = system.workers("site")[name]
            faults[name].append(time.monotonic_ns())
            os.kill(pid_of(before), signal.SIGKILL)
            after = system.until_replaced("site", name, pid_of(before))
            assert (after.restarts, after.last_exit) == (before.restarts + 1, "killed by signal 9")
        system.until_answered()
        for worker, name in HUB_WORKERS.items():
            pid = system.pids("hub")[worker]
            faults[name].append(time.monotonic_ns())
            os.kill(pid, signal.SIGKILL)
            system.until_replaced("hub", worker, pid)
            system.until_answered()
    # Each stream's probes are excused from a fault of its own to the first answer after it; every other is answered.
    for name, report in pings.reports.items():
        windows = []
        for fault in faults[name]:
            recovered = report.first_answer_ns(fault)
            assert recovered is not None
            windows.append((report.under_way_ns(fault), recovered))
        unexcused = [at for at in report.losses_ns() if not any(a <= at <= b for a, b in windows)]
        assert unexcused == [], f"{name} lost {len(unexcused)} probes without a reason"


def test_stopped_worker_counts_as_dead(system: System) -> None:
    """SIGSTOP at both ends, of workers that serve different tunnels."""
    victims: dict[Side, str] = {"site": "br2", "hub": "mt4.default"}
    pids = {side: system.pids(side)[name] for side, name in victims.items()}
    with system.pinged() as pings:
        fault = time.monotonic_ns()
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        for side, name in victims.items():
            assert "killed" in (system.until_replaced(side, name, pids[side]).last_exit or "")
        system.until_answered()
    assert set(pings.lost()) <= {"br2", "df1"}
    for name in ("br2", "df1"):
        assert pings.lost_after_recovery(name, fault) == []
    assert "br2: UP → STOPPING: no heartbeat for" in system.log("site")


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_dead_zygote_costs_no_packet_and_no_worker(system: System, number: signal.Signals) -> None:
    """At both ends at once. A worker that is killed meanwhile comes back with the next zygote."""
    zygotes = {side: system.status(side).zygote_pid for side in SIDES}
    pids = {side: system.pids(side) for side in SIDES}
    with system.pinged() as pings:
        for zygote in zygotes.values():
            assert zygote is not None
            os.kill(zygote, number)
        fault = time.monotonic_ns()
        os.kill(pids["site"]["df3"], signal.SIGKILL)
        system.until_replaced("site", "df3", pids["site"]["df3"])
        for side in SIDES:
            until(lambda: system.status(side).zygote_pid not in (None, zygotes[side]))  # noqa: B023 - used up at once
        second = system.pids("site")["cr1"]
        later = time.monotonic_ns()
        os.kill(second, signal.SIGKILL)  # the new zygote forks too, and adopted workers are reaped
        system.until_replaced("site", "cr1", second)
        system.until_answered()
    assert set(pings.lost()) <= {"df3", "cr1"}
    assert pings.lost_after_recovery("df3", fault) == []
    assert pings.lost_after_recovery("cr1", later) == []
    changed = {name for name, pid in system.pids("site").items() if pid != pids["site"][name]}
    assert changed == {"df3", "cr1"}
    assert system.pids("hub") == pids["hub"]


def test_permanent_exit_code_is_not_retried_until_told(system: System) -> None:
    """The zygote may open fewer files than a worker has to set as its limit: isolation cannot be had."""
    zygote = system.status("site").zygote_pid
    assert zygote is not None
    with system.pinged() as pings:
        restarts = system.workers("site")["br3"].restarts
        spares = [child.pid for child in psutil.Process(zygote).children() if child.name() == "mpq-spare"]
        for pid in (zygote, *spares):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, 40))
        try:
            end(system.pids("site")["br3"])
            failed = system.until_state("site", State.FAILED, "br3")["br3"]
        finally:
            end(zygote)  # the next one has the supervisor's limit again
        assert (failed.last_exit, failed.restarts) == ("exit 77 (NOPERM)", restarts + 1)
        ok(system.lab.ctl("site", "start", "br3", wait=10))
    assert set(pings.lost()) == {"br3"}


def test_deleted_tun_costs_one_restart_of_its_own_worker(system: System) -> None:
    before = system.workers("site")["br2"]
    with system.pinged() as pings:
        system.lab.run("site", ["ip", "link", "del", "br2"])
        after = system.until_replaced("site", "br2", pid_of(before))
        assert (after.restarts, after.last_exit) == (before.restarts + 1, "exit 69 (UNAVAILABLE)")
        system.until_answered()
    assert set(pings.lost()) == {"br2"}


def test_stopped_tunnel_shows_no_figures_of_before(system: System) -> None:
    ok(system.lab.ctl("site", "stop", "br2"))
    stopped = system.until_state("site", State.STOPPED, "br2")["br2"]
    assert (stopped.pid, stopped.rtt, stopped.rate_in, stopped.pss) == (None, None, 0.0, 0)


# ---------------------------------------------------------------- WANs


def test_wan_without_carrier_at_the_start_is_waited_for_quietly(system: System) -> None:
    system.stop("site")
    system.lab.carrier(6, False)
    with system.logged("site") as lines:
        system.start("site")
        waiting = [name for name in system.tunnels if wan_of(name) == 6]
        system.until_state("site", State.UP, *others(system, *waiting))
        for name in waiting:
            worker = system.workers("site")[name]
            assert (worker.state, worker.pid, worker.restarts) == (State.WAITING, None, 0)
            assert worker.reason == "wan6: wan6 has no carrier"
        system.lab.carrier(6, True)
        workers = system.until_state("site", State.UP)
        assert {worker.restarts for worker in workers.values()} == {0}
    assert [line for line in lines if " INFO " not in line] == []


def test_carrier_lost_and_found_under_traffic(system: System) -> None:
    pids = system.pids("site")
    with system.pinged() as pings:
        system.lab.carrier(5, False)
        workers = system.until_state("site", State.DEGRADED, *OF_WAN5)
        assert workers["cr2"].reason == "wan5: wan5 has no carrier"
        system.lab.carrier(5, True)
        system.until_state("site", State.UP, *OF_WAN5)
        system.until_answered()
    assert set(pings.lost()) == set(OF_WAN5)
    assert system.pids("site") == pids


def test_address_change_keeps_the_workers(system: System) -> None:
    pids, restarts = system.pids("site"), {n: w.restarts for n, w in system.workers("site").items()}
    with system.pinged() as pings:
        for address in ("100.64.55.2/24", "100.64.5.2/24"):
            fault = time.monotonic_ns()
            system.lab.address(5, address)
            system.until_answered()
            system.until_state("site", State.UP)
            until(lambda: peers(system, "mt5") == {address.partition("/")[0]})  # noqa: B023 - used up at once
    assert set(pings.lost()) <= set(OF_WAN5)
    for name in OF_WAN5:
        assert pings.lost_after_recovery(name, fault) == [] or pings.reports[name].rtt_us[-1] is not None
    assert system.pids("site") == pids
    assert {name: worker.restarts for name, worker in system.workers("site").items()} == restarts


def peers(system: System, listener: str) -> set[str]:
    """Outer addresses of the site as a listener's workers know them."""
    workers = system.workers("hub").values()
    return {site.peer[0] for worker in workers if worker.wan == listener for site in worker.sites}


# ---------------------------------------------------------------- the hub


def test_sites_come_back_by_themselves_when_the_hub_restarts(system: System) -> None:
    pids = system.pids("site")
    assert system.stop("hub") == 0
    system.until_state("site", State.DEGRADED)
    system.start("hub")
    system.until_state("site", State.UP)
    system.until_answered()
    assert system.pids("site") == pids


# ---------------------------------------------------------------- the operator


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("cr1", {"cr1"}),
        ("bulk", {"br1", "br2", "br3"}),
        ("wan5", set(OF_WAN5)),
        ("all", {f"{c}{n}" for c in ("cr", "br", "df") for n in (1, 2, 3)}),
    ],
)
def test_restart_stop_and_start_what_a_word_means(system: System, word: str, meant: set[str]) -> None:
    pids = system.pids("site")
    with system.pinged() as pings:
        ok(system.lab.ctl("site", "restart", word, wait=10))
        assert {name for name, pid in system.pids("site").items() if pid != pids[name]} == meant
        ok(system.lab.ctl("site", "stop", word, wait=10))
        workers = system.workers("site")
        assert {name for name, worker in workers.items() if worker.state is State.STOPPED} == meant
        assert {name for name, worker in workers.items() if worker.state is State.UP} == others(system, *meant)
        ok(system.lab.ctl("site", "start", word, wait=10))
        system.until_state("site", State.UP)
    assert set(pings.lost()) <= meant
    assert system.lab.leaks().site == 0


def test_unknown_name_is_told_the_nearest(system: System) -> None:
    argv = [sys.executable, "-m", "mpq_supervisor", "ctl", "--runtime-dir", str(system.products["site"].runtime)]
    done = subprocess.run([*argv, "restart", "cr9"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith('no "cr9" here')
    assert "did you mean" in done.stderr


def test_reload_with_an_error_changes_nothing(system: System) -> None:
    pids, state = {side: system.pids(side) for side in SIDES}, system.state_of("site")
    system.edit("site", "rule", "rulle")
    system.edit("hub", "number = 0", 'number = "none"')
    with system.pinged() as pings:
        for side in SIDES:
            response = system.lab.ctl(side, "reload")
            assert response.code is Code.FAILED
            assert {"site": "rulle", "hub": "site[0].number"}[side] in "\n".join(response.lines)
            os.kill(system.products[side].pid, signal.SIGHUP)
            until(lambda: system.log(side).count("refused, going on as before") >= 2)  # noqa: B023 - used up at once
    assert pings.lost() == {}
    assert {side: system.pids(side) for side in SIDES} == pids
    assert system.state_of("site") == state


def test_a_commit_goes_back_when_told_or_when_nobody_confirms(system: System) -> None:
    """The workers of one WAN restart one after the other, and again; a ping of every tunnel notices nothing."""

    def ask(verb: Verb, confirm: float = 0.0) -> Response:
        return ctl.ask(system.products["site"].runtime / SOCKET_NAME, Request(verb, confirm=confirm))

    def restarts() -> int:
        return system.log("site")[begin:].count("RETIRING → UP")

    before, begin = system.pids("site"), len(system.log("site"))
    system.edit("site", 'interface = "wan4"', 'interface = "wan4"\nmtu = 1380')
    assert ask("plan").code is Code.DIFFERENT
    with system.pinged() as pings:
        preview = ask("commit", confirm=60.0).preview
        assert preview is not None
        assert preview.workers == dict.fromkeys(("cr1", "br1", "df1"), "restart")
        until(lambda: restarts() == 3)
        assert ask("rollback").code is Code.OK
        until(lambda: restarts() == 6)
    assert pings.lost() == {}
    after = system.pids("site")
    assert {name for name in before if after[name] != before[name]} == {"cr1", "br1", "df1"}
    system.edit("site", "mtu = 1380", "rate_mbit = 900.0")
    assert ask("commit", confirm=1.0).code is Code.OK
    assert ask("plan").code is Code.OK
    until(lambda: "not confirmed: back to what ran before" in system.log("site")[begin:])
    assert ask("plan").code is Code.DIFFERENT, "of the file, which is as it was"
    assert ask("confirm").code is Code.FAILED
    assert system.pids("site") == after


def test_a_lan_of_a_site_comes_and_goes_without_an_outage(system: System) -> None:
    pids, begin = system.pids("hub"), len(system.log("hub"))
    lan = '\nlan = [{ prefix = "172.21.0.0/16", class = "bulk", listener = "mt5" }]'
    with system.pinged() as pings:
        system.edit("hub", "number = 0", f"number = 0{lan}")
        ok(system.lab.ctl("hub", "reload"))
        system.edit("hub", lan, "")
        ok(system.lab.ctl("hub", "reload"))
    assert pings.lost() == {}
    assert system.pids("hub") == pids
    assert "refused" not in system.log("hub")[begin:]


@pytest.mark.parametrize(
    ("old", "new"),
    [("number = 0", "number = 0\nrevoked = true"), (f'name = "{SITE_NAME}"', 'name = "ship7"')],
)
def test_reload_cuts_off_a_site_that_was_revoked_or_removed(system: System, old: str, new: str) -> None:
    pids = system.pids("hub")
    system.edit("hub", old, new)
    with system.logged("hub") as lines:
        ok(system.lab.ctl("hub", "reload"))
        workers = system.until_state("site", State.DEGRADED)
        until(lambda: {worker.sites for worker in system.workers("hub").values()} == {()})
    assert system.pids("hub") == pids
    revoked = [line for line in lines if f"revoked: {SITE_NAME} " in line]
    assert len(revoked) == 9
    assert all("revoked" in worker.reason for worker in workers.values())


# ---------------------------------------------------------------- the end of a supervisor


@pytest.fixture(scope="module")
def pristine(running: System) -> dict[Side, dict[str, list[str]]]:
    """Both hosts as they are without mpq."""
    found = {}
    for side in SIDES:
        with_open(running, side)
        assert running.stop(side) == 0
        found[side] = running.state_of(side)
    running.restore()
    return found


def with_open(system: System, side: Side) -> None:
    """Have what is running leave nothing when it stops."""
    system.edit(side, 'control_group = "root"', 'control_group = "root", on_stop = "open"')
    ok(system.lab.ctl(side, "reload"))


@pytest.mark.parametrize("side", SIDES)
def test_open_stop_leaves_nothing(system: System, pristine: dict[Side, dict[str, list[str]]], side: Side) -> None:
    with_open(system, side)
    assert system.stop(side) == 0
    state = system.state_of(side)
    assert state["processes"] == state["tables"] == []
    assert not [link for link in state["links"] if link[:2] in ("cr", "br", "df", "mt")]
    assert not [rule for rule in state["rules"] if "proto 109" in rule or rule.startswith("100")]
    assert not [route for route in state["routes"] if "proto 109" in route]
    assert state == pristine[side]


def test_closed_stop_leaves_what_refuses_lan_traffic(
    system: System, pristine: dict[Side, dict[str, list[str]]]
) -> None:
    with system.pinged(v6=True) as pings:
        assert system.stop("site") == 0
        left = system.state_of("site")
        refused = time.monotonic_ns()
        until(lambda: time.monotonic_ns() - refused > 500_000_000)
    assert left["processes"] == []
    assert left["links"] == pristine["site"]["links"]
    assert left["tables"] == ["table inet mpq"]
    added = [rule for rule in left["rules"] if rule not in pristine["site"]["rules"]]
    assert {rule.partition(":")[0] for rule in added} == {"10000", "10001", "10005", "10030", "10040"}
    routes = [route for route in left["routes"] if route not in pristine["site"]["routes"]]
    local = [route for route in routes if not route.startswith("unreachable default")]
    assert {table for route in local for table in re.findall(r"table (\d+) ", route)} == {"109", "137", "138", "139"}
    for report in pings.reports.values():
        assert report.window(refused).lost == report.window(refused).sent > 0
    assert (system.lab.leaks().site, system.lab.leaks().hub) == (0, 0)


@pytest.mark.parametrize("orphans", ["continue", "exit"])
@pytest.mark.parametrize("side", SIDES)
def test_killed_supervisor_leaks_nothing_and_the_next_recovers_all(system: System, side: Side, orphans: str) -> None:
    """Without a service manager that keeps descriptors; also with a worker SIGSTOPped: it neither sees the end of its
    channel nor lets go of its TUN."""
    if orphans == "exit":
        system.edit(side, 'control_group = "root"', 'control_group = "root", on_orphan = "exit"')
        before = system.pids(side)
        ok(system.lab.ctl(side, "reload"))
        for name, pid in before.items():
            system.until_replaced(side, name, pid)
    pids = system.pids(side)
    frozen = {"site": "br2", "hub": "mt5.bulk"}[side]
    zygote = system.status(side).zygote_pid
    assert zygote is not None
    with system.pinged(v6=True) as pings, stopped(pids[frozen]):
        killed = time.monotonic_ns()
        system.kill(side)
        system.lab.forget(side)
        os.kill(pids[frozen], signal.SIGSTOP)  # again: the kernel wakes a process group that it orphans
        if orphans == "exit":
            until(lambda: not any(alive(pid) for name, pid in pids.items() if name != frozen))
        until(lambda: time.monotonic_ns() - killed > 500_000_000)
        begun = time.monotonic_ns()
        system.start(side)
        ok(system.lab.ctl(side, "start", "all", wait=10))
        system.until_state("site", State.UP)
        system.until_answered()
    assert not any(alive(pid) for pid in (*pids.values(), zygote))
    if (side, orphans) == ("site", "continue"):  # at a hub the slots move when the supervisor's sockets close
        lost = {name for name in system.tunnels if pings.reports[name].window(killed, begun).lost}
        assert lost <= {"br2"}
    for name, report in pings.reports.items():
        assert report.rtt_us[-1] is not None, name
    assert (system.lab.leaks().site, system.lab.leaks().hub) == (0, 0)


def alive(pid: int) -> bool:
    """Whether it runs; one whose parent has not looked after it yet does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
