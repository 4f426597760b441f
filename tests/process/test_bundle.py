"""A support bundle of a running and of a dead supervisor, and that no secret is in it."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mpq_supervisor import bundle
from mpq_supervisor.__main__ import main
from mpq_supervisor.change import KEPT
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal.history.samples import Batch, Row
from mpq_supervisor.portal.history.store import Store
from mpq_supervisor.scrub import pieces
from tests.process.conftest import SITE
from tests.process.portals import Portals
from tests.process.test_control import Served

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]
PORTAL = """
[portal]
[[portal.token]]
name = "ann"
role = "admin"
hash = "sha256:{hash}"
[portal.webhook]
url = "https://hooks.example.net/T0/B1/very-secret?key=open-sesame"
secret_file = "{secret}"
[supervisor]
state_directory = "{state}"
"""
HASH = "0123456789abcdef" * 4


@pytest.fixture
def config(tmp_path: Path, pki_directory: Path) -> Path:
    secret, state = tmp_path / "webhook.secret", tmp_path / "state"
    secret.write_text("swordfish-of-the-receiver\n")
    secret.chmod(0o600)
    state.mkdir(exist_ok=True)
    (state / "reset.key").write_bytes(bytes(range(32)))
    path = tmp_path / "mpq.toml"
    path.write_text(SITE.format(pki=pki_directory) + PORTAL.format(hash=HASH, secret=secret, state=state))
    return path


def parts_of(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read().decode() for m in tar.getmembers()}  # type: ignore[union-attr]  # all are regular files


def make(path: Path, config: Path, runtime: Path) -> dict[str, str]:
    assert main(["support-bundle", str(path), "--config", str(config), "--runtime-dir", str(runtime)]) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    return parts_of(path)


def test_no_secret_is_inside(
    tmp_path: Path, config: Path, pki_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = pki_directory / "ship1.key", tmp_path / "webhook.secret"
    before = config.read_text().replace("very-secret", "older-secret")
    (tmp_path / f"mpq.toml{KEPT}").write_text(before)
    said = "echo POST /T0/B1/very-secret failed, key open-sesame; echo POST /T0/B1/older-secret failed"
    shown = f"{said}; cat {config} {key} {secret}; xxd -p -c 64 {tmp_path}/state/*"
    monkeypatch.setitem(bundle._COMMANDS, "logs/mpq", shown)
    parts = make(tmp_path / "one.tar.gz", config, tmp_path)
    everything = "\n".join(parts.values())
    told = ["swordfish", HASH, "very-secret", "older-secret", "sesame"]
    secrets = [*pieces(key.read_text()), *told, bytes(range(32)).hex()]
    assert len(secrets) > len(told) + 1
    for one in secrets:
        assert one not in everything, one
    for name in ("mpq.toml", "mpq.toml.before"):
        assert 'name = "ann"' in parts[f"one/config/{name}"]
    assert "(removed)" in parts["one/logs/mpq"]


def test_a_key_that_is_a_pipe_is_not_waited_for(tmp_path: Path, config: Path, pki_directory: Path) -> None:
    key = pki_directory / "ship1.key"
    key.rename(tmp_path / "elsewhere")
    os.mkfifo(key, 0o600)
    try:
        parts = make(tmp_path / "pipe.tar.gz", config, tmp_path)
    finally:
        (tmp_path / "elsewhere").rename(key)
    assert "not a regular file" in parts["pipe/config/problems"]


def test_of_a_dead_supervisor(tmp_path: Path, config: Path) -> None:
    parts = make(tmp_path / "two.tar.gz", config, tmp_path)
    assert parts["two/state/status.json"].startswith("cannot be had: ")
    assert parts["two/config/problems"] == "none\n"
    assert "cannot be had" in parts["two/history/problem"]
    for name in ("links", "rules", "routes", "queues", "counters"):
        assert parts[f"two/kernel/{name}"], name
    config.write_text("role = [")
    parts = make(tmp_path / "three.tar.gz", config, tmp_path)
    assert "not TOML" in parts["three/config/problems"]
    assert main(["support-bundle", str(tmp_path / "no/such/x.tar.gz"), "--config", str(config)]) == 1


def test_of_a_running_one(
    run: Run, site_plan: HostPlan, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_OURS", (b"fake_zygote",))

    async def body() -> None:
        async with Served(site_plan, tmp_path):
            parts = await asyncio.to_thread(bundle.collect, config, tmp_path)
            assert '"name": "br2"' in parts["state/status.json"]
            assert "no portal listens" in parts["state/alarms.json"]
            processes = [part for name, part in parts.items() if name.startswith("processes/")]
            assert any("--- status" in part and "VmRSS" in part for part in processes)

    run(body())


def keep_state_in(directory: Path, config: Path) -> None:
    config.write_text(config.read_text().replace(str(config.parent / "state"), str(directory)))


def test_with_a_portal(run: Run, site_plan: HostPlan, tmp_path: Path, config: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            await portals.control.start(tmp_path, "no-such-group")
            keep_state_in(portals.directory, config)
            async with asyncio.timeout(10):
                while True:
                    parts = await asyncio.to_thread(bundle.collect, config, tmp_path)
                    if parts.get("history/br2-hour.csv", "").count("\n") > 1:
                        break
            assert "history/critical-day.csv" in parts
            assert '"alarms": []' in parts["state/alarms.json"]

    run(body())


def test_names_of_files_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_COMMANDS", {})
    directory = tmp_path / "a; echo oh"
    directory.mkdir()
    (directory / "mpq.toml").write_text("role = 'site'")
    assert "mpq.toml" in bundle.collect(directory / "mpq.toml", directory)["state/files"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of another user")
def test_a_link_to_what_only_root_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put there by whoever has taken over the supervisor."""
    monkeypatch.setattr(bundle, "_COMMANDS", {})
    with tempfile.TemporaryDirectory(prefix="mpq-bundle-", dir="/var/tmp") as name:
        theirs = Path(name, "etc")
        theirs.mkdir()
        Path(name).chmod(0o711)
        secret, file = Path(name, "secret"), theirs / "mpq.toml"
        secret.write_text("of root alone")
        secret.chmod(0o600)
        file.write_text("role = 'site'")
        os.chown(theirs, 46_999, 46_999)
        assert bundle.collect(file, theirs)["config/mpq.toml"] == "role = 'site'"
        file.unlink()
        file.symlink_to(secret)
        parts = bundle.collect(file, theirs)
        assert "of root alone" not in "".join(parts.values())
        assert parts["config/mpq.toml"].startswith("cannot be had: ")
        assert (os.geteuid(), os.getegid()) == (0, 0)


def test_names_in_the_history_are_no_paths(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has taken over the portal writes the file."""
    monkeypatch.setattr(bundle, "_COMMANDS", {})
    directory = tmp_path / "state/portal"
    directory.mkdir()
    store = Store(directory, 16)
    names = ("../../../etc/cron.d/x", "/etc/passwd", "a\nb", "br2")
    rows = tuple(Row(name, "tunnel", "", "", True, True, None, None, None, None, 0, 0, 0) for name in names)
    store.add(Batch(1, rows, ()))
    store.close()
    parts = make(tmp_path / "names.tar.gz", config, tmp_path)
    found = {name.removeprefix("names/history/") for name in parts if name.endswith("-day.csv")}
    assert found == {"series 0-day.csv", "series 1-day.csv", "series 2-day.csv", "br2-day.csv"}
    assert all(name.startswith("names/") and ".." not in name for name in parts)


def test_a_part_is_bounded(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_COMMANDS", {"logs/mpq": "seq 2000000", "kernel/slow": "echo begun; sleep 60"})
    monkeypatch.setattr(bundle, "TIMEOUT", 1.0)
    parts = bundle.collect(config, tmp_path)
    assert len(parts["logs/mpq"]) == bundle.MAX_PART
    assert parts["logs/mpq"].endswith("\n2000000\n")
    assert parts["kernel/slow"].startswith("begun\n")
    assert "not done in 1 s" in parts["kernel/slow"]
    with tarfile.open(fileobj=io.BytesIO(bundle.pack(parts, "d", 1.0))) as tar:
        assert sorted(tar.getnames()) == sorted(f"d/{name}" for name in parts)
