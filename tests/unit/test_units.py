"""What `make install` and the package put beside the program: unit, users, directories, sysctls."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mpq_supervisor import __version__
from mpq_supervisor.orders import NICE

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "units/mpq-supervisor.service"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian package systemd)"
)


@pytest.fixture(scope="module")
def service() -> dict[str, str]:
    """The keys of [Service]; where one comes twice, its values joined."""
    section = UNIT.read_text().partition("[Service]\n")[2].partition("[Install]")[0]
    found: dict[str, str] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found[key] = f"{found[key]} {value}" if key in found else value
    return found


def test_capabilities_are_the_ones_found_needed(service: dict[str, str]) -> None:
    needed = {f"CAP_{name}" for name in ("NET_ADMIN", "SETUID", "SETGID", "KILL")}
    assert set(service["AmbientCapabilities"].split()) == needed
    assert set(service["CapabilityBoundingSet"].split()) == needed


def test_supervision(service: dict[str, str]) -> None:
    assert service["Type"] == "notify"
    assert service["User"] == "mpq"
    assert service["ExecReload"].endswith("/mpq-supervisor ctl reload")
    assert int(service["WatchdogSec"]) == 10
    assert service["RestartPreventExitStatus"] == "78"
    assert service["DeviceAllow"] == "/dev/net/tun rw"
    assert "AF_NETLINK" in service["RestrictAddressFamilies"]
    assert service["BindPaths"] == "-/dev/net/tun"  # which PrivateDevices= would hide
    assert int(service["Nice"]) <= min(NICE.values())  # what workers may have without SYS_NICE
    assert "PrivateUsers" not in service  # would take the workers' uids away


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/mpq-supervisor", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])


@needs_systemd
def test_exposure_stays_low(tmp_path: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def make(target: str, stage: Path, prefix: str = "/usr") -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "-s", "-C", str(ROOT), target, f"DESTDIR={stage}", f"PREFIX={prefix}"]
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("prefix", ["/usr", "/opt/mpq"])
def test_what_the_unit_names_is_installed(tmp_path: Path, prefix: str) -> None:
    make("install-files", tmp_path, prefix)
    unit = (tmp_path / f".{prefix}/lib/systemd/system/mpq-supervisor.service").read_text()
    commands = set(re.findall(r"^Exec\w+=(\S+)", unit, re.MULTILINE))
    assert commands == {f"{prefix}/bin/mpq-supervisor"}
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert "mpq-supervisor = " in setup["options.entry_points"]["console_scripts"]
    assert os.readlink(f"{tmp_path}{commands.pop()}") == f"{prefix}/lib/mpq/bin/mpq-supervisor"
    pages = re.findall(r"\bfile:(\S+)", unit)
    assert pages
    assert [page for page in pages if not Path(f"{tmp_path}{page}").is_file()] == []
    assert (tmp_path / f".{prefix}/lib/systemd/networkd.conf.d/90-mpq.conf").is_file()
    for kind in ("sysusers", "tmpfiles"):
        installed = tmp_path / f".{prefix}/lib/{kind}.d/mpq.conf"
        assert installed.read_text() == (ROOT / f"units/mpq.{kind}").read_text()


def test_installing_again_changes_no_configuration_and_uninstall_leaves_it(tmp_path: Path) -> None:
    make("install-files", tmp_path)
    configuration, sysctls = tmp_path / "etc/mpq/mpq.toml", tmp_path / "etc/sysctl.d/90-mpq.conf"
    for path in (configuration, sysctls):
        path.write_text("mine")
    make("install-files", tmp_path)
    assert (tmp_path / "etc/mpq/site.toml.example").read_text() == (ROOT / "etc/site.toml").read_text()
    make("uninstall", tmp_path)
    left = {path for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == {configuration, sysctls}
    assert {path.read_text() for path in left} == {"mine"}
    for path in left:
        path.unlink()
    make("install-files", tmp_path)
    make("uninstall", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_the_users_are_those_of_the_unit(service: dict[str, str]) -> None:
    assert f"\nu {service['User']} " in (ROOT / "units/mpq.sysusers").read_text()
    directories = (ROOT / "units/mpq.tmpfiles").read_text()
    assert f"pki 0700 {service['User']} {service['Group']} " in directories
    assert f"mpq 0755 {service['User']} {service['Group']} " in directories


def test_of_etc_the_service_may_write_its_configuration_and_no_key(service: dict[str, str]) -> None:
    configuration = service["ExecStart"].split()[-1]
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == f"-{Path(configuration).parent}"
    assert service["ReadOnlyPaths"] == "-/etc/mpq/pki"


def test_sysctls_are_set_once_each() -> None:
    text = (ROOT / "etc/sysctl.d/90-mpq.conf").read_text()
    pairs = re.findall(r"^([a-z0-9_.]+) = (\d+)$", text, re.MULTILINE)
    values = dict(pairs)
    assert len(values) == len(pairs) == sum(not line.startswith("#") for line in text.splitlines() if line)
    assert values["net.ipv4.ip_forward"] == values["net.ipv6.conf.all.forwarding"] == "1"
    assert values["net.ipv4.conf.all.rp_filter"] == values["net.ipv6.conf.default.accept_ra"] == "2"
    for key in values:
        assert Path("/proc/sys", *key.split(".")).exists() or key.startswith("net.core")


def test_the_package_has_the_program_s_version() -> None:
    assert (ROOT / "debian/changelog").read_text().startswith(f"mpq ({__version__}) ")


def test_removing_the_package_takes_away_what_is_marked_as_ours() -> None:
    """While the program is there, and when nothing runs any more that would put it back."""
    text = (ROOT / "debian/prerm").read_text()
    stop, clear = text.index("deb-systemd-invoke stop mpq-supervisor"), text.index("/usr/bin/mpq-supervisor clear ||")
    assert stop < clear < text.index("#DEBHELPER#")
    assert '"$1" = remove' in text
