"""What is kept for the next supervisor, and what that finds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mpq_supervisor import store as module
from mpq_supervisor.notify import Notifier
from mpq_supervisor.store import Store, slot_name
from mpq_supervisor.survivors import find
from mpq_worker.contract import CONTRACT_VERSION


def inherit(monkeypatch: pytest.MonkeyPatch, names: list[str], fds: list[int], pid: int | None = None) -> Store:
    """A store after a start with these descriptors, here at whatever consecutive numbers there is room."""
    base = 100
    for offset, fd in enumerate(fds):
        os.dup2(fd, base + offset)
    monkeypatch.setattr(module, "FIRST_FD", base)
    environment = {
        "LISTEN_PID": str(os.getpid() if pid is None else pid),
        "LISTEN_FDS": str(len(fds)),
        "LISTEN_FDNAMES": ":".join(names),
    }
    store = Store(Notifier({}), environment)
    assert environment == {}, "children must not take them for their own"
    return store


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_what_is_put_is_sent_once_with_its_name(daemon: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": daemon.getsockname()})
    store = Store(notifier, {})
    assert store.lasts
    with open("/dev/null") as null:
        store.put("tun/cr1", null.fileno())
        store.put("tun/cr1", null.fileno())
        data, fds, _, _ = socket.recv_fds(daemon, 200, 4)
        assert data.decode().split("\n") == ["FDSTORE=1", "FDNAME=tun/cr1", "FDPOLL=0"]
        assert os.fstat(fds[0]) == os.fstat(null.fileno())
        os.close(fds[0])
    store.drop("tun/cr1")
    store.drop("tun/cr1")
    assert daemon.recv(200) == b"FDSTOREREMOVE=1\nFDNAME=tun/cr1"
    daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        daemon.recv(200)
    notifier.close()


def test_without_a_manager_nothing_lasts() -> None:
    store = Store(Notifier({}), {})
    store.put("tun/cr1", 0)
    assert not store.lasts
    assert store.take("tun/cr1") is None


def test_what_was_inherited_is_taken_once_and_the_rest_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/null") as null:
        store = inherit(monkeypatch, ["tun/cr1", "tun/br1", "tun/cr1"], [null.fileno()] * 3)
    assert store.names("tun") == [["cr1"], ["br1"]]
    assert not is_open(100), "a name that came twice leaves one descriptor"
    fd = store.take("tun/cr1")
    assert fd == 102
    assert not os.get_inheritable(fd)
    assert store.take("tun/cr1") is None
    store.sweep()
    assert (is_open(102), is_open(101)) == (True, False)
    os.close(102)


def test_descriptors_of_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    store = inherit(monkeypatch, ["tun/cr1"], [0], pid=1)
    assert store.take("tun/cr1") is None
    os.close(100)


def test_an_address_is_a_name_without_colons() -> None:
    assert slot_name("2001:db8::1", 45010, 3) == "slot/45010/3/2001_db8__1"


def test_a_note_is_stored_anew_when_it_changes(daemon: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": daemon.getsockname()})
    store = Store(notifier, {})
    assert store.recall("nft/guard") == ""
    for text in ("one", "one", "two"):
        store.note("nft/guard", text)
    heard = [socket.recv_fds(daemon, 200, 4)[:2] for _ in range(3)]
    assert [data.split(b"\n")[0] for data, _ in heard] == [b"FDSTORE=1", b"FDSTOREREMOVE=1", b"FDSTORE=1"]
    notifier.close()
    fds = [fd for _, fds in heard for fd in fds]
    later = inherit(monkeypatch, ["nft/guard"], fds[1:])
    assert later.recall("nft/guard") == "two"
    assert not is_open(100)
    for fd in fds:
        os.close(fd)


# ---------------------------------------------------------------- survivors


def worker(name: str, version: int = CONTRACT_VERSION) -> tuple[list[str], list[int], subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    names = [f"channel/{name}/1/{version}/abc", f"pidfd/{name}/1"]
    return names, [os.open("/dev/null", os.O_RDWR), os.pidfd_open(process.pid)], process


def test_only_what_we_can_speak_with_and_want_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    good, foreign = worker("br1", CONTRACT_VERSION - 1), worker("br2", CONTRACT_VERSION + 2)
    unwanted, dead, zombie = worker("br7"), worker("br3"), worker("br4")
    all_five = good, foreign, unwanted, dead, zombie
    good[0][0] += "/whatever a later release adds"
    dead[2].kill()
    dead[2].wait()
    zombie[2].kill()
    os.waitid(os.P_PID, zombie[2].pid, os.WEXITED | os.WNOWAIT)
    store = inherit(
        monkeypatch, [name for one in all_five for name in one[0]], [fd for one in all_five for fd in one[1]]
    )
    (survivor,) = find(store, ["br1", "br2", "br3", "br4"])
    assert (survivor.worker, survivor.generation, survivor.fingerprint) == ("br1", 1, "abc")
    assert survivor.names == tuple(good[0])
    assert survivor.pid == good[2].pid
    assert [one[2].wait(5) for one in (foreign, unwanted)] == [-signal.SIGKILL] * 2
    assert good[2].poll() is None
    zombie[2].wait()
    good[2].kill()
    good[2].wait()
    for fd in (survivor.channel, survivor.pidfd, *(fd for one in all_five for fd in one[1])):
        os.close(fd)
    assert not [fd for fd in range(100, 110) if is_open(fd)]
