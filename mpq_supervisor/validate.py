"""What one field alone cannot show: names, numbers and addresses that do not go together. Pure.

Every check adds to one list, so that all problems of a file are found at once. A section that `decode` could
not read is None here, and is passed over: it has been reported.
"""

from __future__ import annotations

from collections.abc import Container
from ipaddress import IPv6Address

import msgspec

from mpq_supervisor import arithmetic
from mpq_supervisor.decode import Problem
from mpq_supervisor.problems import KERNEL_TABLES, Problems, each
from mpq_supervisor.schema import Address, Config, Portal, SiteConfig, Supervisor, Watchdog
from mpq_supervisor.validate_alarms import check_alarms
from mpq_supervisor.validate_hub import check_hub
from mpq_supervisor.validate_site import check_site
from mpq_worker.contract import HEARTBEAT_INTERVAL


def validate(config: Config, unread: Container[str] = ()) -> list[Problem]:
    """Every problem between the fields of a decoded configuration; `unread` are the paths of those that have been
    reported."""
    problems = Problems(unread)
    problems.check_unique("class", "name", ((p, entry.name) for p, entry in each(config.classes, "class")))
    classes = tuple(entry for _, entry in each(config.classes, "class"))
    if any(f"class[{index}].name" in unread for index in range(len(config.classes))):
        classes = ()  # it may be any: all are taken to be there
    config = msgspec.structs.replace(config, classes=classes)
    if isinstance(config, SiteConfig):
        check_site(config, problems)
    else:
        check_hub(config, problems)
    _check_supervisor(config.supervisor, len(config.lan) if isinstance(config, SiteConfig) else 0, problems)
    _check_watchdog(config.watchdog, problems)
    if config.portal is not None:
        _check_portal(config.portal, problems)
        check_alarms(config, config.portal, problems)
    return problems.found


def _check_supervisor(supervisor: Supervisor, lans: int, problems: Problems) -> None:
    tables = arithmetic.own_tables(supervisor.table_base, lans)
    clash = sorted(KERNEL_TABLES & set(tables))
    if clash:
        problems.add(
            "supervisor.table_base",
            f"tables {tables[0]}-{tables[-1]} would contain {clash[0]}, which is the kernel's",
        )
    bits = supervisor.mark_mask >> arithmetic.mark_shift(supervisor.mark_mask)
    if bits & (bits + 1):
        problems.add("supervisor.mark_mask", f"{supervisor.mark_mask:#010x} is not one run of bits")
    elif bits < 27:
        problems.add("supervisor.mark_mask", f"{supervisor.mark_mask:#010x} has fewer than five bits")
    elif lans > (room := arithmetic.lan_room(supervisor.mark_mask)):
        text = f"{supervisor.mark_mask:#010x} has room for {room} LANs, not for {lans}"
        problems.add("supervisor.mark_mask", text)
    if len(set(supervisor.cpus)) < len(supervisor.cpus):
        problems.add("supervisor.cpus", "names a CPU twice")
    for key in ("runtime_directory", "state_directory"):
        if not str(getattr(supervisor, key)).startswith("/"):
            problems.add(f"supervisor.{key}", "must be an absolute path")


def _check_watchdog(watchdog: Watchdog, problems: Problems) -> None:
    if watchdog.backoff_initial > watchdog.backoff_max:
        problems.add("watchdog.backoff_initial", "is longer than backoff_max", "watchdog.backoff_max")
    if watchdog.probe_interval >= watchdog.peer_timeout:
        problems.add("watchdog.probe_interval", "must be shorter than peer_timeout", "watchdog.peer_timeout")
    if watchdog.heartbeat_timeout < 2 * HEARTBEAT_INTERVAL:
        problems.add(
            "watchdog.heartbeat_timeout", f"must be at least {2 * HEARTBEAT_INTERVAL}, two missed heartbeats"
        )


def _check_portal(portal: Portal, problems: Problems) -> None:
    tokens = list(each(portal.token, "portal.token"))
    problems.check_unique("token", "name", ((path, token.name) for path, token in tokens))
    first: dict[str, str] = {}
    for path, token in tokens:
        if first.setdefault(token.hash, path) != path:
            problems.add(
                f"{path}.hash", f"is that of {first[token.hash]}: a token is one user's", f"{first[token.hash]}.hash"
            )
    if bool(portal.certificate) != bool(portal.key):
        key = "portal.key" if portal.certificate else "portal.certificate"
        problems.add(key, "is missing, the other is there")
    for index, address in enumerate(portal.address):
        before = portal.address[:index]
        if _is_no_host(address):
            problems.add(f"portal.address[{index}]", f"{address} is no address that one can listen on")
            continue
        if not (portal.certificate or address.is_loopback):
            text = f"{address} is not this host's own: needs certificate and key"
            problems.add(f"portal.address[{index}]", text, "portal.certificate", "portal.key")
        if address in before:
            problems.add(f"portal.address[{index}]", f"{address} is there twice")
        elif clash := next((other for other in before if _takes(other, address) or _takes(address, other)), None):
            text = f"{address} and {clash}: one of them is every address of the host already"
            problems.add(f"portal.address[{index}]", text)
    if not portal.address:
        problems.add("portal.address", "needs at least one address")


def _is_no_host(address: Address) -> bool:
    """What is for many, or for one link, or is IPv4 in IPv6's clothes: the families are kept apart."""
    if isinstance(address, IPv6Address):
        return address.is_multicast or address.is_link_local or address.ipv4_mapped is not None
    return address.is_multicast or address.is_reserved


def _takes(wide: Address, address: Address) -> bool:
    """Whether who listens on `wide` has this one too."""
    return wide.is_unspecified and wide.version == address.version
