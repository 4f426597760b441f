"""The native loop by itself, in memory: packets per second of CPU in each stage, without a kernel on either side."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from mpq_worker._datapath import segment
from tools.inner_packets import super_packet, tcp, udp
from tools.paths import End, ends
from tools.results import Results

SECONDS = 0.3
"""CPU time of a run."""
MSS = 1348
SEGMENTS = 45
_ADDRESSES = ("10.200.0.9", "192.0.2.1")
_PLAIN = bytes(10)  # a virtio_net_hdr that says nothing


def stages(results: Results, runs: int) -> None:
    """Packets per second and core: cutting super-packets, sealing, opening and joining, acknowledging."""
    noise = random.Random(1).randbytes(MSS * SEGMENTS)
    stream = super_packet(tcp(noise, *_ADDRESSES), MSS)
    loads = {
        "full": [stream],
        "64B": [_PLAIN + udp(noise[:36], *_ADDRESSES, number=i, ports=(5000 + i, 53)) for i in range(64)],
    }
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        samples["segment.full"].append(_cutting(stream))
        for size, frames in loads.items():
            for stage, rate in _carrying(frames).items():
                samples[f"{stage}.{size}"].append(rate)
    for name, rates in samples.items():
        results.add(f"stage.{name}", [rate / 1000 for rate in rates], "kpps/core")


def _cutting(frame: bytes) -> float:
    packets, start = 0, time.thread_time()
    while (spent := time.thread_time() - start) < SECONDS:
        packets += len(segment(frame) or ())
    return packets / spent


def _carrying(frames: Sequence[bytes]) -> dict[str, float]:
    """Both ends in turn: `seal` is from frames to datagrams, `open` from these to frames, `acknowledge` is what
    the answer costs its reader."""
    site, hub = ends()
    hub.datapath.offload(tcp=True, udp=True)
    spent = {"seal": 0.0, "open": 0.0, "acknowledge": 0.0}
    packets, now = 0, 0.0
    while min(spent["seal"], spent["open"]) < SECONDS:
        now += 0.01
        begin = time.thread_time()
        for frame in frames:
            site.datapath.frame(frame[10:], now, frame[:10])
        datagrams = site.flush(now)
        sealed = time.thread_time()
        _receive(hub, datagrams, now)
        hub.datapath.take_frames()
        opened = time.thread_time()
        answers = hub.flush(now + 0.005)
        asked = time.thread_time()
        _receive(site, answers, now + 0.005)
        site.path.take_ack()
        spent["seal"] += sealed - begin
        spent["open"] += opened - sealed
        spent["acknowledge"] += time.thread_time() - asked
        packets = site.path.totals[2]
    if hub.path.totals[0] != packets:
        raise RuntimeError(f"{hub.path.totals[0]} of {packets} packets arrived")
    return {stage: packets / seconds for stage, seconds in spent.items()}


def _receive(end: End, datagrams: Sequence[bytes], now: float) -> None:
    """As UDP_GRO gives them: those of one size together."""
    for size, alike in groupby(datagrams, len):
        end.datapath.datagram(b"".join(alike), now, segment=size)
    end.datapath.flush(now)
