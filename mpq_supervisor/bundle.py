"""`mpq-supervisor support-bundle FILE`: what somebody far away needs to understand a host, without its secrets.

It asks the supervisor where that answers, and goes on without where not. What could not be had is told in its place.
Everything is text, bounded, and goes through `scrub`.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mpq_supervisor import __version__
from mpq_supervisor.change import KEPT
from mpq_supervisor.config import ConfigError, accept, read
from mpq_supervisor.ctl import ask
from mpq_supervisor.files import read_regular, reading_as, write_atomically
from mpq_supervisor.plan import make_plan
from mpq_supervisor.portal_process import history_directory
from mpq_supervisor.requests import SOCKET_NAME, Request, Verb
from mpq_supervisor.schema import Supervisor
from mpq_supervisor.scrub import pieces, scrub, secret_addresses, secret_files

MAX_PART = 4 << 20
"""Characters of one part; the end of it is what counts."""
TIMEOUT = 15.0
SPANS = {"hour": (3600, 3600), "day": (86_400, 1000)}
"""Of the history: seconds, and in how many points at most; events go back a week."""
MAX_SERIES = 200
_EVENTS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_COMMANDS = {
    "kernel/links": "ip -s -d link",
    "kernel/addresses": "ip address",
    "kernel/rules": "ip rule; ip -6 rule",
    "kernel/routes": "ip route show table all; ip -6 route show table all",
    "kernel/neighbours": "ip neighbour",
    "kernel/nftables": "nft list ruleset",
    "kernel/queues": "tc -s qdisc; tc -s class show 2>/dev/null",
    "kernel/sockets": "ss -uanpem",
    "kernel/sysctl": "sysctl net.ipv4.ip_forward net.ipv4.conf net.ipv6.conf net.core net.netfilter 2>&1",
    "kernel/counters": "cat /proc/net/snmp /proc/net/netstat /proc/net/softnet_stat /proc/net/dev",
    "kernel/host": "uname -a; cat /etc/os-release /proc/meminfo /proc/loadavg /proc/pressure/*; df -h; lscpu",
    "logs/mpq": "journalctl -u mpq-supervisor --since -7d -n 20000 -o short-iso-precise --no-pager",
    "logs/kernel": "journalctl -k -n 1000 -o short-iso-precise --no-pager",
    "logs/unit": "systemctl status --no-pager --full mpq-supervisor; systemctl cat --no-pager mpq-supervisor",
}
_OURS = (b"mpq_", b"mpq-supervisor")
"""In the first words of a command line."""
_PROCESS = ("status", "limits", "sched", "stat", "wchan", "cgroup", "smaps_rollup", "net/dev")


def add_arguments(parser: ArgumentParser, config: Path) -> None:
    """Those of the command."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a tar.gz, which only you may read")
    parser.add_argument("-c", "--config", type=Path, default=config, help="default: %(default)s")
    parser.add_argument("--runtime-dir", type=Path, default=Path("/run/mpq"), help="default: %(default)s")


def main(options: Namespace) -> int:
    """Writes the bundle and says what is in it. Returns 0, or 1 where FILE cannot be written."""
    parts = collect(options.config, options.runtime_dir)
    directory = options.file.name.removesuffix(".gz").removesuffix(".tar").strip(".") or "bundle"
    data = pack(parts, directory, time.time())
    try:
        write_atomically(options.file, data, 0o600)
    except OSError as error:
        print(f"mpq-supervisor support-bundle: {options.file}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{options.file}: {len(parts)} parts, {len(data) / 1e6:.1f} MB. Secrets are taken out; addresses are not.")
    return 0


def collect(config: Path, runtime: Path) -> dict[str, str]:
    """All parts by their names, without secrets."""
    text = _try(lambda: _read(config))
    before = _try(lambda: _read(config.with_name(config.name + KEPT)))
    state = _state_directory(text)
    parts = {
        "version": f"mpq {__version__}, {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n",
        "config/mpq.toml": text,
        "config/problems": _try(lambda: _problems(text)),
        f"config/mpq.toml{KEPT}": before,
        "state/files": _try(
            lambda: _run(shlex.join(["ls", "-lan", *map(str, (config.parent, state, state / "portal", runtime))]))
        ),
    }
    verbs: tuple[Verb, ...] = ("status", "alarms", "plan", "classify")
    for verb in verbs:
        parts[f"state/{verb}.json"] = _try(lambda: _ask(runtime, verb))  # noqa: B023 - called at once
    parts |= dict(_history(text))
    for name, command in _COMMANDS.items():
        parts[name] = _run(command)
    parts |= dict(_processes())
    known = _known(f"{text}\n{before}", state)
    return {name: scrub(part, known)[-MAX_PART:] for name, part in parts.items()}


def pack(parts: dict[str, str], directory: str, now: float) -> bytes:
    """As a tar.gz with everything in one directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, part in parts.items():
            data = part.encode(errors="replace")
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


# ---------------------------------------------------------------- helpers


def _try(part: Callable[[], str]) -> str:
    try:
        return part()
    except (OSError, ConfigError, ValueError, msgspec.MsgspecError) as error:
        return f"cannot be had: {error}\n"


def _read(path: Path) -> str:
    """A configuration, as whom its directory belongs to: who has taken over that user may have put a link there to
    what only root may read, and this goes to somebody far away."""
    owner = path.parent.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return read(path)
    with reading_as(owner.st_uid, owner.st_gid):
        return read(path)


def _problems(text: str) -> str:
    accept(text)
    return "none\n"


def _ask(runtime: Path, verb: Verb) -> str:
    response = ask(runtime / SOCKET_NAME, Request(verb))
    return msgspec.json.format(msgspec.json.encode(response)).decode()


def _run(command: str) -> str:
    try:
        done = subprocess.run(
            ["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=TIMEOUT, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "COLUMNS": "200"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as expired:
        return f"{(expired.stdout or b'').decode(errors='replace')}\n{command}: not done in {TIMEOUT:.0f} s\n"
    return done.stdout.decode(errors="replace")


def _history(text: str) -> Iterator[tuple[str, str]]:
    """The events of a week; every tunnel and class, the last hour in each second, the day in less detail."""
    import sqlite3

    from mpq_supervisor.portal.history.draw import table
    from mpq_supervisor.portal.history.query import History

    now = int(time.time())
    try:
        history = History(history_directory(make_plan(accept(text))))
        events = history.events(now - 7 * 86_400, now + 1, _EVENTS)
        yield "history/events.json", msgspec.json.format(msgspec.json.encode(events)).decode()
        for number, name in enumerate(history.names()[:MAX_SERIES]):
            file = name if _NAME.fullmatch(name) else f"series {number}"  # who has the file may have written any name
            for span, (seconds, points) in SPANS.items():
                yield f"history/{file}-{span}.csv", table(history.series(name, now - seconds, now + 1, points, now))
    except (sqlite3.Error, ConfigError, OSError) as error:
        yield "history/problem", f"cannot be had: {error}\n"


def _processes() -> Iterator[tuple[str, str]]:
    """Of everything that runs as mpq: supervisor, zygote, workers, portal."""
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if not any(mark in word for word in words[:6] for mark in _OURS):
            continue
        lines = [" ".join(word.decode(errors="replace") for word in words)]
        lines += [f"descriptors: {_try(lambda: _run(f'ls -l /proc/{process.name}/fd'))}"]  # noqa: B023 - called at once
        for name in _PROCESS:
            lines += [f"--- {name}", _try(lambda: (process / name).read_text(errors="replace"))]  # noqa: B023 - called at once
        yield f"processes/{process.name}", "\n".join(lines)


def _state_directory(text: str) -> Path:
    try:
        return Path(accept(text).supervisor.state_directory)
    except ConfigError:
        return Path(Supervisor().state_directory)


def _known(text: str, state: Path) -> set[str]:
    """What is in the files that hold secrets, line by line; the configurations name them."""
    found = set(secret_addresses(text))
    for name in (*secret_files(text), str(state / "reset.key")):
        try:
            content = read_regular(Path(name))
        except OSError:
            continue
        found.update(pieces(content.decode(errors="replace")))
        found.update((content.hex(), content.hex().upper()))
    return {piece for piece in found if len(piece) > 5}
