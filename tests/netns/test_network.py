"""The host's network in a real kernel, over its life: `host`, `reconcile`, `netlink`, `monitor`, `sysctl`, `tun`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import signal
import socket
import tomllib
from collections.abc import Callable

import pyprctl
import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.events import Kind, Marks
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.tun import open_tun
from mpq_worker.errors import HostFault
from tests.netns.namespace import run
from tests.netns.site import LOG, SITE, TUNS, Capture, Net, hosted, is_told_no, provoke, tunnel, wait_for
from tests.unit.test_extremes import changes_of, plan_with

pytestmark = pytest.mark.root

RATED = SITE.replace('interface = "wan4"', 'interface = "wan4", rate_mbit = 4.0')


# ---------------------------------------------------------------- state


def test_up_makes_the_state_and_a_second_up_changes_nothing(site: Host) -> None:
    assert "default dev br2" in run("ip route show table 114")
    assert "unreachable default dev lo proto 109 metric 4294967295" in run("ip -6 route show table 114")
    assert "default via 100.64.5.1 dev wan5" in run("ip route show table 101")
    assert "from 100.64.5.2 lookup 101 proto 109" in run("ip rule")
    assert "fwmark 0x50000/0x1f0000 lookup 114" in run("ip -6 rule")
    shown = run("ip address show dev br2")
    assert "inet 10.200.11.5/32 scope global noprefixroute" in shown
    assert "mtu 1400" in shown
    assert "qlen 500" in shown
    assert "fe80" not in shown, "a TUN has no neighbours to solicit"
    before = site.changes
    site.up()
    assert site.changes == before > 100


ODD = (
    SITE[: SITE.index("lan =")]
    + """
[[lan]]
name = "lan1"
interface = "lan1"
wan = "wan4"
class = "critical"
address = [
    "172.16.1.7/24", "172.16.1.8/24", "192.0.2.8/31", "192.0.2.1/32", "FD00:16:1::7/64", "fd00::9/128", "::1:2/112",
]
prefixes = ["192.168.1.0/24", "64:FF9B::192.0.2.0/120", "::2:0/112", "172.16.1.0/24", "fd00:16:1::/64"]
gateway = ["FE80::2", "172.16.1.9"]
"""
)
"""What the kernel spells in another way, takes as secondary, or has already."""


def test_an_odd_configuration_is_applied_once(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    one = make_plan(parse(ODD))
    two = make_plan(parse(ODD.replace('"172.16.1.7/24", ', "").replace("FD00:16:1::7/64", "fd00:16:1::7/80")))
    with net.site.entered():
        run("ip -4 address flush dev lan1", "ip address add fd00::9/128 dev lan1")
        host = Host(one, LOG)
        host.up()
        assert "172.16.1.7/24 scope global lan1" in run("ip address show dev lan1"), "of a subnet the first is first"
        for plan in (one, two, one):
            host.apply(plan)
            before = host.changes
            host.up()
            assert host.changes == before
        assert "via fe80::2 dev lan1" in run("ip -6 route show table 109")
        host.down("open")
        assert caplog.messages == []
        assert "::1:2" not in run("ip address show dev lan1")


def test_switches_of_a_tun_that_somebody_sets_are_set_again(site: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the kernel tells nobody: they are looked at now and then."""
    monkeypatch.setattr("mpq_supervisor.monitor._PATROL", 0.2)
    switches = "net.ipv4.conf.cr1.src_valid_mark", "net.ipv6.conf.cr1.addr_gen_mode"
    watched(
        site, (lambda: run(f"sysctl -qw {switches[0]}=0 {switches[1]}=0"), lambda _: _values(*switches) == ["1", "1"])
    )


def _values(*switches: str) -> list[str]:
    return run(f"sysctl -n {' '.join(switches)}").split()


def test_a_new_process_takes_over_what_the_last_one_left(plan: HostPlan, site: Host) -> None:
    site.down("closed")
    before = sorted(run("ip rule").splitlines())
    host = Host(plan, LOG)
    host.up()
    host.down("closed")
    assert sorted(run("ip rule").splitlines()) == before


def test_what_a_wan_carried_is_the_kernels_count(site: Host) -> None:
    before = site.wan_counters()["wan5"]
    run("ip neigh replace 100.64.5.9 lladdr 02:00:00:00:00:09 dev wan5")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wan5")
        sock.sendto(bytes(1000), ("100.64.5.9", 9))
    after = site.wan_counters()["wan5"]
    assert after.interface == "wan5"
    assert after.sent - before.sent >= 1000 + 8 + 20 + 14
    run("ip link set wan5 down", "ip link set wan5 name other")
    assert "wan5" not in site.wan_counters()


def test_check_names_what_is_wrong_and_the_command(site: Host) -> None:
    assert site.check() == []
    run("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0 net.ipv6.conf.wan4.accept_ra=1")
    run("sysctl -qw net.ipv4.conf.wan5.rp_filter=1 net.ipv6.conf.all.forwarding=1")
    lines = site.check()
    assert [line.split()[0] for line in lines] == [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.wan5.rp_filter",
        "net.ipv6.conf.wan4.accept_ra",
    ]
    for line in lines:
        run(line.partition(": ")[2])
    assert site.check() == []


def test_open_leaves_nothing(site: Host) -> None:
    site.down("open")
    assert run("ip rule").count("\n") == 3
    assert run("ip -6 rule").count("\n") == 2
    assert run("ip route show table all proto 109", "ip -6 route show table all proto 109") == ""
    assert run("nft list ruleset") == ""
    assert not any(tun in run("ip -o link") for tun in TUNS)


def test_a_tun_of_somebody_else_is_a_clear_error(site: Host) -> None:
    with pytest.raises(HostFault, match="TUN cr1: the interface exists and another process holds it"):
        open_tun("cr1")


def test_reload_takes_away_what_went(site: Host, plan: HostPlan) -> None:
    site.apply(make_plan(parse(SITE.replace("lan = [", 'matrix = { wan5 = ["bulk"] }\nlan = ['))))
    links = run("ip -o link")
    assert "br2" in links
    assert "cr2" not in links
    assert "lookup 113" not in run("ip rule")
    assert run("ip route show table 113") == ""
    site.apply(plan)
    assert "default dev cr2" in run("ip route show table 113")


def test_a_reload_that_fails_changes_nothing(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(name: str) -> int:
        raise OSError(24, "Too many open files")

    shown = "ip rule", "ip -o link", "ip route show table all proto 109", "nft --stateless list ruleset"
    one = make_plan(parse(SITE.replace("lan = [", 'matrix = { wan5 = ["bulk"] }\nlan = [')))
    with net.site.entered():
        host = Host(one, LOG)
        host.up()
        before = run(*shown)
        run("ip link add df2 type veth peer name cr2")
        with pytest.raises(HostFault, match="TUN cr2: an interface of this name exists and is not a TUN"):
            host.apply(make_plan(parse(SITE)))
        run("ip link del df2")
        assert run(*shown) == before
        monkeypatch.setattr("mpq_supervisor.host.open_tun", no_descriptor)
        with pytest.raises(HostFault, match="Too many open files"):
            host.apply(make_plan(parse(SITE)))
        assert run(*shown) == before
        host.down("open")


def test_a_fault_of_our_own_changes_nothing(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "ip rule", "ip -o link", "ip route show table all proto 109", "nft --stateless list ruleset", "tc qdisc"
    with net.site.entered(), hosted(make_plan(parse(SITE))) as site:
        before = run(*shown)
        monkeypatch.setattr("mpq_supervisor.shaping.apply", _broken)
        with pytest.raises(HostFault, match="a fault of mpq's own: ZeroDivisionError"):
            site.apply(make_plan(parse(RATED.replace('name = "lan1"', 'name = "bridge"'))))
        assert run(*shown) == before


def _broken(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("which", [0, 1], ids=["lower", "upper"])
def test_the_kernel_takes_all_numbers_at_their_bounds(net: Net, caplog: pytest.LogCaptureFixture, which: int) -> None:
    table = tomllib.loads(SITE)
    plan = plan_with(table, changes_of(table)[which::2])
    with net.site.entered(), hosted(plan) as site:
        before = site.changes
        site.up()
        assert site.changes == before
        assert "htb" in run("tc qdisc show dev wan4")
    assert [record.getMessage() for record in caplog.records] == []


def test_a_wan_without_a_route_to_the_hub_lends_no_socket(site: Host, plan: HostPlan) -> None:
    run("ip link set wan5 down")
    site.up()
    assert not site.links["wan5"].carrier
    assert site.tunnel_fds(tunnel(plan, "cr2"), 0) is None
    assert site.tunnel_fds(tunnel(plan, "cr1"), 0) is not None


# ---------------------------------------------------------------- closed when dead


def test_after_kill_9_no_lan_packet_leaves_in_clear(net: Net, plan: HostPlan, capture: Capture) -> None:
    provoke(net)
    assert wait_for(lambda: bool(capture.clear_packets())), "without mpq it does: the capture can see it"
    with net.site.entered():
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                Host(plan, LOG).up()
                os.write(told, b"up")
                signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        up = os.read(ready, 2)
        os.close(ready)
        capture.clear_packets()
        provoke(net)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert up == b"up"
        assert not any(tun in run("ip -o link") for tun in TUNS)
        provoke(net)
        assert capture.clear_packets() == []
        run("nft flush ruleset")
        provoke(net)
        assert capture.clear_packets() == [], "the rules refuse also what nothing marks any more"


def test_closed_refuses_and_the_lan_is_told(net: Net, site: Host, capture: Capture) -> None:
    site.down("closed")
    assert is_told_no(net)
    provoke(net)
    assert capture.clear_packets() == []


def test_nftables_alone_also_keeps_lan_traffic_in(net: Net, site: Host, capture: Capture) -> None:
    site.down("closed")
    for version in ("-4", "-6"):
        for priority in {line.split(":")[0] for line in run(f"ip {version} rule").splitlines() if "109" in line}:
            while f"{priority}:" in run(f"ip {version} rule"):
                run(f"ip {version} rule del priority {priority}")
    provoke(net)
    assert capture.clear_packets() == []


# ---------------------------------------------------------------- watching


def watched(site: Host, *steps: tuple[Callable[[], object], Callable[[list[str]], bool]]) -> list[str]:
    """Does each step in a running loop and waits until it has the effect; returns the WANs called back."""
    seen: list[str] = []

    async def scenario() -> None:
        site.watch(seen.append)
        for act, effect in steps:
            await asyncio.sleep(0.12)  # the echo of our own last change must not do the work
            act()
            async with asyncio.timeout(3):
                while not effect(seen):  # noqa: ASYNC110 - it shows in the kernel, which wakes nobody here
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())
    return seen


def test_what_others_delete_is_put_back(site: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = watched(
        site,
        (lambda: run("ip route flush table 110"), lambda _: "unreachable" in run("ip route show table 110")),
        (lambda: run("nft flush ruleset"), lambda _: "chain classify" in run("nft list ruleset")),
        (
            lambda: run("ip address del 10.200.10.1/32 dev cr1"),
            lambda _: "10.200.10.1/32" in run("ip address show dev cr1"),
        ),
        (lambda: run("ip rule del fwmark 0x10000/0x1f0000"), lambda _: "fwmark 0x10000/" in run("ip rule")),
        (lambda: run("ip link del br1"), lambda _: "default dev br1" in run("ip route show table 111")),
    )
    assert seen == []
    told = [record.getMessage() for record in caplog.records if _kind(record) == Kind.REPAIR]
    routes, table, address, rule, tun, _ = told
    assert "route unreachable default table 110" in routes.replace("0.0.0.0/0", "default")
    assert table == "network: put back what was gone: nftables table inet mpq"
    assert address.startswith("network: put back what was gone: address 10.200.10.1/32 dev cr1, route ")
    assert rule.startswith("network: put back what was gone: IPv4 rule 10030: fwmark 0x10000/0x1f0000")
    assert tun == "br1: somebody deleted the TUN br1"


def _kind(record: logging.LogRecord) -> Kind | None:
    found: Marks | None = getattr(record, "marks", None)
    return None if found is None else found.kind


def test_what_comes_and_goes_with_a_wan_is_no_repair(site: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    readded = ["ip address add 100.64.5.2/24 dev wan5", "ip route add default via 100.64.5.1 dev wan5 metric 105"]
    watched(
        site,
        (lambda: run("ip address flush dev wan5"), lambda seen: len(seen) == 1),
        (lambda: run(*readded), lambda _: "default" in run("ip route show table 101")),
        (lambda: run("ip link set wan4 down"), lambda seen: "wan4" in seen),
    )
    assert [record.getMessage() for record in caplog.records if _kind(record) == Kind.REPAIR] == []


def test_a_look_that_fails_in_one_part_sees_and_mends_the_others(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with net.site.entered(), hosted(make_plan(parse(RATED))) as site:
        monkeypatch.setattr("mpq_supervisor.shaping.apply", _broken)
        monkeypatch.setattr("mpq_supervisor.ruleset.render", _broken)
        damage = "tc qdisc del dev wan4 root", "nft flush ruleset", "ip rule del priority 10040 iif lan1"
        seen = watched(
            site,
            (lambda: run(*damage), lambda _: "iif lan1" in run("ip rule")),
            (lambda: run("ip link set wan5 down"), lambda seen: "wan5" in seen),
        )
    assert set(seen) == {"wan5"}
    assert {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR} == {
        "network: a fault of mpq's own"
    }


def test_htb_that_others_delete_is_put_back(net: Net) -> None:
    with net.site.entered(), hosted(make_plan(parse(RATED))) as site:
        shown = _without_handles(run("tc class show dev wan4"))
        assert "htb" in shown
        watched(
            site,
            (
                lambda: run("tc qdisc del dev wan4 root"),
                lambda _: _without_handles(run("tc class show dev wan4")) == shown,
            ),
        )


def _without_handles(text: str) -> str:
    """Without the numbers that the kernel gives to qdiscs."""
    return re.sub(r"leaf \S+", "", text)


def test_a_wan_that_changes_is_told_once_with_its_table_already_right(
    site: Host, plan: HostPlan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def renumber() -> None:
        run(
            "ip address flush dev wan5",
            "ip address add 100.64.55.2/24 dev wan5",
            "ip route add default via 100.64.55.1 dev wan5 metric 5",
        )

    assert watched(site, (renumber, lambda seen: bool(seen))) == ["wan5"]
    (line,) = caplog.records
    assert (line.getMessage(), line.__dict__["marks"]) == (
        "wan5: wan5 has 100.64.55.2 via 100.64.55.1", Marks(Kind.LINK, wan="wan5", reason="ready"),
    )  # fmt: skip
    assert "default via 100.64.55.1 dev wan5" in run("ip route show table 101")
    assert "100.64.5.2" not in run("ip rule")
    fd = site.rebind(tunnel(plan, "br2"), 1)
    assert fd is not None
    with socket.socket(fileno=os.dup(fd)) as sock:
        assert sock.getsockname() == ("100.64.55.2", tunnel(plan, "br2").source_ports[1])


def test_what_happened_between_up_and_watch_is_told(site: Host) -> None:
    run("ip link set wan5 down")
    assert watched(site, (lambda: None, lambda seen: bool(seen))) == ["wan5"]


def test_a_wan_that_comes_late(net: Net, site: Host, plan: HostPlan) -> None:
    def come() -> None:
        run(
            f"ip link add wan5 type veth peer name r5 netns {net.internet.path}",
            "ip address add 100.64.5.2/24 dev wan5",
            "ip link set wan5 up",
            "ip route add default via 100.64.5.1 dev wan5",
        )
        with net.internet.entered():
            run("ip link set r5 up")

    def gone() -> bool:
        return not site.links["wan5"].present

    def there() -> bool:
        return site.links["wan5"].reach(("198.51.100.2",)) is not None

    seen = watched(
        site,
        (lambda: run("ip link del wan5"), lambda _: gone()),
        (come, lambda _: there()),
    )
    assert set(seen) == {"wan5"}
    assert site.tunnel_fds(tunnel(plan, "cr2"), 0) is not None


# ---------------------------------------------------------------- without root


def test_an_ordinary_user_with_one_capability_can_do_it_all(net: Net, plan: HostPlan) -> None:
    with net.site.entered():
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(as_nobody(plan))
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def as_nobody(plan: HostPlan) -> int:
    """In a child: 0, or the number of the step that failed. It gets a /dev/net/tun that all may open, as usual."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x44000, None):  # a private mount namespace
        return 1
    if libc.mount(b"tmpfs", b"/dev/net", b"tmpfs", 0, None):
        return 2
    os.umask(0)
    os.mknod("/dev/net/tun", 0o020666, os.makedev(10, 200))
    keep = {pyprctl.Cap.NET_ADMIN}
    pyprctl.set_keepcaps(True)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    pyprctl.CapState(effective=keep, permitted=keep, inheritable=keep).set_current()
    for capability in keep:
        pyprctl.cap_ambient.add(capability)
    host = Host(plan, LOG)
    host.up()
    if host.tunnel_fds(tunnel(plan, "cr1"), 0) is None:
        return 3
    changes = host.changes
    host.up()
    if host.changes != changes:
        return 4
    host.down("open")
    return 0
