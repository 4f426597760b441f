"""The kernel switches that mpq depends on and does not set: `check` says which are wrong and what mends them.

They are the administrator's (etc/sysctl.d/90-mpq.conf): the supervisor may not write /proc/sys.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

from mpq_supervisor.arithmetic import overlaps
from mpq_supervisor.desired import behind
from mpq_supervisor.network import Snapshot
from mpq_supervisor.plan import HostPlan, LanPlan

_ROOT = Path("/proc/sys")
_STRICT = 1


def check(plan: HostPlan, there: Snapshot) -> list[str]:
    """One line for each wrong value, by name, with the command that mends it. Missing interfaces are no error."""
    shared = _of_one_prefix(plan, there)
    return [*_forwarding(plan), *_reverse_path(plan, shared), *_icmp_errors(shared), *_router_advertisements(plan)]


def _forwarding(plan: HostPlan) -> Iterator[str]:
    if _read("net.ipv4.ip_forward") == 0:
        yield _wrong("net.ipv4.ip_forward", 0, 1)
    if not any(worker.inner6 for worker in plan.workers):
        return
    for name, value in (("net.ipv6.conf.all.disable_ipv6", 0), ("net.ipv6.conf.all.forwarding", 1)):
        found = _read(name)
        if found is None:
            yield f"{name} does not exist: this kernel runs without IPv6, but the configuration has inner IPv6"
        elif found != value:
            yield _wrong(name, found, value)


def _reverse_path(plan: HostPlan, shared: list[LanPlan]) -> Iterator[str]:
    """The kernel takes the larger of `all` and the interface's own. TUNs pass at any value, see netlink.set_tun."""
    everywhere = _read("net.ipv4.conf.all.rp_filter") or 0
    for interface in (*(wan.interface for wan in plan.wans), *(lan.interface for lan in shared)):
        name = f"net.ipv4.conf.{interface}.rp_filter"
        own = _read(name)
        if own is not None and max(own, everywhere) == _STRICT:
            yield _wrong(name, _STRICT, 2)


def _icmp_errors(shared: list[LanPlan]) -> Iterator[str]:
    """What the kernel tells a host by ICMP belongs to no flow; of several LANs only the mark says which it is in."""
    if shared:
        for name in ("net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"):
            if _read(name) == 0:
                yield _wrong(name, 0, 1)


def _of_one_prefix(plan: HostPlan, there: Snapshot) -> list[LanPlan]:
    """The LANs that have a prefix in common with another one, as configured or by whoever has set it."""
    networks = {lan.name: {ip_network(route.destination) for route in behind(lan, there)} for lan in plan.lans}
    for lan in plan.lans:  # also one whose link is down and has no routes yet
        found = (a.network for a in there.assigned if a.interface == lan.interface)
        networks[lan.name] |= {network for network in found if not network.is_link_local}
    sharing = {name for pair in overlaps(networks) for name in pair}
    return [lan for lan in plan.lans if lan.name in sharing]


def _router_advertisements(plan: HostPlan) -> Iterator[str]:
    """A host that forwards ignores them at accept_ra=1. (0 is somebody's choice: networkd reads them itself.)"""
    if not _read("net.ipv6.conf.all.forwarding"):
        return
    for wan in plan.wans:
        name = f"net.ipv6.conf.{wan.interface}.accept_ra"
        if _read(name) == 1:
            yield _wrong(name, 1, 2)


def _wrong(name: str, found: int, wanted: int) -> str:
    """Where an interface's name contains dots, sysctl(8) and sysctl.d(5) need slashes between the parts."""
    path = _path(name)
    shown = path if path.count("/") < name.count(".") else name
    return f"{name} is {found}, must be {wanted}: sysctl -w {shown}={wanted}"


def _read(name: str) -> int | None:
    """The value, None where there is none."""
    try:
        return int((_ROOT / _path(name)).read_text())
    except OSError:
        return None


def _path(name: str) -> str:
    """Below /proc/sys. An interface's name may contain dots, the switch's does not."""
    head, _, rest = name.partition(".conf.")
    interface, _, switch = rest.rpartition(".")
    return "/".join([head.replace(".", "/"), *(["conf", interface, switch] if rest else [])])
