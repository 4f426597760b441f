"""LAN traffic in 802.1Q VLANs, each into its tunnel."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mpq_supervisor.netlink_encode import ALIAS
from tests.vm import host, plan
from tests.vm.conftest import Figure
from tests.vm.lab import Surroundings
from tools.topology import SERVER, SERVER6
from tools.wait import pause, until


def received() -> dict[str, int]:
    """Packets that the kernel gave to each interface of the site."""
    links = json.loads(host.call("ip", "-j", "-s", "link"))
    return {link["ifname"]: link["stats64"]["tx"]["packets"] for link in links}


def test_all_nine_at_once_each_in_its_tunnel(around: Surroundings) -> None:
    before = received()
    tagged = [around.capture("lan", "trunk", f"vlan {vlan} and udp src port {7400 + vlan}") for vlan in plan.VLANS]
    untagged = around.capture("lan", "trunk", "udp and not vlan")
    with host.probing(around) as streams:
        pause(5)
    after = received()
    assert {(s.name, s.way): s.lost for s in streams} == {(s.name, s.way): 0 for s in streams}
    by_name = {(s.name, s.way): len(s.sent) for s in streams}
    for capture, name in zip(tagged, plan.VLANS.values(), strict=True):
        assert capture.stop() == by_name[name, "down"]
        assert after[name] - before[name] >= by_name[name, "up"]
    assert untagged.stop() == 0


def vlans() -> dict[str, tuple[int, str]]:
    """Id and alias of each 802.1Q interface of the site."""
    links = json.loads(host.call("ip", "-j", "-d", "link", "show", "type", "vlan"))
    return {link["ifname"]: (link["linkinfo"]["info_data"]["id"], link.get("ifalias", "")) for link in links}


def test_who_made_the_interfaces() -> None:
    aliases = {vlan: ALIAS if vlan in plan.OURS else "" for vlan in plan.VLANS}
    assert vlans() == {plan.interface(vlan): (vlan, alias) for vlan, alias in aliases.items()}


@pytest.mark.parametrize("delete", [("link", "del"), ("addr", "flush", "dev")])
def test_what_somebody_deletes_of_a_vlan_is_back(
    delete: tuple[str, ...], around: Surroundings, figure: Figure
) -> None:
    vlan = plan.OURS[0]
    address, wanted = plan.host_address(vlan), host.ours()
    begin = time.monotonic()
    host.call("ip", *delete, plan.interface(vlan))
    until(lambda: host.ours() == wanted, lambda: host.differences(wanted), host.PATIENCE)
    figure(f"VLAN set again after ip {delete[0]} {delete[1]}", time.monotonic() - begin, "s")
    around.run("lan", ["ping", "-c", "2", "-i", "0.2", "-W", "5", "-I", address, SERVER])


def test_another_id_in_the_file_makes_the_interface_anew(around: Surroundings) -> None:
    vlan, file = plan.OURS[-1], Path("/etc/mpq/mpq.toml")
    text = file.read_text()
    made = 0
    for now in (4000, vlan):
        file.write_text(text.replace(f"vlan = {vlan}\n", f"vlan = {now}\n"))
        host.call("mpq-supervisor", "ctl", "reload")
        assert vlans()[plan.interface(vlan)] == (now, ALIAS)
        last, made = made, int(Path("/sys/class/net", plan.interface(vlan), "ifindex").read_text())
        assert made > last
    address = plan.host_address(vlan)
    around.run("lan", ["ping", "-c", "2", "-i", "0.2", "-W", "5", "-I", address, SERVER])
    assert int(Path("/sys/class/net", plan.interface(vlan), "ifindex").read_text()) == made, "once"


@pytest.mark.parametrize("vlan", plan.VLANS)
def test_ipv6(around: Surroundings, vlan: int) -> None:
    around.run("lan", ["ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", "-I", plan.host_address6(vlan), SERVER6])


def test_what_the_program_says_of_a_packet_is_what_happens() -> None:
    said = host.call("mpq-supervisor", "ctl", "classify", f"{plan.host_address(21)}:5060/udp", SERVER)
    assert "cr2" in said


def test_nothing_left_in_clear(around: Surroundings) -> None:
    assert around.leaks().count("packets 0 ") == 2
