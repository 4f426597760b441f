"""Between the two boots: both ends configured as docs/operations.md says, and enabled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.vm import plan

_ETC = Path("/etc/mpq")
_UNITS = Path("/etc/systemd/system")


def main() -> None:
    """Write everything below /etc."""
    _certificates()
    (_ETC / "mpq.toml").write_text(plan.site_toml())
    (_ETC / "hub.toml").write_text(plan.hub_toml((_ETC / "hub.toml.example").read_text()))
    for name, text in plan.networkd_files().items():
        Path("/etc/systemd/network", name).write_text(text)
    (_UNITS / "lab.service").write_text(plan.LAB_UNIT)
    shutil.copy("/lib/systemd/system/mpq-supervisor.service", _UNITS / "mpq-hub.service")
    _drop_in("mpq-supervisor.service", plan.PATIENT_DROP_IN)
    _drop_in("mpq-hub.service", plan.HUB_DROP_IN)
    for name in ("mpq.toml", "hub.toml"):
        print(_call("mpq-supervisor", "check", str(_ETC / name)))
    _call("systemctl", "daemon-reload")
    _call("systemctl", "enable", "lab.service", "mpq-hub.service", "mpq-supervisor.service")


def _drop_in(unit: str, text: str) -> None:
    directory = _UNITS / f"{unit}.d"
    directory.mkdir()
    (directory / "vm.conf").write_text(text)


def _certificates() -> None:
    safe, hub, site = "/root/pki", plan.HUB_NAME, plan.SITE_NAME
    _call("mpq-supervisor", "pki", "init", safe)
    _call("mpq-supervisor", "pki", "hub", safe, "--name", hub)
    _call("mpq-supervisor", "pki", "site", safe, "--name", site)
    files = [f"{safe}/{name}" for name in ("ca.crt", f"{hub}.crt", f"{hub}.key", f"{site}.crt", f"{site}.key")]
    _call("install", "-o", "mpq", "-g", "mpq", "-m", "600", *files, "-t", str(_ETC / "pki"))


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
