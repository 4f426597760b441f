"""Every kind of alarm in the lab: raised, told and over, by a webhook whose receiver is away for a while."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest

from tests.netns.portals import Portal, open_portals
from tests.netns.product import System, ok
from tests.process.receiver import SECRET, Receiver
from tools.product import Side
from tools.results import Results
from tools.topology import WANS
from tools.wait import end, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

RULES = """
alarm = [
    { name = "gone", kind = "down", of = ["br2"], seconds = 2, severity = "critical" },
    { name = "lossy", kind = "loss", of = ["cr1"], above = 0.1, clear = 0.02, seconds = 2 },
    { name = "slow", kind = "rtt", of = ["cr3"], above = 0.1, seconds = 2 },
    { name = "restless", kind = "flapping", of = ["df1"], above = 2, clear = 0, seconds = 20 },
    { name = "lopsided", kind = "asymmetric", of = ["df2"], above = 0.1, seconds = 2 },
    { name = "metered", kind = "quota", of = ["wan4"], above = 1000 },
]
"""
KINDS = ("gone/br2", "lossy/cr1", "slow/cr3", "restless/df1", "lopsided/wan5", "metered/wan4")
PORT = 8999


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(PORT)
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def portals(running: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Side, Portal]]:
    secret = tmp_path_factory.mktemp("webhook") / "secret"
    secret.write_bytes(SECRET)
    hook = f'webhook = {{ url = "http://127.0.0.1:{PORT}/", secret_file = "{secret}" }}\n'
    with open_portals(running, RULES + hook) as portals:
        yield portals


def test_every_kind(running: System, portals: dict[Side, Portal], receiver: Receiver, results: Results) -> None:
    lab, portal, deployment = running.lab, portals["site"], running.deployment

    def raised() -> set[str]:
        with suppress(ConnectionError):  # while it is started anew
            return {alarm["id"] for alarm in json.loads(portal.get("/api/v1/alarms"))["alarms"]}
        return set()

    def see(alarm: str, there: bool) -> None:
        begin = time.monotonic()
        until(lambda: (alarm in raised()) is there, lambda: f"{alarm}: {raised()}", 60)
        kind = alarm.partition("/")[0]
        results.add(f"alarms.{kind}.{'raised' if there else 'over'}_after", [time.monotonic() - begin], "s")

    with running.inside("site"):
        receiver.open()
    lab.drop_all(deployment.flow("br2"))
    see("gone/br2", True)
    lab.clear_loss()
    see("gone/br2", False)
    until(lambda: len(receiver.got) == 2, seconds=30)

    receiver.close()
    lab.loss(deployment.flow("cr1"), 30)
    see("lossy/cr1", True)
    lab.clear_loss()
    see("lossy/cr1", False)
    lab.delay(WANS[2], 150)
    see("slow/cr3", True)
    lab.delay(WANS[2], 20)
    see("slow/cr3", False)
    assert len(receiver.got) == 2
    with running.inside("site"):
        receiver.open()  # and the queue comes, by itself

    for _ in range(3):
        pid = running.pids("site")["df1"]
        end(pid)
        running.until_replaced("site", "df1", pid)
        time.sleep(1)  # that one second sees it serve
    see("restless/df1", True)
    lab.loss(deployment.flow("df2"), 50, "up")
    see("lopsided/wan5", True)
    lab.clear_loss()
    see("lopsided/wan5", False)
    see("restless/df1", False)

    with running.pinged():  # 100 kB and more by every WAN
        time.sleep(5)
    os.kill(portal.pid(), signal.SIGKILL)  # the next one knows what this one counted
    running.edit("site", "above = 1000", "above = 0.0001")
    ok(lab.ctl("site", "reload"))
    see("metered/wan4", True)
    running.edit("site", "above = 0.0001", "above = 1000")
    ok(lab.ctl("site", "reload"))
    see("metered/wan4", False)

    until(lambda: len(receiver.got) == 2 * len(KINDS), lambda: str(receiver.got), 60)
    told = [(message["alarm"]["id"], message["raised"]) for message in receiver.got]
    results.add("alarms.kinds", [len({alarm for alarm, _ in told})], "kinds", target=len(KINDS), better="higher")
    results.add("alarms.told", [len(told)], "messages", target=2 * len(KINDS))
    gaps = sum(one["id"] + 1 != other["id"] for one, other in pairwise(receiver.got))
    results.add("alarms.out_of_order", [gaps], "messages", target=0)
    assert [message["id"] for message in receiver.got] == list(range(1, 2 * len(KINDS) + 1))
    for alarm in KINDS:
        assert [there for name, there in told if name == alarm] == [True, False], alarm
