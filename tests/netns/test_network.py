"""The host's network in a real kernel, over its life: `host`, `reconcile`, `netlink`, `sysctl`, `tun`."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import tomllib

import pyprctl
import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.tun import open_tun
from mpq_worker.errors import HostFault
from tests.netns.namespace import run
from tests.netns.site import (
    LOG,
    RATED,
    SITE,
    TUNS,
    Capture,
    Net,
    broken,
    hosted,
    is_told_no,
    provoke,
    tunnel,
    wait_for,
)
from tests.unit.test_extremes import changes_of, plan_with

pytestmark = pytest.mark.root


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


def test_without_a_descriptor_nothing_is_told_of_the_wans(site: Host) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        told = site.wan_counters()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert told == {}
    assert "wan5" in site.wan_counters()


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
        monkeypatch.setattr("mpq_supervisor.shaping.apply", broken)
        with pytest.raises(HostFault, match="a fault of mpq's own: ZeroDivisionError"):
            site.apply(make_plan(parse(RATED.replace('name = "lan1"', 'name = "bridge"'))))
        assert run(*shown) == before


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
