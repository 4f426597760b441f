"""Beside systemd-networkd, which takes routes and rules for its own unless told not to."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.vm import host, plan
from tests.vm.conftest import Figure
from tests.vm.lab import Surroundings
from tools.wait import pause, until

_SHIPPED = Path("/usr/lib/systemd/networkd.conf.d/90-mpq.conf")
_OVERRIDE = Path("/etc/systemd/networkd.conf.d/90-mpq.conf")


@contextmanager
def changes() -> Iterator[list[tuple[float, str]]]:
    """What became of our routes and rules meanwhile: seconds and `ip monitor`'s lines, filled at the end."""
    found: list[tuple[float, str]] = []
    with tempfile.TemporaryFile("w+") as file:
        monitor = subprocess.Popen(["ip", "-d", "-ts", "monitor", "route", "rule"], stdout=file)
        try:
            yield found
        finally:
            monitor.terminate()
            monitor.wait()
        file.seek(0)
        for line in file:
            stamp, _, text = line.partition("]")
            if stamp.startswith("[") and "proto 109" in text:
                found.append((datetime.fromisoformat(stamp[1:]).timestamp(), text.strip()))


@pytest.fixture
def wanted() -> list[str]:
    """Our routes and rules while nobody does anything to them."""
    return host.ours()


@pytest.fixture
def careless(wanted: list[str]) -> Iterator[None]:
    """A networkd that was told nothing."""
    _OVERRIDE.parent.mkdir(exist_ok=True)
    _OVERRIDE.symlink_to("/dev/null")
    host.call("systemctl", "restart", "systemd-networkd")
    until(lambda: host.ours() == wanted, lambda: host.differences(wanted), host.PATIENCE)
    yield
    _OVERRIDE.unlink()
    host.call("systemctl", "restart", "systemd-networkd")


def reload() -> None:
    """Everything that makes networkd look at its links anew."""
    host.call("networkctl", "reload")
    host.call("networkctl", "reconfigure", "wan4", plan.interface(31))
    host.call("systemctl", "restart", "systemd-networkd")
    host.call("/lib/systemd/systemd-networkd-wait-online", "--timeout=60", "--any")
    pause(2)


def test_the_shipped_drop_in_keeps_it_away(wanted: list[str]) -> None:
    with changes() as seen:
        reload()
        until(lambda: host.ours() == wanted, lambda: host.differences(wanted), host.PATIENCE)
    deleted = [text for _, text in seen if text.startswith("Deleted")]
    # What depends on the addresses and routes that networkd itself renews goes and comes with them.
    assert [text for text in deleted if "unreachable" in text or "fwmark" in text] == []
    host.until_up()


@pytest.mark.usefixtures("careless")
def test_without_it_all_is_set_again(wanted: list[str], around: Surroundings, figure: Figure) -> None:
    with changes() as seen, host.probing(around):
        reload()
        until(lambda: host.ours() == wanted, lambda: host.differences(wanted), host.PATIENCE)
    deleted = [(at, text.removeprefix("Deleted ")) for at, text in seen if text.startswith("Deleted")]
    added = [(at, text) for at, text in seen if not text.startswith("Deleted")]
    gaps = [min((b - a for b, other in added if other == text and b >= a), default=None) for a, text in deleted]
    known = [gap for gap in gaps if gap is not None]
    figure("routes and rules that networkd took", len(deleted), "")
    if known:
        figure("set again within", max(known) * 1000, "ms")
    assert around.leaks().count("packets 0 ") == 2
    host.until_up()
