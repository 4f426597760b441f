"""What a worker may do to its host, and what strangers may do to a hub: nothing, and they are named."""

from __future__ import annotations

import json
import os
import random
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mpq_supervisor import pki
from mpq_worker.contract import Ready, TrafficClass, slot_of
from mpq_worker.wire import Claims, Hello, encode_claims, encode_control
from tests.netns.peers import WORKER, Stranger, outside_socket
from tests.netns.product import System, ok
from tests.sim.packets import packet
from tools.lab_config import HUB_NAME, SITE_NAME
from tools.product import Side
from tools.system import SIDES, open_files, pid_of
from tools.wait import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NOTHING = "0" * 16
SHIP2 = ("10.200.10.17", "fd6d:7071::11")
"""ship2's addresses in bulk on the first WAN: number 1, host 12 + 5."""
SHIP1 = ("10.200.10.5", "fd6d:7071::5")
HUB_INNER = "10.200.10.254"


# ---------------------------------------------------------------- workers


@pytest.mark.parametrize("side", SIDES)
def test_workers_have_a_uid_of_their_own_and_nothing_else(system: System, side: Side) -> None:
    uids = set()
    for worker in system.workers(side).values():
        lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
        status = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
        assert status["Uid"].split() == status["Gid"].split() == [str(worker.uid)] * 4
        assert status["Groups"] == ""
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {NOTHING}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
        uids.add(worker.uid)
    assert len(uids) == 9


@pytest.mark.parametrize("side", SIDES)
def test_workers_hold_a_tun_a_socket_a_channel_and_no_file(system: System, side: Side) -> None:
    for worker in system.workers(side).values():
        held = open_files(pid_of(worker))
        files = {target for target in held if target.startswith("/")}
        assert files == {"/dev/null", "/dev/net/tun", str(system.lab.directory / f"{side}.log")}
        # The rest is its channel, its UDP socket and what its loop is made of.
        assert {target.partition(":")[0] for target in held if target not in files} <= {
            "socket",
            "anon_inode",
            "pipe",
        }
        assert held.count("/dev/net/tun") == 1


@pytest.mark.parametrize("side", SIDES)
def test_with_a_workers_uid_nothing_of_its_neighbour_or_of_the_keys_can_be_had(system: System, side: Side) -> None:
    """By a process that is not filtered as the worker is: the uid alone keeps them apart."""
    first, second = list(system.workers(side).values())[:2]
    key = system.deployment.pki / f"{ {'site': SITE_NAME, 'hub': HUB_NAME}[side] }.key"
    secrets = [key, *(system.lab.directory / side).glob("*.key")]
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code = (
        "import os, sys\n"
        "def refused(what, *args):\n"
        "    try: what(*args)\n"
        "    except PermissionError: return\n"
        "    sys.exit(f'{what.__name__}{args} was allowed')\n"
        "neighbour, supervisor, *files = sys.argv[1:]\n"
        "for number in (0, 9, 19):\n"
        "    refused(os.kill, int(neighbour), number)\n"
        "    refused(os.kill, int(supervisor), number)\n"
        "refused(os.listdir, f'/proc/{neighbour}/fd')\n"
        "for path in (f'/proc/{neighbour}/mem', f'/proc/{supervisor}/mem', *files):\n"
        "    refused(open, path, 'rb')\n"
        "print('all refused')\n"
    )
    argv = [sys.executable, "-c", code, str(second.pid), str(system.products[side].pid), *map(str, secrets)]
    uid = first.uid
    done = subprocess.run(argv, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("all refused\n", "")
    assert len(secrets) == {"site": 1, "hub": 2}[side]


# ---------------------------------------------------------------- strangers


@pytest.fixture
def hub_of_two(system: System) -> System:
    """The hub knows ship2 as well, which is not there."""
    system.edit("hub", "number = 0", 'number = 0\n[[site]]\nname = "ship2"\nnumber = 1')
    ok(system.lab.ctl("hub", "reload"))
    return system


@pytest.fixture
def authority(running: System) -> pki.Credential:
    return pki.load_authority(running.deployment.pki)


@contextmanager
def attacked(system: System) -> Iterator[list[str]]:
    """No ping of the nine tunnels is lost meanwhile; the list is what the hub has logged besides INFO, at the end."""
    warnings: list[str] = []
    with system.logged("hub") as lines, system.pinged() as pings:
        yield warnings
    warnings += [line for line in lines if " INFO " not in line]
    assert pings.lost() == {}


def refusals(system: System) -> dict[str, int]:
    return system.workers("hub")[WORKER].refusals


def drops(system: System) -> dict[str, int]:
    return system.workers("hub")[WORKER].drops


def garbage(system: System) -> int:
    """Datagrams that the hub counted as nothing of ours, in its workers or before."""
    listing = system.lab.run("hub", ["nft", "-j", "list", "counters", "table", "inet", "mpq_guard"]).stdout
    guarded: int = sum(entry["counter"]["packets"] for entry in json.loads(listing)["nftables"] if "counter" in entry)
    return guarded + sum(count for reason, count in drops(system).items() if reason != "local")


def expect_refusal(
    system: System, kind: str, credential: pki.Credential, inner: tuple[str, ...] = SHIP2, hello: bytes | None = None
) -> str:
    """One stranger is refused: never Ready, a count of one, one line; returns that line."""
    before = refusals(system).get(kind, 0)
    with attacked(system) as warnings:
        stranger = Stranger(system, credential, inner, lambda _: hello)
        stranger.run(lambda: refusals(system).get(kind, 0) > before)
        address = stranger.address
        stranger.close()
    assert Ready() not in stranger.messages
    assert refusals(system)[kind] == before + 1
    assert len(warnings) == 1, warnings
    assert f"{WORKER}: refused: {address}: {kind}: " in warnings[0]
    return warnings[0]


def test_no_certificate(hub_of_two: System, authority: pki.Credential) -> None:
    bare = encode_control(Hello(encode_claims(Claims((1,), 2, SHIP2, b"")), b""))
    expect_refusal(hub_of_two, "certificate", pki.issue_site(authority, "ship2"), hello=bare)


def test_certificate_of_another_authority(hub_of_two: System) -> None:
    expect_refusal(hub_of_two, "certificate", pki.issue_site(pki.issue_authority("evil"), "ship2"))


def test_expired_certificate(hub_of_two: System, authority: pki.Credential) -> None:
    begin = datetime.now(UTC) - timedelta(days=10)
    expired = pki.issue_site(authority, "ship2", begin=begin, lifetime=timedelta(days=5))
    assert "expired" in expect_refusal(hub_of_two, "certificate", expired)


def test_certificate_of_nobody_known(hub_of_two: System, authority: pki.Credential) -> None:
    assert "mpq://site/ship3" in expect_refusal(hub_of_two, "identity", pki.issue_site(authority, "ship3"))


def test_inner_address_of_another_site(hub_of_two: System, authority: pki.Credential) -> None:
    line = expect_refusal(hub_of_two, "address", pki.issue_site(authority, "ship2"), SHIP1)
    assert f"mpq://site/ship2 asks for {SHIP1[0]}" in line


def test_replayed_hello(hub_of_two: System, authority: pki.Credential) -> None:
    """What was good on one connection is worth nothing on another, also from the same address."""
    recorded: list[bytes] = []
    ship2 = pki.issue_site(authority, "ship2")
    honest = Stranger(hub_of_two, ship2, SHIP2)
    send = type(honest.core)._on_signature

    def record(peer: object, signature: bytes, now: float) -> None:
        claims = honest.core._claims[peer]  # type: ignore[index]  # it is a Peer
        recorded.append(encode_control(Hello(claims, signature)))
        send(honest.core, peer, signature, now)  # type: ignore[arg-type]  # it is a Peer

    honest.core._on_signature = record  # type: ignore[method-assign]  # in its place, for the test
    honest.run(lambda: Ready() in honest.messages)
    expect_refusal(hub_of_two, "signature", ship2, hello=recorded[0])
    honest.close()


def test_inner_source_that_is_not_the_sites(hub_of_two: System, authority: pki.Credential) -> None:
    before = drops(hub_of_two).get("source", 0)
    with attacked(hub_of_two) as warnings:
        site = Stranger(hub_of_two, pki.issue_site(authority, "ship2"), SHIP2)
        site.run(lambda: Ready() in site.messages)
        for source in (SHIP1[0], "172.16.2.9", "8.8.8.8", SHIP1[1]):
            to = HUB_INNER if "." in source else "fd6d:7071::fe"
            site.send_packet(packet(source, to))
        site.run(lambda: drops(hub_of_two).get("source", 0) >= before + 4)
        site.close()
    assert drops(hub_of_two)["source"] == before + 4
    assert [line for line in warnings if re.search(f"{WORKER}: source: ship2 sent from {SHIP1[0]}", line)] == warnings
    assert len(warnings) == 1


def test_garbage_of_every_length(system: System) -> None:
    """Such as begins like a packet for the bulk worker, in both header forms, and such as begins with no class."""
    noise = random.Random(7)
    slot = slot_of(TrafficClass.BULK)
    before = garbage(system)
    with attacked(system) as warnings, outside_socket(system) as sock:
        host, port = sock.getsockname()
        sent = 0
        for length in range(1501):
            for begin in (bytes((0x40, slot)), bytes((0xC0, 0, 0, 0, 1, 8, slot)), bytes((0x40, 0))):
                sock.send((begin + noise.randbytes(length))[:length])
                sent += 1
            if length % 500 == 0:  # no more at once than a socket buffer takes
                until(lambda: garbage(system) - before == sent, lambda: f"{drops(system)} of {sent}")  # noqa: B023 - used up at once
    assert drops(system)["sunk"] > 1000
    assert len(warnings) == 1, warnings
    assert f"{WORKER}: garbage: {host}:{port}: " in warnings[0]
