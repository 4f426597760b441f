"""Workers that are killed, and the start of a host."""

from __future__ import annotations

import os
import signal
import time

from tools.acceptance.ground import RTT_MS, echo, nine, say
from tools.lab import Lab
from tools.lab_config import deploy
from tools.ping_report import StreamReport
from tools.results import Results, percentile
from tools.topology import WANS
from tools.traffic import start_pings

KILLS = 50
KILL_SPACING = 2.5
AFTER_KILL = 10.0
STARTS = 5


def kills(results: Results) -> None:
    """kill -9 of each site worker in turn: the other eight lose nothing, and it is back at once."""
    with nine() as (lab, deployment):
        names = list(deployment.tunnels)
        seconds = 2 + KILLS * KILL_SPACING + AFTER_KILL + 1
        pings = start_pings(lab, "site", [echo(deployment, name) for name in names], seconds)
        time.sleep(2)
        killed: list[tuple[str, int]] = []
        for number in range(KILLS):
            name = names[number % len(names)]
            os.kill(worker_pid(lab, name), signal.SIGKILL)
            killed.append((name, time.monotonic_ns()))
            time.sleep(KILL_SPACING)
        replies = pings.result()
    back, lost_after, foreign = [], [], 0
    for name, when in killed:
        answer = replies[name].first_answer_ns(when)
        back.append(float("nan") if answer is None else (answer - when) / 1e6)
        settled = (answer or when) + 1
        lost_after.append(replies[name].window(settled, when + int(AFTER_KILL * 1e9)).lost)
    for name, report in replies.items():
        foreign += losses_apart_from(report, [when for victim, when in killed if victim == name])
    ordered = sorted(back)
    results.add("kill.to_first_reply.p50", [percentile(ordered, 50)], "ms", target=80)
    results.add("kill.to_first_reply.p99", [percentile(ordered, 99)], "ms")
    results.add("kill.lost_in_10s_after_first_reply", [sum(lost_after)], f"pings in {KILLS} kills", target=0)
    total = sum(report.window().sent for report in replies.values())
    results.add("kill.neighbours.pings_lost", [foreign], f"of {total}", target=0)
    say(f"{KILLS} kills: back after p50 {percentile(ordered, 50):.0f} ms, p99 {percentile(ordered, 99):.0f} ms; ")
    say(f"then {sum(lost_after)} lost in 10 s; neighbours lost {foreign} of {total}")


def start(results: Results) -> None:
    """From `run` to nine UP, and the memory of an idle worker with nine of them up."""
    until_up, pss = [], []
    for _ in range(STARTS):
        with Lab() as lab:
            for wan in WANS:
                lab.delay(wan, RTT_MS)
            deployment = deploy(lab.directory)
            lab.start("hub", deployment.hub).wait_ready()
            time.sleep(2)
            begin = time.monotonic()
            lab.start("site", deployment.site)
            lab.wait_up()
            until_up.append(time.monotonic() - begin)
            time.sleep(12)  # the workers look at their own memory every ten seconds
            status = lab.ctl("site", "status").status
            assert status is not None
            pss += [worker.pss / 1e6 for worker in status.workers]
    results.add("start.site.nine_up", until_up, "s")
    results.add("start.worker.pss", pss, "MB", target=8)
    say(f"nine UP after {sorted(until_up)[len(until_up) // 2]:.2f} s; PSS of a worker {max(pss):.1f} MB at most")


# ---------------------------------------------------------------- helpers


def losses_apart_from(report: StreamReport, kills: list[int]) -> int:
    """Losses of a stream at times when its own worker was not the one that had just been killed."""
    grace = int(KILL_SPACING * 1e9)
    return sum(1 for lost in report.losses_ns() if not any(-1e8 <= lost - when < grace for when in kills))


def worker_pid(lab: Lab, name: str) -> int:
    """The process of a site's tunnel, as the supervisor tells it."""
    status = lab.ctl("site", "status", name).status
    assert status is not None
    pid = status.workers[0].pid
    assert pid is not None
    return pid
