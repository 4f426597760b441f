"""`make vm-test`: the package and tests/vm in a small Debian 12 with systemd; writes build/vm.xml.

python -m tools.vm build/mpq_0.1.0_amd64.deb [GROUP …]

A group is a file of tests, `boot` is tests/vm/test_boot.py; the installation comes first in any case. What the
machine says is in build/vm.console, also while it runs.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.vm import image, machine, payload, report

_ROOT = Path(__file__).parents[2]
_BUILD = _ROOT / "build"
_PATIENCE = 3600.0
_GROUPS = ("boot", "lan", "kernel", "networkd", "unit", "service", "upgrade", "removal")
"""In this order: the last one takes the program away."""


def main(package: Path, groups: Sequence[str]) -> int:
    """Run these groups; the exit code is 1 unless every test passed."""
    disk, kernel = image.ready(_BUILD / "vm")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_BUILD) as name:
        archive = Path(name, "payload.tar")
        payload.write(archive, _ROOT, package, groups)
        try:
            files = machine.run(disk, kernel, archive, _BUILD / "vm.console", _PATIENCE)
        except machine.MachineError as error:
            print(f"vm-test: {error}; see build/vm.console")
            return 1
    logs = {name: data for name, data in files.items() if not name.endswith(".xml")}
    for name, data in logs.items():
        (_BUILD / f"vm.{name}").write_bytes(data)
    outcome = report.merge({name: data for name, data in files.items() if name.endswith(".xml")})
    (_BUILD / "vm.xml").write_bytes(outcome.xml)
    print(outcome.line(time.monotonic() - begin))
    for failure in outcome.failures:
        print(f"  {failure}")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the machine ends too
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:] or _GROUPS))
