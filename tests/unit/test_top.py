"""What `top` shows, and that it fits."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from mpq_supervisor import top
from mpq_supervisor.life import State
from mpq_supervisor.portal.alarm_models import Alarm
from mpq_supervisor.status import HostStatus, WorkerStatus
from tests.unit.samples import changed

ALARM = Alarm("loss/br2", "loss", "loss", "warning", "br2", "br2", "wan5", "bulk", 0.2, 0.05, 1.0)


def host(*workers: WorkerStatus) -> HostStatus:
    return HostStatus("site", "ship1", 1, 11_000.0, 2, 0, workers, ())


def shown(status: HostStatus, *alarms: Alarm, height: int | None = 24) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80, height=height).print(top.screen(status, alarms, height))
    return out.getvalue().splitlines()


def test_nine_tunnels_fit_into_a_small_terminal() -> None:
    busy = [
        changed(name=name, state=State.UP, rtt=1.2345, loss_tx=0.123, rate_in=123.4e6, rate_out=98.7e6,
                drops={"codel": 123_456}, restarts=12)
        for name in ("mt4.critical", "mt4.default", *(f"cr{n}" for n in range(6)))
    ]  # fmt: skip
    down = changed(name="br2", state=State.REPLACING, rtt=None, loss_tx=None)
    lines = shown(host(*busy, down), ALARM)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("site ship1  up 3h03m  9 of 9 serve")
    assert lines[3].split() == ["mt4.critical", "UP", "3.2s", "1234.5", *lines[3].split()[4:]]
    assert lines[3].split()[5] == "12.3%"
    assert lines[3].split()[-4:] == ["123.4", "98.7", "123k", "12"]
    assert lines[-1] == "warning: loss/br2"


def test_what_does_not_serve_comes_first_where_not_all_fit() -> None:
    many = [changed(name=f"w{n}", state=State.UP) for n in range(40)]
    many[39] = changed(name="w39", state=State.FAILED, reason="exit 78")
    lines = shown(host(*many))
    assert len(lines) <= 24
    assert lines[3].startswith("w39 ")
    assert "and 22 more" in lines
    assert lines[-1] == "w39: exit 78"
    assert len(shown(host(*many), height=None)) > 40


def test_without_a_supervisor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main(Namespace(runtime_dir=tmp_path, once=True)) == 4
    assert (
        capsys.readouterr().err
        == f"mpq-supervisor top: no supervisor at {tmp_path}/ctl.sock: No such file or directory\n"
    )
