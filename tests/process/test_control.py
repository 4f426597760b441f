"""`ctl` against a running fleet: every command, every exit code."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mpq_supervisor import control, ctl
from mpq_supervisor.change import ChangeRefused, Configuration
from mpq_supervisor.control import Control
from mpq_supervisor.effects import Change, Effect, Preview
from mpq_supervisor.inquiry import Inquiry
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.requests import MAX_REQUEST, SOCKET_NAME
from tests.process.conftest import Rig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]
Capture = pytest.CaptureFixture[str]
NO_PORTAL = Inquiry(lambda _: False)


async def ctl_in_thread(directory: Path, *args: str) -> int:
    """The client blocks, as a program of its own does; the fleet must turn meanwhile."""
    return await asyncio.to_thread(ctl.main, ["--runtime-dir", str(directory), *args])


class Changes:
    """In the place of `Configuration`: answers with what a test puts there, and notes what it was asked."""

    def __init__(self, plan: HostPlan) -> None:
        self.plan = plan
        self.problem = ""
        self.difference = Preview((), {})
        self.asked: list[object] = []

    def preview(self, text: str = "") -> Preview:
        return self._answer(("preview", text))

    def reload(self) -> Preview:
        return self._answer("reload")

    def commit(self, seconds: float) -> Preview:
        return self._answer(("commit", seconds))

    def rollback(self) -> Preview:
        return self._answer("rollback")

    def confirm(self) -> bool:
        self.asked.append("confirm")
        return not self.problem

    def _answer(self, asked: object) -> Preview:
        self.asked.append(asked)
        if self.problem:
            raise ChangeRefused([self.problem])
        return self.difference


class Served:
    """A fleet with its control socket."""

    def __init__(self, plan: HostPlan, directory: Path) -> None:
        self.directory = directory
        self.rig = Rig(plan, directory)
        self.configuration = Changes(plan)
        self.control = Control(self.rig.fleet, cast(Configuration, self.configuration), self.rig.network, NO_PORTAL)

    async def __aenter__(self) -> Served:
        await self.control.start(self.directory, "no-such-group")
        await self.rig.__aenter__()
        await self.rig.all_in("UP")
        return self

    async def __aexit__(self, *args: object) -> None:
        self.control.close()
        await self.rig.__aexit__(*args)

    async def ctl(self, *args: str) -> int:
        return await ctl_in_thread(self.directory, *args)


def test_every_command(run: Run, site_plan: HostPlan, tmp_path: Path, capsys: Capture) -> None:
    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            assert await served.ctl("status", "--check") == 0
            lines = capsys.readouterr().out.splitlines()
            assert lines[0].startswith("site ship1, up ")
            assert [line.split()[:4] for line in lines[3:5]] == [
                ["cr1", "critical", "wan4", "UP"],
                ["br1", "bulk", "wan4", "UP"],
            ]
            assert len({line.index("UP") for line in lines[3:]}) == 1

            assert await served.ctl("show", "cr1") == 0
            assert "uid 47000" in capsys.readouterr().out

            pid = served.rig.pid("br1")
            assert await served.ctl("restart", "bulk") == 0
            assert capsys.readouterr().out == "br1  UP\nbr2  UP\n"
            assert served.rig.pid("br1") != pid

            assert await served.ctl("stop", "wan4") == 0
            assert served.rig.fleet.summary() == "3 STOPPED, 3 UP"
            assert await served.ctl("status", "--check") == 1
            assert await served.ctl("status", "--check", "wan5") == 0
            assert await served.ctl("start", "all") == 0
            assert served.rig.fleet.summary() == "6 UP"
            assert await served.ctl("restart", "--no-wait", "cr1") == 0
            capsys.readouterr()

            assert await served.ctl("reload") == 0
            assert capsys.readouterr().out == "nothing changed\n"
            served.configuration.problem = "wan[1].interface: missing"
            assert await served.ctl("reload") == 1
            assert capsys.readouterr().err == "wan[1].interface: missing\n"

            assert await served.ctl("classify", "172.16.1.9:5060/udp", "192.0.2.1") == 0
            assert capsys.readouterr().out == "lan1: rule voice, critical, cr1 (cr2 when all are up)\n"
            assert await served.ctl("classify", "172.16.1.9/udp", "192.0.2.1:1", "--dscp", "46") == 1
            assert capsys.readouterr().err == "no [[lan]] has a route to 172.16.1.9/udp\n"
            assert await served.ctl("classify", "172.16.1.9/udp", "192.0.2.1") == 2
            assert capsys.readouterr().err == "udp needs a port: 192.0.2.1:PORT\n"
            assert await served.ctl("classify", "172.16.1.9/udp") == 2
            assert "a source and a destination, or neither" in capsys.readouterr().err
            assert await served.ctl("classify") == 0
            lines = capsys.readouterr().out.splitlines()
            assert lines[1].split() == ["voice", "critical", "7", "udp", "port", "5060,10000-20000"]
            assert lines[-1] == "packets: refused_bulk 3"

            for name in ("cr1\n2026-01-01 INFO control: uid 0: stop all", "\x1b[2J", "\udcff", "x" * 129, ""):
                assert await served.ctl("stop", "cr1", name) == 3
                (line,) = capsys.readouterr().err.splitlines()
                assert line.isprintable()
            assert await served.ctl("silence", "--minutes", "9" * 30) == 2
            assert await served.ctl("silence", "--reason", "\udcff") == 2
            assert capsys.readouterr().err.count("cannot be asked for") == 1
            assert await served.ctl("stop", "cr1", "bulc") == 3
            assert capsys.readouterr().err == 'no "bulc" here (did you mean "bulk"?)\n'
            await served.rig.all_in("UP")

    run(body())


def test_changes_of_the_configuration(run: Run, site_plan: HostPlan, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other.toml"
    other.write_text('role = "site"')

    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            changes = served.configuration
            assert await served.ctl("plan") == 0
            assert capsys.readouterr().out == "no difference\n"
            changes.difference = Preview(
                (Change("wan[wan4].mtu", "1400", "1300", Effect.RESTART, True),), {"br1": "restart"}
            )
            assert await served.ctl("plan", str(other)) == 6
            assert capsys.readouterr().out.splitlines() == [
                f"wan[wan4].mtu: 1400 → 1300 ({Effect.RESTART}; the other end has to follow)",
                "br1 restarts",
            ]
            assert await served.ctl("plan", "--json") == 6
            assert json.loads(capsys.readouterr().out)["preview"]["workers"] == {"br1": "restart"}
            assert await served.ctl("commit", "--confirm", "60") == 0
            assert await served.ctl("confirm") == 0
            last = capsys.readouterr().out.splitlines()[-2:]
            assert last == ["goes back in 60 s unless `ctl confirm` comes", "confirmed"]
            assert await served.ctl("commit") == 0
            assert await served.ctl("rollback") == 0
            assert changes.asked == [
                ("preview", ""), ("preview", 'role = "site"'), ("preview", ""),
                ("commit", 60.0), "confirm", "reload", "rollback",
            ]  # fmt: skip
            changes.problem = "no"
            assert [await served.ctl(verb) for verb in ("plan", "commit", "confirm", "rollback")] == [1, 1, 1, 1]
            assert await served.ctl("plan", str(tmp_path / "missing.toml")) == 1
            assert "missing.toml: No such file" in capsys.readouterr().err
            assert await served.ctl("commit", "--confirm", "0.5") == 2

    run(body())


def test_alarms_need_a_portal(run: Run, site_plan: HostPlan, tmp_path: Path, capsys: Capture) -> None:
    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            assert await served.ctl("alarms") == 1
            assert capsys.readouterr().err == "no portal listens: see [portal] in the configuration\n"
            assert await served.ctl("silence", "--minutes", "0") == 2
            assert "Expected `int` >= 1 - at `$.silence.minutes`" in capsys.readouterr().err

    run(body())


def test_json_is_for_programs(run: Run, hub_plan: HostPlan, tmp_path: Path, capsys: Capture) -> None:
    async def body() -> None:
        async with Served(hub_plan, tmp_path) as served:
            assert await served.ctl("status", "--json") == 0
            answer = json.loads(capsys.readouterr().out)
            assert answer["code"] == 0
            assert answer["status"]["sites"] == ["ship1", "ship2"]
            worker = answer["status"]["workers"][0]
            assert (worker["name"], worker["class"], worker["wan"], worker["state"]) == (
                "mt4.critical", "critical", "mt4", "UP",
            )  # fmt: skip
            assert worker["rtt"] is None
            assert await served.ctl("status") == 0
            assert "ship2" in capsys.readouterr().out

    run(body())


def test_restart_that_does_not_come_up_in_time(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            served.rig.network.set_link("wan5", False)
            assert await served.ctl("restart", "--wait", "0.3", "cr2") == 1
            assert await served.ctl("restart", "--wait", "3", "cr1") == 0

    run(body())


def test_who_asks_is_told_as_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="SEA\\Jörg Müller\n"))
    assert control._user(1000) == "SEA\\J_rg_M_ller_"


def test_nobody_there(tmp_path: Path, capsys: Capture) -> None:
    assert ctl.main(["--runtime-dir", str(tmp_path), "status"]) == 4
    assert "no supervisor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["bogus"],
        ["show"],
        ["restart", "--wait", "-1", "cr1"],
        ["classify", "é/udp", "8.8.8.8:1"],
        ["classify", "1.2.3.4/udp", "9" * 200],
    ],
)
def test_usage(args: list[str], capsys: Capture) -> None:
    assert ctl.main(args) == 2


STRANGER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(5)
    sock.connect(f"/proc/self/fd/{sys.argv[1]}")
    sock.sendall(b'{"command": "stop"}\\n')
    sys.stdout.write(sock.recv(1000).decode())
"""


def test_strangers_are_refused(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    def ask_as_nobody() -> bytes:
        """It reaches the socket through a descriptor, since it may not pass the directories."""
        path = os.open(tmp_path / SOCKET_NAME, os.O_PATH)
        try:
            command = ["/usr/bin/python3", "-c", STRANGER, str(path)]
            return subprocess.run(command, user=65534, pass_fds=[path], stdout=-1, check=True).stdout
        finally:
            os.close(path)

    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
            (tmp_path / SOCKET_NAME).chmod(0o666)
            answer = json.loads(await asyncio.to_thread(ask_as_nobody))
            assert answer["code"] == 5
            assert served.rig.fleet.summary() == "6 UP"

    run(body())


def test_a_request_without_end_is_cut_off(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            _, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
            writer.write(b"x" * (8 * MAX_REQUEST))
            with pytest.raises(ConnectionError):
                await writer.drain()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            assert await served.ctl("status", "--check") == 0

    run(body())


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"nonsense\n",
        b'{"command": "explode"}\n',
        b'{"command": "stop", "names": ["cr1\\nuid 0: stop"]}\n',
        b'{"command": "stop", "names": ["cr1\\n"]}\n',
        b'{"command": "stop", "names": ["cr1"], "by": "\\u001b[2J"}\n',
    ],
)
def test_nonsense_is_answered_and_forgotten(
    run: Run, site_plan: HostPlan, tmp_path: Path, request_line: bytes
) -> None:
    async def body() -> None:
        async with Served(site_plan, tmp_path) as served:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
            writer.write(request_line)
            answer = json.loads(await reader.read())
            assert answer["code"] == 2
            writer.close()
            await writer.wait_closed()
            assert await served.ctl("status", "--check") == 0

    run(body())
