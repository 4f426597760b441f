"""802.1Q interfaces: `vlan`, against a netlink that only remembers. A real kernel makes them in the VM's tests."""

from __future__ import annotations

import errno
from typing import cast

import msgspec
import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from mpq_supervisor.config import parse
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.netlink_decode import decode_link
from mpq_supervisor.netlink_encode import ALIAS, alias_body, link_body, vlan_body
from mpq_supervisor.network import Link
from mpq_supervisor.plan import LanPlan, make_plan
from mpq_supervisor.vlan import make_vlans, remove_vlans
from tests.unit.rtnetlink import decoded, with_header
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
        return dict(self.there)

    def add_vlan(self, name: str, parent: int, vlan: int) -> None:
        self.asked.append(("add", name, parent, vlan))
        if self.refuses:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        if any((link.parent, link.vlan) == (parent, vlan) for link in self.there.values()):
            raise OSError(errno.EEXIST, "File exists")
        self.there[name] = Link(name, 70 + vlan, False, False, 1500, 1000, ALIAS, parent, vlan)

    def set_up(self, index: int) -> None:
        self.asked.append(("up", index))
        self.there = {
            name: msgspec.structs.replace(link, up=True) if link.index == index else link
            for name, link in self.there.items()
        }

    def delete_link(self, index: int) -> None:
        self.asked.append(("delete", index))
        self.there = {name: link for name, link in self.there.items() if link.index != index}


def make(netlink: FakeNetlink, lans: tuple[LanPlan, ...] = LANS) -> tuple[str, ...]:
    return make_vlans(cast(Netlink, netlink), lans)


def link(name: str, *, up: bool = True, index: int = 7) -> Link:
    return Link(name, index, up, up, 1500, 1000)


def vlan_link(name: str, index: int, vlan: int, *, alias: str = ALIAS, parent: int = 7) -> Link:
    return Link(name, index, True, True, 1500, 1000, alias, parent, vlan)


def lan(interface: str, vlan: int | None, parent: str = "enp6s20") -> LanPlan:
    return msgspec.structs.replace(LANS[1], interface=interface, vlan=vlan, parent=parent)


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


def test_one_of_somebody_else_that_is_another_is_told() -> None:
    netlink = FakeNetlink(link("enp6s20"), vlan_link("enp6s20.11", 9, 12, alias=""))
    assert make(netlink) == ("VLAN 11 of enp6s20 as enp6s20.11: another one is there, which is not mpq's",)
    assert netlink.asked == []


def test_what_is_ours_is_taken_away_when_the_plan_has_it_no_more() -> None:
    netlink = FakeNetlink(link("enp6s20"), vlan_link("enp6s20.11", 8, 11), vlan_link("b", 9, 12))
    make(netlink)
    assert netlink.asked == [("delete", 9)]
    named = Link("wan4", 10, True, True, 1500, 0, ALIAS)
    remove_vlans(cast(Netlink, netlink), {**netlink.there, "wan4": named})
    assert netlink.asked[1:] == [("delete", 8)], "the alias alone, which anybody may give, does not make it ours"


@pytest.mark.parametrize("change", [{"vlan": 13}, {"parent": "eth9"}, {"parent": "gone"}])
def test_another_id_or_parent_makes_it_anew(change: dict[str, object]) -> None:
    netlink = FakeNetlink(link("enp6s20"), link("eth9", index=19), vlan_link("enp6s20.11", 8, 11))
    planned = msgspec.structs.replace(LANS[1], **change)
    assert make(netlink, (planned,)) == ()
    assert netlink.asked[0] == ("delete", 8)
    made = {"enp6s20": 7, "eth9": 19}.get(planned.parent or "")
    assert netlink.asked[1:2] == ([] if made is None else [("add", "enp6s20.11", made, planned.vlan)])
    asked = len(netlink.asked)
    make(netlink, (planned,))
    assert len(netlink.asked) == asked, "once"


def test_two_may_change_their_ids_with_each_other() -> None:
    netlink = FakeNetlink(link("enp6s20"), vlan_link("a", 8, 11), vlan_link("b", 9, 12))
    assert make(netlink, (lan("a", 12), lan("b", 11))) == ()
    assert {name: one.vlan for name, one in netlink.there.items()} == {"enp6s20": None, "a": 12, "b": 11}


def test_an_interface_may_get_another_name() -> None:
    netlink = FakeNetlink(link("enp6s20"), vlan_link("old", 8, 11))
    assert make(netlink, (lan("new", 11),)) == ()
    assert set(netlink.there) == {"enp6s20", "new"}


def test_a_refusal_is_told() -> None:
    netlink = FakeNetlink(link("enp6s20"))
    netlink.refuses = True
    assert make(netlink) == ("VLAN 11 of enp6s20 as enp6s20.11: Operation not supported",)


def test_the_messages_say_name_parent_id_and_whose_it_is() -> None:
    message, naming = decoded(ifinfmsg, vlan_body("enp6s20.11", 7, 11)), decoded(ifinfmsg, alias_body("enp6s20.11"))
    assert (message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_LINK")) == ("enp6s20.11", 7)
    assert (naming.get_attr("IFLA_IFNAME"), naming.get_attr("IFLA_IFALIAS")) == ("enp6s20.11", ALIAS)
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "vlan"
    assert info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VLAN_ID") == 11


def test_id_and_parent_are_read_back() -> None:
    found = decode_link(with_header(vlan_body("enp6s20.11", 7, 11)))
    assert (found.name, found.vlan, found.parent) == ("enp6s20.11", 11, 7)
    assert decode_link(with_header(link_body(7))).vlan is None
