"""A worker cannot import: whatever its libraries load on first use, the zygote must have loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, time
from mpq_worker import driver, rehearsal, zygote
rehearsal.rehearse(time.time())
zygote.preload()
loaded = set(sys.modules)

from mpq_supervisor import pki
from tests.sim.conftest import World
mine = set(sys.modules)

world = World()
world.entry("ship1", "10.200.11.5")
world.add_hub()
world.add_site("ship1")
world.add_site("stranger", port=2)
world.add_site("ship1", port=3, ca=pki.issue_authority())
world.add_site("ship1", port=4, hub_name="other.test")
world.net.run(3.0)
assert any(node.core.report(0).path for node in world.net.nodes.values())
print(*sorted(set(sys.modules) - mine - loaded))
"""


def test_nothing_is_loaded_after_the_fork() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, stdout=-1, text=True, check=True)
    assert done.stdout.split() == []
