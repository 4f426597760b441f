"""802.1Q interfaces of a trunk: makes those that the plan has and the host has not, and takes away its own.

An interface that somebody else has made under the name is used as it is, and stays. Ours are known by their alias,
also to the next supervisor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mpq_supervisor.netlink import Netlink
from mpq_supervisor.netlink_encode import ALIAS
from mpq_supervisor.network import Link
from mpq_supervisor.plan import LanPlan


def make_vlans(netlink: Netlink, lans: Iterable[LanPlan]) -> tuple[str, ...]:
    """Makes what is missing and sets up what is ours, as soon as their parents are there and up.

    Returns what the kernel refused, which is tried again at the next call.
    """
    refused: list[str] = []
    tagged = [lan for lan in lans if lan.vlan is not None]
    there = netlink.links() if tagged else {}
    for lan in tagged:
        if lan.vlan is None or lan.parent is None or lan.parent not in there:
            continue
        parent, own = there[lan.parent], there.get(lan.interface)
        try:
            if own is None:
                netlink.add_vlan(lan.interface, parent.index, lan.vlan)
                own = netlink.links()[lan.interface]
            if own.alias == ALIAS and parent.up and not own.up:
                netlink.set_up(own.index)
        except OSError as error:
            refused.append(f"VLAN {lan.vlan} of {lan.parent} as {lan.interface}: {error.strerror}")
    return tuple(refused)


def remove_vlans(netlink: Netlink, there: Mapping[str, Link], keep: Collection[str] = ()) -> None:
    """Takes away the interfaces that are ours, but for those to keep. Raises OSError."""
    for link in there.values():
        if link.alias == ALIAS and link.name not in keep:
            netlink.delete_link(link.index)
