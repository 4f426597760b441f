"""The manual page and the shell completion of mpq-supervisor, out of what its commands say to --help.

    python tools/manual.py page >mpq-supervisor.8
    python tools/manual.py completion >mpq-supervisor

So neither tells of a command that is not there, or misses one that is. The program is the one of this interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

_PAGE = r"""
.TH MPQ-SUPERVISOR 8 "" "VERSION" "System administration"
.SH NAME
mpq-supervisor \- multi-WAN QUIC tunnels, one isolated process per WAN and traffic class
.SH SYNOPSIS
.B mpq-supervisor
.I COMMAND
[\fIARGUMENT\fR ...]
.SH DESCRIPTION
A site has several uplinks (WANs). mpq carries its traffic to a hub in QUIC tunnels, one per WAN and traffic class,
each with a process, a TUN interface and a UDP flow of its own.
.B mpq-supervisor run
is the one service of a host, at either end: mpq-supervisor.service.
It starts the workers, watches and restarts them, and sets routes, rules and nftables.
The other commands look at it, steer it, and prepare its configuration and certificates.
.PP
NAME is a tunnel or worker (br2, mt4.bulk), a class (bulk), a WAN (wan5), a listener (mt4), or all.
.SH COMMANDS
COMMANDS
.SH FILES
.TP
.I /etc/mpq/mpq.toml
The configuration. Examples lie beside it.
.TP
.I /etc/mpq/pki
Certificates and keys.
.TP
.I /run/mpq
The control socket, for root and the group mpq.
.TP
.I /var/lib/mpq
What a host keeps: hub secrets, the portal's history.
.TP
.I /usr/share/doc/mpq
operations.md is where to begin; configuration.md has every field, exit-codes.md every code.
.SH EXIT STATUS
0 is success, 2 a mistake in the arguments, 78 one in the configuration; all others are in exit-codes.md.
.SH SEE ALSO
.BR ip (8),
.BR nft (8),
.BR systemctl (1)
"""

_COMPLETION = """\
# bash completion of mpq-supervisor
_mpq_supervisor_names() {
    echo all
    mpq-supervisor ctl status 2>/dev/null | awk 'NR > 3 && NF < 4 { exit } NR > 3 { print $1, $2, $3 }'
}

_mpq_supervisor() {
    local word command="" words=""
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$command $word" in
            COMMANDS) command+=" $word" ;;
        esac
    done
    case "$command" in
CASES
    esac
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _mpq_supervisor mpq-supervisor
"""


def helps() -> dict[str, str]:
    """What every command says to --help, by its words: "", "run", "ctl", "ctl restart", …"""
    found: dict[str, str] = {}
    waiting = [""]
    while waiting:
        words = waiting.pop(0)
        found[words] = _run(*words.split(), "--help")
        waiting += [f"{words} {command}".strip() for command in _commands(found[words])]
    return found


def page(found: dict[str, str]) -> str:
    """The manual page, in man(7), out of `helps`."""
    leaves = [text for text in found.values() if not _commands(text)]
    commands = "\n.PP\n".join(f".nf\n{_roff(text)}\n.fi" for text in leaves)
    head, tail = _PAGE.lstrip().replace("VERSION", _run("--version").strip()).split("\nCOMMANDS\n")
    return f"{head}\n{commands}\n{tail}"


def completion(found: dict[str, str]) -> str:
    """The completion, for bash, out of `helps`."""
    cases = []
    for words, text in found.items():
        choices = [*_commands(text), *dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))]
        names = " $(_mpq_supervisor_names)" if "[NAME ...]" in text else ""
        cases.append(f'        "{words and " "}{words}") words="{" ".join(choices)}{names}" ;;')
    commands = " | ".join(f'" {words}"' for words in found if words)
    return _COMPLETION.replace("COMMANDS", commands).replace("CASES", "\n".join(cases))


def _commands(text: str) -> list[str]:
    """The commands that a help lists, four columns in, below the line COMMAND."""
    listed = re.search(r"^  COMMAND\n((?:    .*\n)+)", text, re.MULTILINE)
    return re.findall(r"^    (\S+)", listed[1], re.MULTILINE) if listed else []


def _roff(text: str) -> str:
    """A help without what all have in common, and without what would be a command to roff."""
    text = re.sub(r"^  -h, --help .*\n", "", text.removeprefix("usage: "), flags=re.MULTILINE)
    text = text.replace(" [-h]", "").removesuffix("options:\n").replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE).strip()


def _run(*words: str) -> str:
    command = [sys.executable, "-I", "-m", "mpq_supervisor", *words]
    environment = {**os.environ, "COLUMNS": "90"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


if __name__ == "__main__":
    print({"page": page, "completion": completion}[sys.argv[1]](helps()), end="")
