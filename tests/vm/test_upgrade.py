"""The package over itself: what ran runs again, what did not stays down."""

from __future__ import annotations

import time
from pathlib import Path

from tests.vm import host
from tests.vm.conftest import Figure


def install() -> None:
    """As an upgrade does, with the same version."""
    (package,) = Path("/srv").glob("mpq_*.deb")
    host.call("dpkg", "--install", str(package))


def test_a_running_supervisor_is_restarted(figure: Figure) -> None:
    configuration = Path("/etc/mpq/mpq.toml").read_text()
    pid = host.main_pid()
    begin = time.monotonic()
    install()
    figure("upgrade to nine UP", host.replaced(pid, begin), "s")
    assert Path("/etc/mpq/mpq.toml").read_text() == configuration
    assert host.show("UnitFileState") == "enabled"


def test_a_stopped_one_is_not() -> None:
    host.call("systemctl", "stop", host.UNIT)
    install()
    assert host.show("ActiveState") == "inactive"
    host.call("systemctl", "start", host.UNIT)
    host.until_up()
