"""`mpq-supervisor clear`: takes away all that mpq has set in the network of a host on which it does not run any more.

A stop leaves what refuses LAN traffic (`on_stop = "closed"`), a crash all there is. It is known by its marks, so this
needs no configuration. The package calls it before it is removed: afterwards nobody could.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from mpq_supervisor import guard, logs, nft, ruleset
from mpq_supervisor.desired import Desired
from mpq_supervisor.leftovers import Register
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.reconcile import reconcile
from mpq_supervisor.vlan import remove_vlans
from mpq_worker.contract import ExitCode
from mpq_worker.errors import HostFault

log = logging.getLogger(__name__)


def main(runtime_dir: Path) -> int:
    """Ends what is left of a supervisor's workers, too. Returns 0; 69 after what is in the way: a supervisor that
    runs, or a permission that is missing."""
    logs.set_up()
    try:
        with closing(Register(runtime_dir)) as register, closing(Netlink()) as netlink:
            register.clear()
            refused = take_away(netlink, nft.Table(ruleset.TABLE), nft.Table(guard.TABLE))
    except (HostFault, OSError) as error:
        refused = (str(error),)
    for line in refused:
        log.error("%s", line)
    return ExitCode.UNAVAILABLE if refused else ExitCode.OK


def take_away(netlink: Netlink, *tables: nft.Table) -> tuple[str, ...]:
    """Removes what is ours: these tables, rules, routes, addresses, HTB and VLANs. Returns what the kernel refused;
    raises HostFault and OSError."""
    outcome = reconcile(netlink, lambda _: Desired())
    for table in tables:
        table.remove()
    remove_vlans(netlink, outcome.there.links)
    return outcome.refused
