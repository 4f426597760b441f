"""`load.c` across a contender: UDP at a rate, the highest rate without loss, echo probes."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

import msgspec

from tools.bench.bed import BUILD, SIDES, Contender

LOSS_FREE = 0.001
"""The share of packets that a rate may lose and still count as free of loss: other work on the machine costs some."""
TRIAL_SECONDS = 0.6
TRIALS = 10
STEP = 1.5
CLOSE_ENOUGH = 0.02
_LOAD = str(BUILD / "load")
_PORT = 7300


class Arrived(NamedTuple):
    """What a rate came to: the share that was lost on the way, and packets per second at both ends."""

    loss: float
    offered: float
    received: float


def send(
    contender: Contender, size: int, rate: float, seconds: float = TRIAL_SECONDS, *, down: bool = False
) -> Arrived:
    """UDP payloads of `size` bytes from the site to the hub or back, `rate` a second (0: as fast as it goes)."""
    here, there = ("hub", "site") if down else SIDES
    receiver = contender.launch(there, [_LOAD, "receive", str(_PORT)], stdin=subprocess.PIPE)
    contender.until_said(receiver, "ready")
    device, target = ("", contender.near) if down else (contender.device, contender.far)
    order = [device, target, _PORT, size, rate, seconds]
    sender = contender.launch(here, [_LOAD, "send", *map(str, order)])
    sent: dict[str, float] = msgspec.json.decode(sender.communicate()[0])
    received: dict[str, float] = msgspec.json.decode(receiver.communicate()[0])
    offered = sent["sent"] + sent["refused"]
    return Arrived(
        1 - received["received"] / offered, offered / sent["seconds"], received["received"] / sent["seconds"]
    )


def highest_rate(contender: Contender, size: int) -> float:
    """Packets per second that arrive at the highest offered rate that is free of loss: upwards by steps from what
    arrives of a flood, which may be far less than it could carry, then by bisection."""
    flood = send(contender, size, 0)
    if flood.loss <= LOSS_FREE:
        return flood.received
    best, low, high, rate = 0.0, 0.0, float("inf"), flood.received
    for _ in range(TRIALS):
        arrived = send(contender, size, rate)
        if arrived.loss <= LOSS_FREE:
            best, low = max(best, arrived.received), rate
        else:
            high = rate
        if high - low <= CLOSE_ENOUGH * high < float("inf"):
            break
        rate = min((low + high) / 2, STEP * rate)
    return best


def ping(contender: Contender, interval_us: int, seconds: float) -> list[float | None]:
    """Round trips in µs of ICMP echoes through the tunnel, None for each that was lost."""
    argv = [_LOAD, "ping", contender.device, contender.far, str(interval_us), str(seconds)]
    run = contender.launch("site", argv)
    return msgspec.json.decode(run.communicate()[0], type=list[float | None])
