"""What `export` makes of a site: `export`, `export_networkd`, `export_openwrt`; the texts are in golden/."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mpq_supervisor.__main__ import main
from mpq_supervisor.config import parse
from mpq_supervisor.export_networkd import networkd
from mpq_supervisor.export_openwrt import TrunkFault, openwrt
from mpq_supervisor.plan import HostPlan, make_plan
from tests.unit.test_network import HUB, SITE
from tools.lab_config import deploy

GOLDEN = Path(__file__).parent / "golden"
NO_LANS = SITE[: SITE.index("lan =")]
RULES = """
rule = [
    { name = "voice", class = "critical", protocol = "udp", ports = [5060, "10000-20000"] },
    { name = "marked", class = "critical", dscp = [46] },
    { name = "office", class = "bulk", source = ["192.168.1.0/24", "fd00:1::/64"], destination = ["@branch"] },
    { name = "web", class = "default", protocol = "tcp", ports = [443] },
]
set = { branch = { prefixes = ["203.0.113.0/24", "198.51.100.64/26"] } }
"""
LAN = """
[[lan]]
name = "{name}"
interface = "trunk0.{vlan}"
parent = "trunk0"
vlan = {vlan}
wan = "{wan}"
address = ["172.16.{vlan}.1/30", "fd00:{vlan}::1/64"]
prefixes = ["192.168.1.0/24", "fd00:1::/64"]
gateway = ["172.16.{vlan}.2", "fd00:{vlan}::2"]
"""


@pytest.fixture
def plan() -> HostPlan:
    """Two classes by two WANs, one VLAN for all classes."""
    text = NO_LANS + RULES
    for name, vlan, wan, rest in (
        ("voice1", 11, "wan4", 'class = "critical"'),
        ("bulk1", 12, "wan4", 'class = "bulk"'),
        ("voice2", 21, "wan5", 'class = "critical"'),
        ("all", 40, "wan5", ""),
    ):
        text += LAN.format(name=name, vlan=vlan, wan=wan) + rest
    return make_plan(parse(text))


def test_networkd(plan: HostPlan) -> None:
    shown = "".join(f"---- {path}\n{text}" for path, text in networkd(plan).items())
    assert shown == (GOLDEN / "networkd.txt").read_text()


def test_openwrt(plan: HostPlan) -> None:
    assert "\n".join(openwrt(plan, ["eth1"])) + "\n" == (GOLDEN / "openwrt.txt").read_text()


def test_names_of_mwan3_have_room(plan: HostPlan) -> None:
    names = re.findall(r"^uci set mwan3\.(\w+)=", "\n".join(openwrt(plan, ["eth1"])), re.MULTILINE)
    assert len(names) == len(set(names))
    assert max(map(len, names)) <= 15


def test_one_vlan_id_on_two_trunks() -> None:
    text = NO_LANS + RULES
    for name, parent in (("a", "port0"), ("b", "port1")):
        text += LAN.format(name=name, vlan=4094, wan="wan4").replace("trunk0", parent).replace(".4094.", f".{name}.")
    text = text.replace(".a.", ".1.").replace(".b.", ".2.") + 'class = "bulk"'
    plan = make_plan(parse(text))
    with pytest.raises(
        TrunkFault, match=r"VLAN 4094 is there twice on eth1: port0.4094 and port1.4094; --trunk: one"
    ):
        openwrt(plan, ["eth1"])
    with pytest.raises(TrunkFault, match="one for all, or one each for port0, port1"):
        openwrt(plan, ["eth1", "eth2", "eth3"])
    lines = openwrt(plan, ["eth1", "eth2"])
    assert "uci set network.mpq4094_dev.name='eth1.4094'" in lines
    assert "uci set network.mpq4094t2_dev.name='eth2.4094'" in lines
    sections = [line for line in lines if re.fullmatch(r"uci set [^.]+\.[^.]+=.*", line)]
    assert len(sections) == len(set(sections))
    assert "uci set firewall.mpq.network='mpq4094 mpq4094_6 mpq4094t2 mpq4094t2_6'" in lines
    assert max(len(line.split(".")[1].split("=")[0]) for line in sections if " mwan3." in line) <= 15


def test_a_trunk_that_is_a_wan_has_one_file(plan: HostPlan) -> None:
    text = NO_LANS.replace('interface = "wan5"', 'interface = "trunk0"')
    text += LAN.format(name="a", vlan=7, wan="wan4")
    file = networkd(make_plan(parse(text)))["etc/systemd/network/10-mpq-trunk0.network"]
    assert "DHCP=yes" in file
    assert "VLAN=trunk0.7" in file


def test_a_trunk_that_somebody_else_sets_up_has_no_file() -> None:
    """A file of ours would come before the one that it has."""
    text = NO_LANS + '[[lan]]\nname = "office"\ninterface = "trunk0"\nwan = "wan4"\n'
    text += LAN.format(name="a", vlan=7, wan="wan4")
    files = networkd(make_plan(parse(text)))
    assert "etc/systemd/network/10-mpq-trunk0.network" not in files
    assert "the file of trunk0 needs VLAN=trunk0.7" in files["etc/systemd/network/10-mpq-trunk0.7.netdev"]
    assert "Address=172.16.7.1/30" in files["etc/systemd/network/10-mpq-trunk0.7.network"]
    with_address = text.replace('interface = "trunk0"\n', 'interface = "trunk0"\naddress = "172.16.1.1/24"\n')
    own = networkd(make_plan(parse(with_address)))["etc/systemd/network/10-mpq-trunk0.network"]
    assert "Address=172.16.1.1/24" in own
    assert "VLAN=trunk0.7" in own


def test_a_hub_has_tunnels_to_be_left_alone() -> None:
    files = networkd(make_plan(parse(HUB)))
    assert list(files) == ["etc/systemd/networkd.conf.d/mpq.conf", "etc/systemd/network/10-mpq-tunnels.network"]
    assert "Name=mt4c mt4d mt4b\n" in files["etc/systemd/network/10-mpq-tunnels.network"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = deploy(tmp_path).site
    assert main(["export", "openwrt", str(site)]) == 78
    assert capsys.readouterr().out == f"{site}: lan: none has a vlan, so there is no trunk to a router\n"
    assert main(["export", "networkd", str(site)]) == 0
    assert "# ---- /etc/systemd/networkd.conf.d/mpq.conf\n" in capsys.readouterr().out
    assert main(["export", "networkd", "--root", "/dev/null", str(site)]) == 73
    assert "/dev/null/etc/systemd/networkd.conf.d" in capsys.readouterr().err
    assert main(["export", "networkd", "--root", str(tmp_path / "root"), str(site)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert "[Match]\nName=wan4\n" in (tmp_path / "root/etc/systemd/network/10-mpq-wan4.network").read_text()
    assert all(path.is_file() for path in written)
    site.write_text(site.read_text() + LAN.format(name="a", vlan=7, wan="wan4"))
    assert main(["export", "openwrt", "--trunk", "lan4", str(site)]) == 0
    assert "uci set network.mpq7_dev.name='lan4.7'" in capsys.readouterr().out
    site.write_text("nothing")
    assert main(["export", "networkd", str(site)]) == 78


def test_networkd_may_read_the_files_whatever_the_umask(tmp_path: Path) -> None:
    site, root = deploy(tmp_path).site, tmp_path / "root"
    old = root / "etc/systemd/network/10-mpq-wan4.network"
    old.parent.mkdir(parents=True)
    old.touch(0o600)
    before = os.umask(0o077)
    try:
        assert main(["export", "networkd", "--root", str(root), str(site)]) == 0
        assert main(["export", "networkd", "--root", str(tmp_path / "a/b"), str(site)]) == 0
    finally:
        os.umask(before)
    _check_modes(root)
    _check_modes(tmp_path / "a")


def _check_modes(root: Path) -> None:
    modes = {(path.is_dir(), path.stat().st_mode & 0o7777) for path in (root, *root.rglob("*"))}
    assert modes == {(True, 0o755), (False, 0o644)}
