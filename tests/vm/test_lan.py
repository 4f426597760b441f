"""LAN traffic in 802.1Q VLANs, each into its tunnel."""

from __future__ import annotations

import json

import pytest

from tests.vm import host, plan
from tests.vm.lab import Surroundings
from tools.topology import SERVER, SERVER6
from tools.wait import pause


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


@pytest.mark.parametrize("vlan", plan.VLANS)
def test_ipv6(around: Surroundings, vlan: int) -> None:
    around.run("lan", ["ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", "-I", plan.host_address6(vlan), SERVER6])


def test_what_the_program_says_of_a_packet_is_what_happens() -> None:
    said = host.call("mpq-supervisor", "ctl", "classify", f"{plan.host_address(21)}:5060/udp", SERVER)
    assert "cr2" in said


def test_nothing_left_in_clear(around: Surroundings) -> None:
    assert around.leaks().count("packets 0 ") == 2
