"""What is said of the kernel's switches: `sysctl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpq_supervisor import sysctl
from mpq_supervisor.config import parse
from mpq_supervisor.network import MAIN_TABLE, Address, Route, Snapshot
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
    assert sysctl.check(plan, Snapshot())[-2:] == [
        "net.ipv4.conf.enp6s20.11.rp_filter is 1, must be 2: sysctl -w net/ipv4/conf/enp6s20.11/rp_filter=2",
        "net.ipv4.conf.wan5.rp_filter is 1, must be 2: sysctl -w net.ipv4.conf.wan5.rp_filter=2",
    ]


@pytest.mark.parametrize(
    ("there", "shared"),
    [
        (Snapshot(), False),
        (Snapshot(assigned=frozenset({Address("lan1", "10.1.0.1", 16), Address("lan2", "10.1.2.1", 24)})), True),
        (Snapshot(routes=tuple(Route(MAIN_TABLE, "10.1.0.0/16", lan) for lan in ("lan1", "lan2"))), True),
        (Snapshot(assigned=frozenset({Address("lan1", "10.1.0.1", 16), Address("wan5", "10.1.2.1", 24)})), False),
        (Snapshot(assigned=frozenset(Address(lan, "fe80::1", 64) for lan in ("lan1", "lan2"))), False),
    ],
)
def test_lans_share_a_prefix_whoever_has_set_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: Snapshot, shared: bool
) -> None:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / "net/ipv4/fwmark_reflect").write_text("0\n")
    lans = "".join(f'[[lan]]\nname = "{name}"\ninterface = "{name}"\nwan = "wan4"\n' for name in ("lan1", "lan2"))
    plan = make_plan(parse(SITE[: SITE.index("lan =")] + lans))
    assert any(line.startswith("net.ipv4.fwmark_reflect is 0") for line in sysctl.check(plan, there)) is shared
