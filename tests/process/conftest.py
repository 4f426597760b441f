"""Real zygotes and supervisors' halves, with fake workers and a fake network: no namespace is needed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mpq_supervisor import pki
from mpq_supervisor.classifier import Packet
from mpq_supervisor.classify import Verdict
from mpq_supervisor.config import parse
from mpq_supervisor.fleet import Fleet
from mpq_supervisor.leftovers import Register
from mpq_supervisor.network import LinkState, Route
from mpq_supervisor.notify import Notifier
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan, make_plan
from mpq_supervisor.schema import Watchdog
from mpq_supervisor.secrets import Secrets
from mpq_supervisor.status import WanCounters
from mpq_supervisor.store import Store
from mpq_supervisor.zygote import Zygote

UNKEPT = Store(Notifier({}), {})
FAKE_ZYGOTE = (sys.executable, str(Path(__file__).with_name("fake_zygote.py")))
BEAT = 0.05  # of the fake worker, seconds
WATCHDOG = Watchdog(heartbeat_timeout=0.5, start_timeout=10.0)

SITE = """
role = "site"
[identity]
certificate = "{pki}/ship1.crt"
key = "{pki}/ship1.key"
ca = "{pki}/ca.crt"
[hub]
name = "hub.test"
address = "192.0.2.1"
[inner]
ipv4 = "10.200.10.0/24"
[[wan]]
name = "wan4"
interface = "wan4"
[[wan]]
name = "wan5"
interface = "wan5"
"""
HUB = """
role = "hub"
[identity]
certificate = "{pki}/hub.test.crt"
key = "{pki}/hub.test.key"
ca = "{pki}/ca.crt"
[[listener]]
name = "mt4"
port = 45010
ipv4 = "10.200.10.0/24"
[[site]]
name = "ship1"
number = 0
[[site]]
name = "ship2"
number = 1
"""


class FakeNetwork:
    """Every TUN is /dev/null, every UDP socket is connected to ourselves; WANs come and go by `set_link`."""

    def __init__(self, plan: HostPlan) -> None:
        self.tun = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.connect(self.udp.getsockname())
        self.callback: Callable[[str], None] = lambda wan: None
        self.links: dict[str, LinkState] = {}
        self.rebinds = 0
        self.down: frozenset[str] = frozenset()
        self.admits: dict[str, int] = {}
        self.forgotten: list[tuple[str, int]] = []
        self.plans = [plan]
        for wan in plan.wans:
            self.set_link(wan.name, True)

    def set_link(self, wan: str, carrier: bool) -> None:
        routes = (Route(254, "0.0.0.0/0", wan, "198.51.100.1"),)
        self.links[wan] = LinkState(wan, wan, 1, carrier, "198.51.100.2", routes=routes)
        self.callback(wan)

    def watch(self, callback: Callable[[str], None]) -> None:
        self.callback = callback

    def apply(self, plan: HostPlan) -> None:
        self.plans.append(plan)

    def tunnel_fds(self, tunnel: TunnelPlan, generation: int) -> tuple[int, int] | None:
        return self.tun, self.udp.fileno()

    def rebind(self, tunnel: TunnelPlan, generation: int) -> int | None:
        self.rebinds += 1
        return self.udp.fileno()

    def hub_fds(self, worker: HubWorkerPlan, generation: int) -> tuple[int, int]:
        return self.tun, self.udp.fileno()

    def admit(self, worker: HubWorkerPlan, generation: int) -> None:
        self.admits[worker.name] = generation

    def forget(self, worker: TunnelPlan | HubWorkerPlan, generation: int) -> None:
        self.forgotten.append((worker.name, generation))

    def sunk(self, worker: HubWorkerPlan) -> int:
        return 0

    def guarded(self) -> dict[str, int]:
        return {}

    def wan_counters(self) -> dict[str, WanCounters]:
        return {"wan5": WanCounters("wan5", 64_300, 64_100)}

    def divert(self, down: frozenset[str]) -> None:
        self.down = down

    def classify(self, packet: Packet) -> tuple[Verdict, ...]:
        return (Verdict("lan1", "voice", "critical", "cr1", "cr2"),) if packet.port == 5060 else ()

    def counters(self) -> dict[str, int]:
        return {"rule_voice": 7, "refused_bulk": 3, "bulk": 9}

    def close(self) -> None:
        os.close(self.tun)
        self.udp.close()


class Rig:
    """A fleet over fake workers."""

    def __init__(self, plan: HostPlan, runtime: Path) -> None:
        self.network = FakeNetwork(plan)
        self.zygote = Zygote(asyncio.get_running_loop(), FAKE_ZYGOTE)
        self.register = Register(runtime)
        self.duties = 0
        self.fleet = Fleet(plan, Secrets(plan), self.network, self.zygote, self.register, self._duty, UNKEPT)

    def _duty(self) -> None:
        self.duties += 1

    async def __aenter__(self) -> Rig:
        self.zygote.start()
        self.fleet.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fleet.stop()
        self.network.close()
        self.register.close()

    def states(self) -> dict[str, str]:
        return {name: str(worker.life.state) for name, worker in self.fleet.workers.items()}

    def pid(self, name: str) -> int:
        process = self.fleet.workers[name].process
        assert process is not None
        assert process.pid is not None
        return process.pid

    async def all_in(self, state: str, *names: str) -> None:
        wanted = names or tuple(self.fleet.workers)
        assert await self.fleet.wait(lambda: all(self.states()[n] == state for n in wanted), 8), self.states()

    async def pids(self) -> dict[str, int]:
        """Every worker's pid, once all are UP."""
        await self.all_in("UP")
        return {name: self.pid(name) for name in self.fleet.workers}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Polls: for what is seen outside the fleet."""
        async with asyncio.timeout(8):
            while not condition():  # noqa: ASYNC110 - a process's doings set no event
                await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def pki_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    authority = pki.issue_authority()
    pki.save(authority, directory, "ca")
    pki.save(pki.issue_hub(authority, "hub.test"), directory, "hub.test")
    pki.save(pki.issue_site(authority, "ship1"), directory, "ship1")
    return directory


@pytest.fixture
def make_plan_of(pki_directory: Path, tmp_path: Path) -> Callable[[str], HostPlan]:
    def make(text: str) -> HostPlan:
        plan = make_plan(parse(text.format(pki=pki_directory)))
        supervisor = msgspec.structs.replace(plan.supervisor, state_directory=str(tmp_path / "state"))
        return msgspec.structs.replace(plan, supervisor=supervisor, watchdog=WATCHDOG)

    return make


@pytest.fixture
def site_plan(make_plan_of: Callable[[str], HostPlan]) -> HostPlan:
    return make_plan_of(SITE)


@pytest.fixture
def hub_plan(make_plan_of: Callable[[str], HostPlan]) -> HostPlan:
    return make_plan_of(HUB)


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Runs a test's coroutine; nothing that it started may be left."""
    before = _children()
    yield asyncio.run
    assert _children() == before


def _children() -> set[int]:
    return {int(pid) for pid in Path("/proc/self/task", str(os.getpid()), "children").read_text().split()}
