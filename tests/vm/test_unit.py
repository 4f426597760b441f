"""The unit file in the eyes of systemd, its cgroups, and what it logs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpq_supervisor import ctl
from mpq_supervisor.events import MESSAGE_ID, Kind
from mpq_supervisor.orders import NICE
from mpq_supervisor.requests import SOCKET_NAME, Code, Request
from mpq_supervisor.weights import WEIGHT
from mpq_worker.contract import TrafficClass
from tests.vm import host
from tests.vm.conftest import Figure
from tools.wait import pause

_TARGET = 2.5


def test_systemd_has_nothing_to_say_of_it() -> None:
    done = subprocess.run(["systemd-analyze", "verify", host.UNIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exposure(figure: Figure) -> None:
    said = subprocess.run(["systemd-analyze", "security", "--no-pager", host.UNIT], capture_output=True, text=True)
    found = re.search(r"exposure level for .*: (\d+\.\d)", said.stdout)
    assert found
    figure("exposure", float(found[1]), "")
    assert float(found[1]) <= _TARGET


def test_the_journal_knows_what_a_line_is_about() -> None:
    lines = host.journal()
    assert not [line for line in lines if str(line["MESSAGE"]).startswith("<")]
    assert {int(line["PRIORITY"]) for line in lines} <= {0, 1, 2, 3, 4, 5, 6}


def test_a_tunnel_s_lines_are_found_by_field() -> None:
    lines = host.journal("MPQ_TUNNEL=br2", "MPQ_KIND=state")
    assert any(re.search("→ UP$", str(line["MESSAGE"])) for line in lines)
    told = {(line["MPQ_WAN"], line["MPQ_CLASS"], line["MESSAGE_ID"]) for line in lines}
    assert told == {("wan5", "bulk", MESSAGE_ID[Kind.STATE])}


def test_workers_have_the_weight_of_their_class() -> None:
    for worker in host.workers().values():
        group = Path(f"/proc/{worker.pid}/cgroup").read_text().strip()
        assert group.endswith(f"{host.UNIT}/{worker.traffic_class}")
        assert os.getpriority(os.PRIO_PROCESS, worker.pid or 0) == NICE[TrafficClass[worker.traffic_class.upper()]]
    for traffic_class, weight in WEIGHT.items():
        assert int((host.cgroup() / traffic_class.name.lower() / "cpu.weight").read_text()) == weight


def test_it_may_change_its_configuration_and_no_key() -> None:
    """A field as the portal changes it; nobody is restarted for this one."""

    def rated(mbit: int | None) -> str:
        order = Request("patch", ("cr1",), by="admin", changes={"wan[wan4].rate_mbit": mbit})
        response = ctl.ask(Path("/run/mpq") / SOCKET_NAME, order)
        assert response.code is Code.OK, response.lines
        return Path("/etc/mpq/mpq.toml").read_text()

    before = {name: worker.pid for name, worker in host.until_up().items()}
    assert "rate_mbit = 77" in rated(77)
    assert "rate_mbit = 77" not in rated(None)
    assert {name: worker.pid for name, worker in host.workers().items()} == before
    mounts = Path(f"/proc/{host.main_pid()}/mountinfo").read_text().splitlines()
    options = {fields[4]: fields[5].split(",")[0] for fields in map(str.split, mounts)}
    assert {path: options[path] for path in ("/etc/mpq", "/etc/mpq/pki", "/")} == {
        "/etc/mpq": "rw", "/etc/mpq/pki": "ro", "/": "ro",
    }  # fmt: skip


@pytest.fixture
def burners() -> Iterator[dict[TrafficClass, subprocess.Popen[bytes]]]:
    """A process in each class that takes all it can get of one core, and nearly all that its class gets."""
    running = {}
    try:
        for traffic_class in TrafficClass:
            running[traffic_class] = process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            os.sched_setaffinity(process.pid, {0})
            os.setpriority(os.PRIO_PROCESS, process.pid, -20)
            (host.cgroup() / traffic_class.name.lower() / "cgroup.procs").write_text(str(process.pid))
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_weights_share_a_busy_core(burners: dict[TrafficClass, subprocess.Popen[bytes]], figure: Figure) -> None:
    before = {c: cpu_seconds(p.pid) for c, p in burners.items()}
    pause(10)
    used = {c: cpu_seconds(p.pid) - before[c] for c, p in burners.items()}
    for better, worse in ((TrafficClass.CRITICAL, TrafficClass.DEFAULT), (TrafficClass.DEFAULT, TrafficClass.BULK)):
        figure(f"CPU {better.name.lower()}:{worse.name.lower()}", used[better] / used[worse], "")
        assert used[better] > 2.5 * used[worse]
