"""Both ends of the numbered probes, over the loopback interface."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from typing import IO, cast

import msgspec

from tools.probe import ProbeFlow, ProbeOrder
from tools.probe_report import Record, join


def test_two_ends_account_for_every_probe_both_ways_and_tell_strays() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET6) as two:
        one.bind(("::", 0))
        two.bind(("::", 0))
        ports = [sock.getsockname()[1] for sock in (one, two)]
    flows = [ProbeFlow(name=f"flow{port}", target="127.0.0.1", port=port) for port in ports]
    order = msgspec.json.encode(ProbeOrder(flows=flows, rate=1000)).decode()
    processes = []
    for end in ("far", "near"):
        argv = [sys.executable, "-m", "tools.probe", end, order]
        processes.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert cast(IO[bytes], processes[-1].stdout).readline() == b"ready\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"?", ("127.0.0.1", ports[0]))
        stranger.sendto(b"\0\0" + bytes(4), ("127.0.0.1", ports[1]))  # a probe of the first flow
    select.select([], [], [], 0.1)  # probes flow meanwhile
    for process in processes:
        cast(IO[bytes], process.stdin).close()
    far, near = [
        msgspec.msgpack.decode(cast(IO[bytes], process.stdout).read(), type=list[Record]) for process in processes
    ]
    for process in processes:
        cast(IO[bytes], process.stdout).close()
        assert process.wait() == 0
    streams = join(near, far)
    assert [(s.name, s.way) for s in streams] == [(f.name, way) for f in flows for way in ("up", "down")]
    for stream in streams:
        assert len(stream.sent) >= 10
        assert (stream.lost, len(stream.reordered), len(stream.duplicated), stream.refused) == (0, 0, 0, 0)
    assert {(s.name, s.way): s.strays for s in streams if s.strays} == {
        (flows[0].name, "up"): 1,
        (flows[1].name, "up"): 1,
    }
