"""The supervisor's side of a worker and of its process, with nothing but that around them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from mpq_supervisor.incarnation import Incarnation, Surroundings
from mpq_supervisor.lifecycle import Policy
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.process import Worker
from mpq_supervisor.signer import Signer
from tests.fuzz import ends


def supervised(plan: HostPlan) -> tuple[Worker, Incarnation]:
    """For the first worker of the plan, whose process hears nothing."""
    timer = SimpleNamespace(cancel=lambda: None)
    loop = SimpleNamespace(
        time=lambda: ends.NOW,
        call_later=lambda *args: timer,
        call_soon=lambda *args: None,
        remove_reader=lambda *args: None,
    )
    around = SimpleNamespace(
        loop=loop,
        plan=plan,
        policy=Policy(),
        secrets=SimpleNamespace(
            credentials=ends.CREDENTIALS,
            signer=Signer(ends.KEY_PEM, plan.role),
            reset_key=lambda worker: bytes(32),
            retry_key=lambda worker: bytes(32),
        ),
        network=SimpleNamespace(
            links={},
            tunnel_fds=lambda *args: None,
            hub_fds=lambda *args: (0, 1),
            admit=lambda *args: None,
            forget=lambda *args: None,
        ),
        zygote=SimpleNamespace(fork=lambda *args: False),
        may_raise_priority=False,
        weights=None,
        store=SimpleNamespace(put=lambda *args: None, drop=lambda *args: None),
    )
    worker = Worker(plan.workers[0], cast(Surroundings, around), lambda worker: None)
    leader = Incarnation(worker.entry, 0, cast(Surroundings, around), worker, standby=False)
    assert leader._theirs is not None
    leader._theirs.close()
    leader.process.channel.close()
    return worker, leader
