"""802.1Q interfaces: `vlan`, against a netlink that only remembers. A real kernel makes them in the VM's tests."""

from __future__ import annotations

import errno
from typing import cast

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from mpq_supervisor.config import parse
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.netlink_encode import ALIAS, alias_body, vlan_body
from mpq_supervisor.network import Link
from mpq_supervisor.plan import make_plan
from mpq_supervisor.vlan import make_vlans, remove_vlans
from tests.unit.test_desired import VLANS
from tests.unit.test_network import SITE

LANS = make_plan(parse(SITE[: SITE.index("lan =")] + VLANS)).lans


class FakeNetlink:
    """Links by name; what it is asked to change."""

    def __init__(self, *links: Link) -> None:
        self.there = {link.name: link for link in links}
        self.asked: list[tuple[object, ...]] = []
        self.refuses = False

    def links(self) -> dict[str, Link]:
        return self.there

    def add_vlan(self, name: str, parent: int, vlan: int) -> None:
        self.asked.append(("add", name, parent, vlan))
        if self.refuses:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        self.there[name] = Link(name, 70 + vlan, False, False, 1500, 1000, ALIAS)

    def set_up(self, index: int) -> None:
        self.asked.append(("up", index))

    def delete_link(self, index: int) -> None:
        self.asked.append(("delete", index))


def make(netlink: FakeNetlink) -> tuple[str, ...]:
    return make_vlans(cast(Netlink, netlink), LANS)


def link(name: str, *, up: bool = True, alias: str = "") -> Link:
    return Link(name, 7, up, up, 1500, 1000, alias)


def test_it_is_made_when_its_parent_is_there_and_set_up_when_that_is_up() -> None:
    netlink = FakeNetlink()
    assert make(netlink) == ()
    assert netlink.asked == []
    netlink.there["enp6s20"] = link("enp6s20", up=False)
    make(netlink)
    make(netlink)
    assert netlink.asked == [("add", "enp6s20.11", 7, 11)]
    netlink.there["enp6s20"] = link("enp6s20")
    make(netlink)
    assert netlink.asked[1:] == [("up", 81)]


def test_one_of_somebody_else_is_left_as_it_is() -> None:
    netlink = FakeNetlink(link("enp6s20"), link("enp6s20.11", up=False))
    make(netlink)
    remove_vlans(cast(Netlink, netlink), netlink.there)
    assert netlink.asked == []


def test_what_is_ours_is_taken_away_but_for_what_is_kept() -> None:
    netlink = FakeNetlink(link("a", alias=ALIAS), Link("b", 8, True, True, 1500, 0, ALIAS), link("c"))
    remove_vlans(cast(Netlink, netlink), netlink.there, ["a"])
    assert netlink.asked == [("delete", 8)]


def test_a_refusal_is_told() -> None:
    netlink = FakeNetlink(link("enp6s20"))
    netlink.refuses = True
    assert make(netlink) == ("VLAN 11 of enp6s20 as enp6s20.11: Operation not supported",)


def decoded(body: bytes) -> ifinfmsg:
    message = ifinfmsg((16 + len(body)).to_bytes(4, "little") + bytes(12) + body)
    message.decode()
    return message


def test_the_messages_say_name_parent_id_and_whose_it_is() -> None:
    message, naming = decoded(vlan_body("enp6s20.11", 7, 11)), decoded(alias_body("enp6s20.11"))
    assert (message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_LINK")) == ("enp6s20.11", 7)
    assert (naming.get_attr("IFLA_IFNAME"), naming.get_attr("IFLA_IFALIAS")) == ("enp6s20.11", ALIAS)
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "vlan"
    assert info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VLAN_ID") == 11
