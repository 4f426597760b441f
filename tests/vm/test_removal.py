"""What a removed package leaves: configuration and state; purged: what the administrator put there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.vm import host, plan

_ROOTS = ("/etc", "/usr", "/var/lib", "/run", "/lib/systemd")


def files_of_mpq() -> set[str]:
    """Everything on the disk that has mpq in its name and is not of these tests."""
    command = ["find", *_ROOTS, "-name", "*mpq*", "-prune", "-print"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return {path for path in found if not re.search(r"mpq-hub|/dpkg/info/|\.service\.d$", path)}


@pytest.fixture(scope="module", autouse=True)
def removed() -> None:
    """The hub is a second supervisor of the same program and goes first."""
    host.call("systemctl", "disable", "--now", host.HUB_UNIT)
    host.call("apt-get", "remove", "--yes", "mpq")


def test_no_process_and_nothing_in_the_kernel() -> None:
    assert subprocess.run(["pgrep", "-f", "mpq_worker|mpq-supervisor"], stdout=subprocess.DEVNULL).returncode == 1
    assert host.ours() == []
    assert "mpq" not in host.call("nft", "list", "tables")
    links = {link["ifname"] for link in json.loads(host.call("ip", "-j", "link"))}
    assert not links & {"cr1", "br2", "df3", *map(plan.interface, plan.OURS)}
    assert "htb" not in host.call("tc", "qdisc", "show")


def test_only_configuration_and_state_are_left() -> None:
    enabled = {
        path for path in files_of_mpq() if path.endswith(".wants/mpq-supervisor.service") or "deb-systemd" in path
    }
    assert files_of_mpq() - enabled == {"/etc/mpq", "/etc/sysctl.d/90-mpq.conf", "/var/lib/mpq"}
    assert Path("/etc/mpq/pki/ca.crt").exists()


def test_purged_the_administrator_s_files_are_left() -> None:
    host.call("dpkg", "--purge", "mpq")
    assert files_of_mpq() == {"/etc/mpq"}
    left = {path.name for path in Path("/etc/mpq").iterdir()}
    assert left == {"mpq.toml", "hub.toml", "pki"}
    assert Path("/etc/mpq/pki/ca.crt").exists()
