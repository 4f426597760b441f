"""From the power switch to nine tunnels UP, without a hand."""

from __future__ import annotations

import re

from tests.vm import host, plan
from tests.vm.conftest import Figure


def test_nine_tunnels_are_up(figure: Figure) -> None:
    assert sorted(host.until_up()) == sorted(plan.VLANS.values())
    ups = [line for line in host.journal() if re.search("→ UP$", str(line["MESSAGE"]))]
    last = max(int(line["__MONOTONIC_TIMESTAMP"]) for line in ups)
    figure("kernel to nine UP", last / 1e6, "s")
    figure("unit to nine UP", (last - int(host.show("InactiveExitTimestampMonotonic"))) / 1e6, "s")


def test_no_unit_failed() -> None:
    assert host.call("systemctl", "--failed", "--no-legend", "--plain") == ""


def test_nothing_went_wrong() -> None:
    said = [str(line["MESSAGE"]) for line in host.journal() if int(line["PRIORITY"]) <= 4]
    # It is late on a slow machine, and may be there before the hub is.
    assert [text for text in said if not re.search("itself was .* late$|the hub does not answer$", text)] == []


def test_every_worker_has_a_uid_of_its_own_and_no_capability() -> None:
    pids = [worker.pid or 0 for worker in host.workers().values()]
    assert len({host.uid_of(pid) for pid in pids} | {host.uid_of(host.main_pid())}) == len(pids) + 1
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
