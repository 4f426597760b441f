"""`make acceptance`: what mpq promises, measured in the lab. RTT 20 ms, 15 Mbit/s per tunnel, unless said otherwise.

    python -m tools.acceptance [isolation|tcp|shared|cpu|kills|start …]      all of them without an argument
    python -m tools.acceptance links=50                                      50 events instead of 200

Every experiment builds a lab of its own, adds rows to `build/acceptance.json` and prints a line as it goes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tools.acceptance import abuse, crashes, hub, isolation, links, repair, restarts, roaming, rules, upgrades
from tools.acceptance.ground import say
from tools.results import Results

OUTPUT = Path("build/acceptance.json")

EXPERIMENTS: dict[str, Callable[..., None]] = {
    "isolation": isolation.isolation,
    "tcp": isolation.tcp,
    "shared": isolation.shared,
    "cpu": isolation.cpu,
    "kills": crashes.kills,
    "start": crashes.start,
    "planned_site": restarts.planned_site,
    "planned_hub": restarts.planned_hub,
    "guardians": restarts.guardians,
    "supervisor": upgrades.supervisor,
    "upgrade": upgrades.upgrade,
    "hub_crash": hub.hub_crash,
    "reconnects": hub.reconnects,
    "rebind": roaming.rebind,
    "key_updates": roaming.key_updates,
    "flood": abuse.flooded,
    "repair": repair.repair,
    "links": links.links,
    "rules": rules.rules,
}


def main(names: list[str]) -> int:
    """Runs the named experiments; 0 if every target was met, 1 if not, 2 for a name that is none."""
    orders = [name.partition("=") for name in names or EXPERIMENTS]
    unknown = {name for name, _, _ in orders} - set(EXPERIMENTS)
    if unknown:
        print(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}", file=sys.stderr)
        return 2
    results = Results.here()
    for name, _, count in orders:
        say(f"--- {name}: {(EXPERIMENTS[name].__doc__ or '').splitlines()[0]}")
        EXPERIMENTS[name](results, *map(int, filter(None, [count])))
        results.write(OUTPUT)  # what was measured stays, even if the next experiment fails
    print(results.table())
    return 0 if all(row.met is not False for row in results.rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
