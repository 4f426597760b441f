"""What is said of the kernel's switches: `sysctl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpq_supervisor import sysctl
from mpq_supervisor.config import parse
from mpq_supervisor.plan import make_plan
from tests.unit.test_network import SITE


def test_the_command_is_one_that_sysctl_understands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It takes the dots of an interface's name for the ends of directories, unless these are written as slashes."""
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    plan = make_plan(parse(SITE.replace('interface = "wan4"', 'interface = "enp6s20.11"')))
    for name in ("all", "enp6s20.11", "wan5"):
        directory = tmp_path / "net/ipv4/conf" / name
        directory.mkdir(parents=True)
        (directory / "rp_filter").write_text("1\n")
    assert sysctl.check(plan)[-2:] == [
        "net.ipv4.conf.enp6s20.11.rp_filter is 1, must be 2: sysctl -w net/ipv4/conf/enp6s20.11/rp_filter=2",
        "net.ipv4.conf.wan5.rp_filter is 1, must be 2: sysctl -w net.ipv4.conf.wan5.rp_filter=2",
    ]
