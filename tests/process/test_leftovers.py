"""What a dead supervisor leaves, and that nobody else is hurt."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mpq_supervisor.leftovers import Register, start_time
from mpq_worker.errors import HostFault


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_children_of_a_dead_supervisor_end_even_when_stopped(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    dead = Register(tmp_path)
    dead.write([sleeper.pid, 2**22 + 1])
    dead.close()
    os.kill(sleeper.pid, signal.SIGSTOP)
    heir = Register(tmp_path)
    assert heir.clear() == 1
    assert sleeper.wait(1) == -signal.SIGKILL
    assert heir.clear() == 0
    heir.close()


@pytest.mark.parametrize("change", ["start time", "boot"])
def test_whoever_only_has_the_number_lives(tmp_path: Path, sleeper: subprocess.Popen[bytes], change: str) -> None:
    register = Register(tmp_path)
    register.write([sleeper.pid])
    path = tmp_path / "children.json"
    record = msgspec.json.decode(path.read_bytes())
    assert record["children"] == [{"pid": sleeper.pid, "started": start_time(sleeper.pid)}]
    if change == "boot":
        record["boot"] = "another"
    else:
        record["children"][0]["started"] -= 1
    path.write_bytes(msgspec.json.encode(record))
    assert register.clear() == 0
    assert sleeper.poll() is None
    register.close()


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL, errno.ENOENT])
def test_a_number_that_is_no_process_any_more_is_nobody(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kernels say of a process group or a thread with that number."""
    register = Register(tmp_path)
    register.write([sleeper.pid])

    def refuse(pid: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert register.clear() == 0
    register.close()


def test_one_supervisor_per_directory(tmp_path: Path) -> None:
    first = Register(tmp_path)
    with pytest.raises(HostFault, match="another supervisor"):
        Register(tmp_path)
    first.close()
    Register(tmp_path).close()


def test_garbled_register_is_no_guess(tmp_path: Path) -> None:
    register = Register(tmp_path)
    (tmp_path / "children.json").write_bytes(b"{")
    with pytest.raises(HostFault, match="remove it"):
        register.clear()
    register.close()


def test_register_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    register = Register(tmp_path / "run")
    (tmp_path / "run/children.json").mkdir()
    register.write([1])
    register.write([1])
    assert len(caplog.messages) == 1
    (tmp_path / "run/children.json").rmdir()
    register.write([1])
    assert (tmp_path / "run/children.json").stat().st_mode & 0o777 == 0o600
    register.close()


def test_nothing_left_is_nothing_done(tmp_path: Path) -> None:
    register = Register(tmp_path / "new")
    assert register.clear() == 0
    register.close()


def test_start_time_is_the_kernels() -> None:
    assert start_time(os.getpid()) >= start_time(1) > 0
    assert start_time(2**22 + 1) == 0
