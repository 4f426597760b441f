"""802.1Q interfaces of a trunk: makes those that the plan has and the host has not, and takes away its own.

An interface that somebody else has made under the name is used as it is, and stays. Ours are known by their alias,
also to the next supervisor; one with another id or parent than the plan has is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpq_supervisor.netlink import Netlink
from mpq_supervisor.netlink_encode import ALIAS
from mpq_supervisor.network import Link
from mpq_supervisor.plan import LanPlan


def make_vlans(netlink: Netlink, lans: Iterable[LanPlan]) -> tuple[str, ...]:
    """Takes away what is ours and not in the plan, makes what is missing, and sets up what is ours, as soon as their
    parents are there and up.

    Returns what the kernel refused, which is tried again at the next call, and what somebody else has made otherwise.
    """
    refused: list[str] = []
    there, wanted = netlink.links(), {lan.interface: lan for lan in lans if lan.vlan is not None}
    for name, old in list(there.items()):  # all before the first is made: a parent has each id once
        if _is_ours(old) and not (name in wanted and _is_as_planned(old, wanted[name], there)):
            try:
                netlink.delete_link(old.index)
                del there[name]
            except OSError as error:
                refused.append(f"to delete VLAN {old.vlan} {name}: {error.strerror}")
    for name, lan in wanted.items():
        if lan.vlan is None or lan.parent is None or lan.parent not in there:
            continue
        parent, link = there[lan.parent], there.get(name)
        what = f"VLAN {lan.vlan} of {lan.parent} as {name}"
        try:
            if link is None:
                netlink.add_vlan(name, parent.index, lan.vlan)
                link = netlink.links()[name]
            if _is_ours(link) and parent.up and not link.up:
                netlink.set_up(link.index)
        except OSError as error:
            refused.append(f"{what}: {error.strerror}")
            continue
        if link.vlan is not None and not _is_as_planned(link, lan, there):
            refused.append(f"{what}: another one is there, which is not mpq's")
    return tuple(refused)


def remove_vlans(netlink: Netlink, there: Mapping[str, Link]) -> None:
    """Takes away the interfaces that are ours. Raises OSError."""
    for link in there.values():
        if _is_ours(link):
            netlink.delete_link(link.index)


def _is_ours(link: Link) -> bool:
    return link.alias == ALIAS and link.vlan is not None


def _is_as_planned(link: Link, lan: LanPlan, there: Mapping[str, Link]) -> bool:
    parent = there.get(lan.parent or "")
    return parent is not None and (link.vlan, link.parent) == (lan.vlan, parent.index)
