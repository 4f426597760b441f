"""`mpq-supervisor ctl`: asks the running supervisor, over its control socket. Exit codes: `control.Code`."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from mpq_supervisor.config import ConfigError, read
from mpq_supervisor.lifecycle import State
from mpq_supervisor.portal.alarm_models import NewSilence
from mpq_supervisor.printable import printable
from mpq_supervisor.requests import MAX_WAIT, SOCKET_NAME, WORD, Code, Request, Response, Verb
from mpq_supervisor.table import alarm_table, host_table, rule_table, worker_page

_DEFAULT_WAIT = 15.0
_IO_TIMEOUT = 10.0


def main(args: list[str], program: str = "mpq-supervisor ctl") -> int:
    """Runs one command and returns its exit code; `program` is what stands before it."""
    try:
        options = _parser(program).parse_args(args)
    except SystemExit as end:  # argparse has said what is wrong, or helped
        return int(end.code or 0)
    verb: Verb = "status" if options.command == "show" else options.command
    wait = getattr(options, "wait", 0.0)
    names = tuple(getattr(options, "names", ()))
    if strange := [name for name in names if not WORD.fullmatch(name)]:
        what, code = ("packet", Code.USAGE) if verb == "classify" else ("name", Code.UNKNOWN)
        return _complain(program, f'"{strange[0]}" is no {what}', code)
    seconds = getattr(options, "confirm_within", 0.0)
    try:
        text = _text(options)
    except ConfigError as error:
        return _complain(program, f"{options.file}: {error}", Code.FAILED)
    request = Request(
        verb, names, wait, dscp=getattr(options, "dscp", 0), text=text, confirm=seconds,
        numbers=tuple(getattr(options, "numbers", ())), silence=_silence(options),
    )  # fmt: skip
    try:
        response = ask(options.runtime_dir / SOCKET_NAME, request)
    except UnicodeEncodeError as error:
        return _complain(program, f"cannot be asked for: {error}", Code.USAGE)
    except PermissionError:
        return _complain(program, f"you may not use {options.runtime_dir / SOCKET_NAME}", Code.REFUSED)
    except OSError as error:
        path = options.runtime_dir / SOCKET_NAME
        return _complain(program, f"no supervisor at {path}: {error.strerror or error}", Code.UNREACHABLE)
    except msgspec.MsgspecError as error:
        return _complain(program, f"{options.runtime_dir / SOCKET_NAME}: no answer: {error}", Code.UNREACHABLE)
    if options.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(response), indent=2) + b"\n")
    else:
        _print(options.command, response)
    return _verdict(response) if getattr(options, "check", False) else response.code


def ask(path: Path, request: Request) -> Response:
    """One request to the supervisor listening at `path`. Raises OSError, or MsgspecError for a garbled answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_IO_TIMEOUT + request.wait)
        sock.connect(str(path))
        sock.sendall(msgspec.json.encode(request) + b"\n")
        with sock.makefile("rb") as answer:
            return msgspec.json.decode(answer.read(), type=Response)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Look at and steer the running supervisor.",
        epilog="NAME is a tunnel or worker, a class, a WAN or listener, or all. Exit codes: 0 done, 1 not UP or "
        "not possible, 2 usage, 3 unknown name, 4 no supervisor, 5 refused, 6 different (plan).",
    )
    parser.add_argument("--runtime-dir", type=Path, default=Path("/run/mpq"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for programs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="one line per worker")
    status.add_argument("names", metavar="NAME", nargs="*")
    status.add_argument("--check", action="store_true", help="exit 1 unless every worker shown is UP")
    show = commands.add_parser("show", help="everything about some workers")
    show.add_argument("names", metavar="NAME", nargs="+")
    for verb, help_text in (
        ("start", "start what was stopped or has failed"),
        ("stop", "stop, until started again"),
        ("restart", "stop and start"),
    ):
        command = commands.add_parser(verb, help=help_text)
        command.add_argument("names", metavar="NAME", nargs="+")
        command.add_argument(
            "--wait", type=_seconds, default=_DEFAULT_WAIT, help="seconds to wait for it (default: %(default)s)"
        )
        command.add_argument("--no-wait", dest="wait", action="store_const", const=0.0)
    plan = commands.add_parser("plan", help="show what going over to a configuration would change; 6 if anything")
    plan.add_argument("file", metavar="FILE", type=Path, nargs="?", help="default: the supervisor's own")
    commands.add_parser("reload", help="read the configuration again, and restart what has to be")
    commit = commands.add_parser("commit", help="likewise, and go back unless it is confirmed")
    commit.add_argument(
        "--confirm", dest="confirm_within", metavar="SECONDS", type=_confirm_seconds, default=0.0,
        help="how long to wait for `ctl confirm`; without it a commit is a reload",
    )  # fmt: skip
    commands.add_parser("confirm", help="keep what was committed")
    commands.add_parser("rollback", help="go back to what ran before the commit, now")
    classify = commands.add_parser(
        "classify",
        usage="%(prog)s [SRC[:PORT]/PROTO DST[:PORT]] [--dscp N]",
        help="which rule and tunnel a packet of the LAN takes; alone: how many flows each rule has decided",
    )
    classify.add_argument("names", metavar="SRC[:PORT]/PROTO DST[:PORT]", nargs="*", action=_Pair)
    classify.add_argument("--dscp", type=int, default=0, help="default: %(default)s")
    commands.add_parser("alarms", help="what is wrong now, and the silences")
    acknowledge = commands.add_parser("acknowledge", help="say that you know of alarms")
    acknowledge.add_argument("names", metavar="RULE/SUBJECT", nargs="+")
    silence = commands.add_parser("silence", help="raise such alarms, but tell nobody, for a while")
    silence.add_argument("--rule", default="", help="of this rule; default: any")
    silence.add_argument(
        "--of", dest="subject", default="", help="of this tunnel, or of all of this WAN or class; default: all"
    )
    silence.add_argument("--minutes", type=int, default=60, help="default: %(default)s")
    silence.add_argument("--reason", default="", help="for the others")
    unsilence = commands.add_parser("unsilence", help="end silences")
    unsilence.add_argument("numbers", metavar="NUMBER", type=int, nargs="+")
    for command in commands.choices.values():
        # `mpq-supervisor plan` has no other place for it.
        shown = "default: /run/mpq" if command is plan else argparse.SUPPRESS
        command.add_argument("--runtime-dir", type=Path, default=argparse.SUPPRESS, help=shown)
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="for programs")
    return parser


class _Pair(argparse.Action):
    """Two arguments or none."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: Any = None
    ) -> None:
        if len(values) not in (0, 2):
            parser.error("a source and a destination, or neither")
        setattr(namespace, self.dest, values)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_WAIT:
        raise ValueError
    return value


def _confirm_seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 86_400:
        raise ValueError
    return value


def _text(options: argparse.Namespace) -> str:
    """What `plan FILE` is about: read here, since the supervisor may not be able to. Raises ConfigError."""
    path = getattr(options, "file", None)
    return "" if path is None else read(path)


def _silence(options: argparse.Namespace) -> NewSilence | None:
    if options.command != "silence":
        return None
    return NewSilence(options.minutes, options.rule, options.subject, options.reason)


def _print(command: str, response: Response) -> None:
    out = sys.stdout if response.code in (Code.OK, Code.DIFFERENT) else sys.stderr
    for line in response.lines:
        print(printable(line), file=out)
    if response.rules:
        print(rule_table(response.rules, response.counters))
    if response.alarms is not None:
        print(alarm_table(response.alarms, time.time()))
    if response.status is None:
        return
    if command == "show":
        print("\n\n".join(worker_page(worker) for worker in response.status.workers))
    elif command == "status":
        print(host_table(response.status))
    else:
        for worker in response.status.workers:
            print(printable(f"{worker.name}  {worker.state}{f'  {worker.reason}' if worker.reason else ''}"))


def _verdict(response: Response) -> Code:
    if response.code is not Code.OK or response.status is None:
        return response.code
    return Code.OK if all(w.state is State.UP for w in response.status.workers) else Code.FAILED


def _complain(program: str, text: str, code: Code) -> Code:
    print(f"{program}: {printable(text)}", file=sys.stderr)
    return code
