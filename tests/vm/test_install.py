"""The package on a machine that has never seen mpq. With nothing but pytest: the program is not there yet."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

UNIT = "mpq-supervisor.service"


def call(*command: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(*command: str) -> str:
    """What a command says, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_it_installs_with_what_it_depends_on() -> None:
    (package,) = Path("/srv").glob("mpq_*.deb")
    call("apt-get", "install", "--yes", str(package))
    assert answer("dpkg-query", "--show", "--showformat=${Status}", "mpq") == "install ok installed"


def test_it_is_neither_enabled_nor_started() -> None:
    assert answer("systemctl", "is-enabled", UNIT) == "disabled"
    assert answer("systemctl", "is-active", UNIT) == "inactive"


def test_user_and_directories() -> None:
    user = pwd.getpwnam("mpq")
    pki = os.stat("/etc/mpq/pki")
    assert (pki.st_uid, pki.st_mode & 0o7777) == (user.pw_uid, 0o700)
    assert os.stat("/etc/mpq").st_uid == user.pw_uid
    assert user.pw_shell == "/usr/sbin/nologin"


def test_the_host_forwards() -> None:
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text() == "2\n"


def test_manual_page_and_completion() -> None:
    assert "mpq-supervisor ctl restart" in call("man", "mpq-supervisor")
    script = (
        ". /usr/share/bash-completion/bash_completion; _completion_loader mpq-supervisor; complete -p mpq-supervisor"
    )
    assert "_mpq_supervisor" in call("bash", "-c", script)


def test_the_program_runs() -> None:
    assert call("mpq-supervisor", "--version").startswith("mpq ")


def test_without_a_configuration_it_fails_for_good() -> None:
    assert subprocess.run(["systemctl", "start", UNIT], capture_output=True, check=False).returncode != 0
    assert answer("systemctl", "show", "--value", "-p", "ActiveState", UNIT) == "failed"
    assert answer("systemctl", "show", "--value", "-p", "ExecMainStatus", UNIT) == "78"
    assert answer("systemctl", "show", "--value", "-p", "NRestarts", UNIT) == "0"
    assert "/etc/mpq/mpq.toml" in answer("journalctl", "--unit", UNIT, "--output=cat")
    call("systemctl", "reset-failed", UNIT)
