"""`mpq-supervisor`: the command line. Subcommands are imported only when they are run.

Exit codes are documented in docs/exit-codes.md.
"""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from mpq_supervisor import __version__

DEFAULT_CONFIG = Path("/etc/mpq/mpq.toml")
_NO_READER = 128 + 13
"""What a shell says of a program that SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Whoever reads what it prints may go before the end of it."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal's character set has not is shown, too
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(argv)
        finally:  # here and not at exit, where nobody could catch what happens
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        return _NO_READER


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["ctl"]:  # has a parser of its own
        from mpq_supervisor import ctl

        return ctl.main(arguments[1:])
    if arguments[:1] == ["plan"]:
        from mpq_supervisor import ctl

        return ctl.main(arguments, "mpq-supervisor")
    parsed = _parser(arguments[0] if arguments else "").parse_args(arguments)
    if parsed.command == "run":
        from mpq_supervisor import run

        return run.main(parsed.config, parsed.runtime_dir)
    if parsed.command == "check":
        from mpq_supervisor import check

        return check.main(parsed.file)
    if parsed.command == "export":
        from mpq_supervisor import export

        return export.main(parsed)
    if parsed.command == "post-stop":
        from mpq_supervisor import poststop

        return poststop.main(parsed.runtime_dir)
    if parsed.command == "clear":
        from mpq_supervisor import clear

        return clear.main(parsed.runtime_dir)
    if parsed.command == "token":
        from mpq_supervisor import token

        return token.main(parsed.name, parsed.role, parsed.days)
    if parsed.command == "history":
        from mpq_supervisor import history

        return history.main(parsed)
    if parsed.command == "top":
        from mpq_supervisor import top

        return top.main(parsed)
    if parsed.command == "support-bundle":
        from mpq_supervisor import bundle

        return bundle.main(parsed)
    from mpq_supervisor import pki

    return pki.main(parsed)


def _reader_has_gone() -> bool:
    """Of standard output or error; a broken pipe may be another one."""
    pipes = select.poll()
    for fd in (1, 2):
        pipes.register(fd, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipes.poll(0))


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mpq-supervisor", description="Multi-WAN QUIC tunnels, one isolated worker each."
    )
    parser.add_argument("--version", action="version", version=f"mpq {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run this host's tunnels in the foreground")
    run.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, help="default: %(default)s")
    run.add_argument("--runtime-dir", type=Path, help="control socket and state (default: as configured, /run/mpq)")
    check = commands.add_parser("check", help="check a configuration and show what it would run")
    check.add_argument("file", metavar="FILE", type=Path, nargs="?", default=DEFAULT_CONFIG)
    commands.add_parser("plan", help="show what a configuration would change (ctl plan)", add_help=False)
    commands.add_parser("ctl", help="look at and steer the running supervisor", add_help=False)
    exported = commands.add_parser("export", help="this configuration for systemd-networkd, or an OpenWrt router")
    if command == "export":
        from mpq_supervisor import export

        export.add_arguments(exported, DEFAULT_CONFIG)
    after = commands.add_parser("post-stop", help="for the systemd unit: tidy up after the supervisor")
    clear = commands.add_parser("clear", help="take away what a supervisor that has ended left in the host's network")
    for command_parser in (after, clear):
        command_parser.add_argument("--runtime-dir", type=Path, default=Path("/run/mpq"), help="default: %(default)s")
    token = commands.add_parser("token", help="make a token for the portal")
    token.add_argument("name", metavar="NAME", help="whose it is, for the log")
    token.add_argument("--role", choices=("viewer", "operator", "admin"), default="viewer", help="default: viewer")
    token.add_argument("--days", type=int, help="how long it is good for (default: for ever)")
    authority = commands.add_parser("pki", help="make a CA and certificates")
    if command == "pki":
        from mpq_supervisor import pki

        pki.add_arguments(authority)
    record = commands.add_parser("history", help="what was recorded of a tunnel or a class")
    if command == "history":
        from mpq_supervisor import history

        history.add_arguments(record, DEFAULT_CONFIG)
    glance = commands.add_parser("top", help="the host at a glance, as it changes")
    if command == "top":
        from mpq_supervisor import top

        top.add_arguments(glance)
    support = commands.add_parser("support-bundle", help="collect what somebody far away needs, without secrets")
    if command == "support-bundle":
        from mpq_supervisor import bundle

        bundle.add_arguments(support, DEFAULT_CONFIG)
    return parser


if __name__ == "__main__":
    sys.exit(main())
