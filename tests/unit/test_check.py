"""`mpq-supervisor check` and the command line around it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from mpq_supervisor import __version__, pki, portal_files
from mpq_supervisor.__main__ import main
from mpq_supervisor.check import summary
from mpq_supervisor.config import load
from mpq_worker.contract import PERMANENT, ExitCode
from tests.unit.test_config import HUB, PLAIN, SITE, changed
from tests.unit.test_plan import plan_of


def _site(directory: Path, *changes: tuple[str, str]) -> Path:
    authority = pki.issue_authority()
    pki.save(authority, directory, "ca")
    pki.save(pki.issue_site(authority, "ship1"), directory, "ship1")
    path = directory / "mpq.toml"
    path.write_text(changed(SITE, *changes).replace("/etc/mpq/pki", str(directory)))
    return path


def test_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _site(tmp_path)
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{path}: good"
    assert out[1].startswith("site ship1, certificate valid until ")
    assert out[2].split() == ["TUNNEL", "CLASS", "WAN", "HUB", "INNER", "SOURCE", "PORTS", "TABLE", "UID"]
    assert " ".join(line.split()[0] for line in out[3:12]) == "cr1 br1 df1 cr2 br2 df2 cr3 br3 df3"
    assert out[12] == "lan1 (lan1) by wan4: critical cr1, default df1, bulk br1"


def test_a_lan_of_one_class_has_one_tunnel() -> None:
    lan2 = ('interface = "lan2"', 'interface = "lan2"\nclass = "bulk"')
    lan3 = ('interface = "lan3"', 'interface = "lan3"\nclass = "critical"')
    matrix = ("[supervisor]", '[matrix]\nwan6 = ["bulk"]\n[supervisor]')
    assert summary(plan_of(SITE, lan2, lan3, matrix))[-2:] == [
        "lan2 (lan2) by wan5: all bulk br2",
        "lan3 (lan3) by wan6: all critical br3",
    ]


def test_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _site(tmp_path, ('wan = "wan5"', 'wan = "wan7"'), ("number = 0 ", "number = 99 "))
    assert main(["check", str(path)]) == 78
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: inner.number: 99 does not fit 10.200.10.0/24: 0 to 20 do",
        f'{path}: lan[1].wan: no WAN "wan7" (did you mean "wan6"?)',
    ]


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What a boot is to leave must have a place; a host runs without it, so it is `check` that says so."""
    path = _site(
        tmp_path, ("[supervisor]", '[supervisor]\nstate_directory = "STATE"'), ("number = 0 ", "number = 99 ")
    )
    text = path.read_text()

    def problem(state: Path) -> str:
        path.write_text(text.replace("STATE", str(state)))
        assert main(["check", str(path)]) == 78
        _, *found = capsys.readouterr().out.splitlines()
        return found[0].removeprefix(f"{path}: supervisor.state_directory: {tmp_path}/") if found else ""

    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert problem(tmp_path) == problem(tmp_path / "to/be/made") == ""
    assert problem(path) == problem(path / "state") == "mpq.toml: not a directory"
    assert problem(tmp_path / "nowhere") == "nowhere: No such file or directory"
    assert problem(tmp_path / "circle/x") == "circle/x: Too many levels of symbolic links"
    assert problem(tmp_path / ("x" * 300)).endswith("x: File name too long")
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    (tmp_path / "there").mkdir()
    assert problem(tmp_path / "there/x") == "there: we may not write there"
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert problem(tmp_path / "there") == "there: the file system is read-only"
    path.write_text(path.read_text().replace("number = 99 ", "number = 0 "))
    assert load(path), "what runs does not end for it"


PORTAL = """
[portal]
certificate = "DIR/CERTIFICATE"
key = "DIR/KEY"
[portal.webhook]
url = "https://hooks.example.net/"
secret_file = "DIR/SECRET"
"""


def test_what_the_portal_cannot_start_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each by its field; tunnels run without a portal, so it is `check` that says so."""
    path = _site(tmp_path)
    text = path.read_text() + PORTAL.replace("DIR", str(tmp_path))
    authority = pki.issue_authority()
    for stem in ("a", "b"):
        pki.save(pki.issue_hub(authority, "portal.test"), tmp_path, stem)
    rsa_key = rsa.generate_private_key(65537, 2048)
    for name, protection in (("rsa.key", NoEncryption()), ("locked.key", BestAvailableEncryption(b"sesame"))):
        (tmp_path / name).write_bytes(rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    (tmp_path / "secret").write_text("swordfish\n")
    (tmp_path / "blank").write_text("\n")
    (tmp_path / "nothing").touch()
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")

    def problems(certificate: str, key: str, secret: str = "secret") -> list[str]:
        names = {"CERTIFICATE": certificate, "KEY": key, "SECRET": secret}
        path.write_text(re.sub("CERTIFICATE|KEY|SECRET", lambda found: names[found[0]], text))
        code = main(["check", str(path)])
        found = [line.replace(str(tmp_path), "DIR") for line in capsys.readouterr().out.splitlines()]
        assert code == (0 if found[0] == "DIR/mpq.toml: good" else 78)
        assert load(path), "what runs does not end for it"
        return [] if code == 0 else [line.removeprefix("DIR/mpq.toml: portal.") for line in found]

    assert problems("a.crt", "a.key") == []
    for other in ("b.key", "rsa.key"):
        assert problems("a.crt", other) == ["key: is not the key of DIR/a.crt"]
    assert problems("a.crt", "locked.key") == ["key: DIR/locked.key: no unencrypted private key in PEM"]
    assert problems("secret", "a.key") == ["certificate: DIR/secret: no certificate in PEM"]
    assert problems("gone", "nothing", "blank") == [
        "certificate: DIR/gone: No such file or directory",
        "key: DIR/nothing: is empty",
        "webhook.secret_file: DIR/blank: is empty",
    ]
    assert problems("directory", "pipe", "directory") == [
        "certificate: DIR/directory: Is a directory",
        "key: DIR/pipe: not a regular file",
        "webhook.secret_file: DIR/directory: Is a directory",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: looks as another user")
def test_root_looks_at_the_portals_files_as_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(portal_files, "SERVICE_USER", "nobody")
    path = _site(tmp_path)
    path.write_text(path.read_text() + PORTAL.replace("DIR/SECRET", "/etc/shadow").replace("DIR/", "/etc/"))
    assert main(["check", str(path)]) == 78
    assert "portal.webhook.secret_file: /etc/shadow: Permission denied" in capsys.readouterr().out
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 78
    assert capsys.readouterr().out == f"{tmp_path}/none: No such file or directory\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
def test_a_name_that_the_terminal_has_not_is_shown(encoding: str) -> None:
    command: list[str | bytes] = [sys.executable, "-m", "mpq_supervisor", "check", b"/\xff\xe2\x96\x81"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False)
    assert (done.returncode, done.stderr) == (78, b"")
    assert done.stdout.startswith(b"/\\udcff")


def test_summary_of_the_others() -> None:
    head, *rows = summary(plan_of(HUB))
    assert head.split() == ["WORKER", "CLASS", "TUN", "PORT", "INNER", "SITES", "UID"]
    assert " ".join(rows[0].split()) == "mt4.critical critical mt4c 45010 10.200.10.254 fd6d:7071::fe 2 47000"
    assert summary(plan_of(PLAIN))[-1] == "plant (eth0) by wan4: critical mpq4, default mpq4, bulk mpq4"


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["chek"], ["run", "--colour"], ["pki"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mpq {__version__}\n"


@pytest.mark.parametrize("arguments", [["check", "/none"], ["--help"], ["ctl", "--help"]])
def test_who_reads_may_go_before_the_end(arguments: list[str]) -> None:
    """As `head -1` does."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mpq_supervisor", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_broken_pipe_that_is_another_one_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("mpq_supervisor.check.main", broken)
    with pytest.raises(BrokenPipeError):
        main(["check"])


def test_plan_has_a_name_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--colour"]) == 2
    assert "ctl" not in capsys.readouterr().err
    assert main(["plan", "--runtime-dir", str(tmp_path)]) == 4


def test_checking_loads_no_tunnel_code() -> None:
    """Subcommands are imported when they are run, and none of them loads what only workers need."""
    code = (
        "import sys; from mpq_supervisor.__main__ import main; main(['check', '/none']);"
        "print(sorted({'aioquic', 'uvloop', 'pyroute2', 'asyncio'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_exit_codes_are_documented() -> None:
    """The workers' table in docs/exit-codes.md is the contract's, permanent ones marked."""
    text = (Path(__file__).parents[2] / "docs/exit-codes.md").read_text().partition("## Workers")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("|")]
    assert {(int(code), permanent == "yes") for code, _, permanent in rows[2:]} == {
        (int(code), code in PERMANENT) for code in ExitCode
    }
