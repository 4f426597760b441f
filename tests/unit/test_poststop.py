"""What is left to do when the supervisor has ended."""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpq_supervisor import poststop
from mpq_supervisor.leftovers import Register


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    directory = tmp_path / "mpq-supervisor.service"
    directory.mkdir()
    (directory / "cgroup.subtree_control").write_text("cpu memory\n")
    return directory


@pytest.fixture
def left(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that a dead supervisor has written down."""
    process = subprocess.Popen(["sleep", "60"])
    register = Register(tmp_path / "run")
    register.write([process.pid])
    register.close()
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq_supervisor.logs.set_up", lambda: None)


@pytest.mark.parametrize("result", ["success", "signal", "exit-code", "watchdog"])
def test_workers_are_left_to_the_next_supervisor(
    tmp_path: Path, cgroup: Path, left: subprocess.Popen[bytes], result: str
) -> None:
    assert poststop.main(tmp_path / "run", {"SERVICE_RESULT": result}, cgroup) == 0
    assert (cgroup / "cgroup.subtree_control").read_text() == "-cpu -memory"
    assert left.poll() is None


def test_after_a_stop_that_hung_nothing_is_left(tmp_path: Path, cgroup: Path, left: subprocess.Popen[bytes]) -> None:
    assert poststop.main(tmp_path / "run", {"SERVICE_RESULT": "timeout"}, cgroup) == 0
    assert left.wait(5) == -signal.SIGKILL


def test_without_such_a_cgroup_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert poststop.main(tmp_path, {}, tmp_path / "none") == 0
    assert "No such file" in caplog.text
