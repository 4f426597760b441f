"""Changing what runs: previews, reloads, and commits that go back by themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mpq_supervisor import change, config, pki
from mpq_supervisor.change import KEPT, RETRY, ChangeRefused, Configuration, FileDiffers
from mpq_supervisor.config import ConfigError
from mpq_supervisor.edit import ConfigField, Value
from mpq_supervisor.effects import describe
from mpq_supervisor.orders import WorkerChange, worker_changes
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.secrets import Secrets
from mpq_worker.errors import HostFault
from tests.unit.disk import Disk, Ended


class Host:
    """A running supervisor as far as its configuration goes: a file, a clock, and what was applied."""

    def __init__(self, directory: Path) -> None:
        authority = pki.issue_authority()
        self._credential = pki.issue_site(authority, "ship1")
        self.key, self.certificate = directory / "ship1.key", directory / "ship1.crt"
        (directory / "ca.crt").write_bytes(authority.certificate_pem)
        self.key.write_bytes(self._credential.key_pem)
        self.key.chmod(0o600)
        self.certificate.write_bytes(self._credential.certificate_pem)
        self.renewed = pki.issue_site(authority, "ship1")
        self.state = directory / "state"
        self.file = directory / "mpq.toml"
        self.good = f"""
role = "site"
identity = {{ certificate = "{self.certificate}", key = "{self.key}", ca = "{directory / "ca.crt"}" }}
hub = {{ name = "hub.test", address = "192.0.2.1" }}
inner = {{ ipv4 = "10.200.10.0/24" }}
wan = [{{ name = "wan4", interface = "wan4" }}]
supervisor = {{ state_directory = "{self.state}" }}
"""
        self.file.write_text(self.good)
        self.kept = directory / f"mpq.toml{KEPT}"
        self.applied: list[HostPlan] = []
        self.fault: Exception | None = None
        self.stopped: set[str] = set()
        self.outdated: set[str] = set()
        self.step: Callable[[], None] = lambda: None
        self.timers: dict[int, tuple[float, Callable[[], None]]] = {}
        self.boot()

    def boot(self) -> None:
        """The supervisor starts; timers of one before are gone."""
        self.timers.clear()
        self.running = Configuration(self.file)
        secrets = Secrets(self.running.plan)
        self.running.attach(secrets, self._apply, self._later, lambda: self.stopped, lambda: self.outdated)

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new, 1))

    def renew(self) -> None:
        """New credentials in the place of the old."""
        self.key.write_bytes(self.renewed.key_pem)
        self.certificate.write_bytes(self.renewed.certificate_pem)

    def expire(self) -> None:
        ((_, callback),) = self.timers.values()
        self.timers.clear()
        callback()

    @property
    def mtu(self) -> int:
        return self.running.plan.tunnels[0].mtu

    def _apply(self, plan: HostPlan, secrets: Secrets) -> dict[str, WorkerChange]:
        if self.fault is not None:
            raise self.fault
        self.step()
        self.applied.append(plan)
        self.certificate_in_use = secrets.credentials.certificate
        return worker_changes(self.running.plan, plan)

    def _later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.timers)
        self.timers[id(timer)] = (seconds, callback)
        return timer


class Timer:
    def __init__(self, timers: dict[int, tuple[float, Callable[[], None]]]) -> None:
        self._timers = timers

    def cancel(self) -> None:
        self._timers.pop(id(self), None)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def disk(host: Host, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(config, "check_host", lambda *_: [])  # of hundreds of starts it would take half the time
    return Disk(host.file.parent, "mpq.toml", monkeypatch)


SLOWER = ('interface = "wan4"', 'interface = "wan4", mtu = 1300')


def test_a_preview_changes_nothing(host: Host) -> None:
    host.edit(*SLOWER)
    preview = host.running.preview()
    assert describe(preview)[0] == (
        "wan[wan4].mtu: 1400 → 1300 (restarts the workers it concerns, one after the other; "
        "the other end has to follow)"
    )
    assert describe(preview)[1:] == ["cr1 restarts", "br1 restarts", "df1 restarts"]
    assert host.applied == []
    assert host.mtu == 1400
    assert describe(host.running.preview(host.good)) == []


def test_another_text_than_the_file(host: Host) -> None:
    preview = host.running.preview(host.good.replace("192.0.2.1", "192.0.2.2"))
    assert [change.path for change in preview.fields] == ["hub.address"]
    with pytest.raises(ChangeRefused, match=r"the text: hub\.name: is missing"):
        host.running.preview(host.good.replace('name = "hub.test", ', ""))


def test_reload(host: Host) -> None:
    assert describe(host.running.reload()) == []
    host.edit(*SLOWER)
    assert "cr1 restarts" in describe(host.running.reload())
    assert host.mtu == 1300
    assert describe(host.running.reload()) == []


def test_what_only_a_start_changes_differs_until_then(host: Host) -> None:
    host.edit("supervisor = {", 'supervisor = { control_group = "wheel", runtime_directory = "/run/other",')
    host.edit(str(host.state), f"{host.state}2")
    told = describe(host.running.reload())
    assert len(told) == 3
    assert all(line.endswith("(nothing until the supervisor itself starts anew)") for line in told)
    assert describe(host.running.preview()) == told
    supervisor = host.applied[-1].supervisor
    assert (supervisor.state_directory, supervisor.runtime_directory) == (str(host.state), "/run/mpq")
    assert describe(host.running.patch("br1", {"wan[wan4].mtu": 1300}))[1:4] == told
    host.boot()
    assert describe(host.running.preview()) == []
    assert host.running.plan.supervisor.state_directory == f"{host.state}2"


def test_a_stopped_worker_is_not_said_to_restart(host: Host) -> None:
    host.stopped = {"br1"}
    host.edit(*SLOWER)
    assert describe(host.running.preview())[1:] == ["cr1 restarts", "df1 restarts"]
    assert host.running.reload().workers == {"cr1": "restart", "df1": "restart"}


def test_whose_restart_has_failed_differs_until_one_succeeds(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.reload()
    host.outdated = {"br1", "cr1"}
    assert describe(host.running.preview()) == ["cr1 restarts", "br1 restarts"]
    host.stopped = {"cr1"}
    assert describe(host.running.reload()) == ["br1 restarts"]
    host.outdated.clear()
    assert describe(host.running.preview()) == []


def test_new_certificates_are_seen_though_the_file_is_the_same(host: Host) -> None:
    host.renew()
    assert describe(host.running.reload()) == ["cr1 restarts", "br1 restarts", "df1 restarts"]
    assert describe(host.running.reload()) == []


@pytest.mark.parametrize("change_it", [Configuration.reload, lambda running: running.commit(60.0)])
def test_what_cannot_be_changes_nothing(host: Host, change_it: Callable[[Configuration], object]) -> None:
    host.edit(*SLOWER)
    for host.fault in (HostFault("nft: no"), OSError(24, "Too many open files")):
        with pytest.raises(ChangeRefused, match=r"nft: no|Too many open files"):
            change_it(host.running)
        assert (host.timers, host.kept.exists()) == ({}, False)
    host.fault = None
    host.edit("1300", "13000000")
    with pytest.raises(ChangeRefused, match=r"mpq.toml: wan\[0\].mtu"):
        change_it(host.running)
    host.file.write_text('role = "hub"')
    with pytest.raises(ChangeRefused):
        change_it(host.running)
    host.file.unlink()
    with pytest.raises(ChangeRefused, match="No such file"):
        change_it(host.running)
    assert (host.mtu, host.applied, host.timers) == (1400, [], {})
    assert not host.kept.exists()


def test_a_commit_that_is_confirmed_stays(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    ((seconds, _),) = host.timers.values()
    assert seconds == 60.0
    assert host.mtu == 1300
    assert host.running.confirm()
    assert host.timers == {}
    host.boot()
    assert host.mtu == 1300
    assert not host.running.confirm()


def test_a_commit_that_is_not_confirmed_goes_back(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.expire()
    assert host.mtu == 1400
    assert not host.running.confirm(), "it is too late"
    assert describe(host.running.preview())[0].startswith("wan[wan4].mtu: 1400 → 1300")
    host.boot()
    assert host.mtu == 1400, "the file still is what nobody confirmed"
    host.running.reload()
    host.boot()
    assert host.mtu == 1300


def test_a_supervisor_that_starts_before_the_confirmation_runs_what_ran_before(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.boot()
    assert host.mtu == 1400
    assert not host.running.confirm()
    host.running.commit(60.0)
    assert host.mtu == 1300
    assert host.running.confirm()


def test_a_useless_file_is_no_reason_not_to_run_what_ran_before(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.file.write_text("garbage")
    host.boot()
    assert host.mtu == 1400
    host.kept.unlink()
    with pytest.raises(ConfigError):
        host.boot()


def test_what_ran_before_is_found_whatever_the_file_says_of_its_state(host: Host) -> None:
    host.edit(str(host.state), f"{host.state}2")
    host.running.reload()
    host.edit(*SLOWER)
    host.edit(f"{host.state}2", f"{host.state}3")
    host.running.commit(60.0)
    host.boot()
    assert host.mtu == 1400


def test_what_ran_before_and_cannot_any_more_gives_way_to_the_file(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.kept.write_text("garbage")
    host.boot()
    assert host.mtu == 1300
    host.edit("1300", "1350")
    host.running.commit(60.0)
    host.boot()
    assert host.mtu == 1300, "another commit keeps what ran"


def test_two_commits_go_back_to_what_was_good(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.edit("1300", "1350")
    host.running.commit(30.0)
    ((seconds, _),) = host.timers.values()
    assert seconds == 30.0
    host.expire()
    assert host.mtu == 1400


def test_rollback_at_once(host: Host) -> None:
    with pytest.raises(ChangeRefused, match="no commit waits"):
        host.running.rollback()
    host.edit(*SLOWER)
    host.running.commit(60.0)
    assert "cr1 restarts" in describe(host.running.rollback())
    assert (host.mtu, host.timers) == (1400, {})


def test_a_reload_confirms(host: Host) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.running.reload()
    assert host.timers == {}
    assert not host.kept.exists()


def test_a_way_back_that_does_not_work_is_told_and_tried_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    host.fault = HostFault("nft: no")
    host.expire()
    assert "not confirmed, and no way back yet: nft: no" in caplog.text
    ((seconds, _),) = host.timers.values()
    assert (host.mtu, seconds) == (1300, RETRY)
    host.fault = None
    host.expire()
    assert (host.mtu, host.timers) == (1400, {})


def test_the_way_back_needs_neither_its_files_nor_the_configuration(host: Host) -> None:
    before = host.certificate.read_text()
    directory = host.file.parent / "new"
    directory.mkdir()
    for old, data in ((host.key, host.renewed.key_pem), (host.certificate, host.renewed.certificate_pem)):
        (directory / old.name).write_bytes(data)
        (directory / old.name).chmod(0o600)
        host.edit(str(old), str(directory / old.name))
    assert "cr1 restarts" in describe(host.running.commit(60.0))
    assert host.certificate_in_use != before
    for gone in (host.file, host.key, host.certificate):
        gone.unlink()
    host.expire()
    assert host.certificate_in_use == before


def test_credentials_that_would_not_come_back_are_not_committed(host: Host) -> None:
    host.renew()
    host.edit(*SLOWER)
    with pytest.raises(ChangeRefused, match="no way back: put the new ones into another directory"):
        host.running.commit(60.0)
    assert (host.applied, host.timers, host.kept.exists()) == ([], {}, False)
    host.running.reload()
    assert host.certificate_in_use == host.certificate.read_text()
    host.edit("1300", "1350")
    host.running.commit(60.0)


def test_without_a_place_for_the_way_back_there_is_no_commit(host: Host, disk: Disk) -> None:
    disk.begin(broken=range(99))
    host.edit(*SLOWER)
    with pytest.raises(ChangeRefused, match="there would be no way back"):
        host.running.commit(60.0)
    assert (host.mtu, host.timers) == (1400, {})


def test_what_cannot_be_confirmed_for_good_waits_on(host: Host, disk: Disk) -> None:
    host.edit(*SLOWER)
    host.running.commit(60.0)
    for act in (host.running.confirm, host.running.reload):
        disk.begin(broken=range(99))
        with pytest.raises(ChangeRefused, match="the next start would go back to it"):
            act()
        assert (host.mtu, len(host.timers), host.kept.exists()) == (1300, 1, True)
        disk.begin()
    assert host.running.confirm()
    assert not host.kept.exists()


def commit(host: Host) -> None:
    host.running.commit(60.0)


Deed = Callable[[Host], object]
DEEDS: dict[str, tuple[tuple[Deed, ...], int]] = {
    "confirmed": ((commit, lambda host: host.running.confirm()), 1300),
    "reloaded": ((commit, lambda host: host.running.reload()), 1300),
    "expired": ((commit, Host.expire), 1400),
    "committed twice": ((commit, commit), 1400),
    "committed again": ((commit, Host.expire, commit, lambda host: host.running.confirm()), 1300),
    "reloaded in the end": ((commit, Host.expire, lambda host: host.running.reload()), 1300),
}
"""What is done one after the other, and what a start runs after all of it; 1400 ran before, the file says 1300."""


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("deeds", DEEDS)
def test_whenever_it_ends_the_next_start_runs_one_or_the_other(
    host: Host, disk: Disk, deeds: str, power_cut: bool
) -> None:
    todo, outcome = DEEDS[deeds]
    ends_at = 0
    found: list[tuple[bool, int]] = []
    while not found or not found[-1][0]:
        host.file.write_text(host.good)
        host.kept.unlink(missing_ok=True)
        host.boot()
        host.edit(*SLOWER)
        disk.begin(ends_at=ends_at)
        host.step = disk.step
        whole = False
        try:
            for deed in todo:
                deed(host)
            whole = True
        except Ended:
            pass
        host.step = lambda: None
        disk.end(power_cut=power_cut)
        host.boot()
        found.append((whole, host.mtu))
        ends_at += 1
    assert found[-1] == (True, outcome)
    assert {mtu for _, mtu in found} <= {1300, 1400}
    assert len(found) > 5, "it ended at each step"


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("deeds", DEEDS)
def test_whatever_fails_the_next_start_runs_what_it_said(host: Host, disk: Disk, deeds: str, power_cut: bool) -> None:
    """What runs, or, while a commit waits, what ran before it; a refused first commit keeps nothing."""
    todo, _ = DEEDS[deeds]
    steps, count = -1, 0  # at first nothing fails
    while steps < count:
        host.file.write_text(host.good)
        host.kept.unlink(missing_ok=True)
        host.boot()
        host.edit(*SLOWER)
        disk.begin(broken={steps})
        host.step = disk.step
        refused = None
        for deed in todo:
            try:
                deed(host)
            except ChangeRefused as error:
                refused = error
                if deed is todo[0]:
                    break  # the others would find nothing to do
        waits, runs, count = bool(host.timers), host.mtu, max(count, disk.steps)
        host.step = lambda: None
        disk.end(power_cut=power_cut)
        host.boot()
        if refused is None or deed is not todo[0]:
            assert host.mtu == (1400 if waits else runs), (steps, refused)
        steps += 1
    assert count > 4, "it failed at each step"


COMMENTED = ("supervisor = ", "# kept\nsupervisor = ")


def test_a_patch_is_in_the_file_and_runs(host: Host) -> None:
    host.edit(*COMMENTED)
    host.running.reload()
    host.file.chmod(0o640)
    preview = host.running.patch("br1", {"wan[wan4].mtu": 1300})
    assert [(c.path, c.old, c.new) for c in preview.fields] == [("wan[wan4].mtu", "1400", "1300")]
    assert preview.workers == {"cr1": "restart", "br1": "restart", "df1": "restart"}
    assert host.mtu == 1300
    assert "mtu = 1300" in host.file.read_text()
    assert "# kept\n" in host.file.read_text()
    assert host.file.stat().st_mode & 0o777 == 0o640
    host.running.patch("br1", {"wan[wan4].mtu": None})
    assert host.mtu == 1400
    assert describe(host.running.reload()) == []


def test_what_a_patch_would_do(host: Host) -> None:
    before = host.file.read_bytes()
    foreseen = host.running.foresee("br1", {"wan[wan4].mtu": 1300})
    with pytest.raises(ChangeRefused, match=r"wan\[0\]\.mtu"):
        host.running.foresee("br1", {"wan[wan4].mtu": 100})
    assert (host.file.read_bytes(), host.applied) == (before, [])
    assert host.running.patch("br1", {"wan[wan4].mtu": 1300}) == foreseen


def test_a_patch_of_a_class(host: Host) -> None:
    with pytest.raises(ChangeRefused, match=r"class\[bulk\]\.txqueuelen: the file has no \[\[class\]\] of that name"):
        host.running.patch("br1", {"class[bulk].txqueuelen": 55})
    host.file.write_text(host.good + '[[class]]\nname = "bulk"\n')
    host.running.reload()
    assert host.running.patch("br1", {"class[bulk].txqueuelen": 55}).workers == {}
    assert host.running.plan.tunnels[0].txqueuelen == 55


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"wan[wan4].mtu": 100}, r"the text: wan\[0\]\.mtu"),
        ({"wan[wan4].mtu": "1300"}, r"wan\[0\]\.mtu"),
        ({"wan[wan4].name": "wan5"}, "no field of br1"),
        ({"wan[wan5].mtu": 1300}, "no field of br1"),
        ({"identity.key": "/etc/shadow"}, "no field of br1"),
        ({"class[critical].dscp": 1}, "no field of br1"),
        ({"wan[wan4].interface": 'x"\n[nat]'}, r"wan\[0\]\.interface"),
    ],
)
def test_a_patch_that_is_wrong_changes_nothing(host: Host, changes: dict[str, Value], problem: str) -> None:
    before = host.file.read_bytes()
    with pytest.raises(ChangeRefused, match=problem):
        host.running.patch("br1", changes)
    assert (host.file.read_bytes(), host.applied) == (before, [])


@pytest.mark.parametrize(("fault", "told"), [(HostFault("no"), ChangeRefused), (RuntimeError("no"), RuntimeError)])
def test_a_patch_that_fails_leaves_the_file(host: Host, fault: Exception, told: type[Exception]) -> None:
    before, host.fault = host.file.read_bytes(), fault
    with pytest.raises(told, match="no"):
        host.running.patch("br1", {"wan[wan4].mtu": 1300})
    assert (host.file.read_bytes(), host.mtu) == (before, 1400)


def test_a_patch_takes_nothing_else_along(host: Host) -> None:
    host.edit('interface = "wan4"', 'interface = "wan9"')
    with pytest.raises(FileDiffers, match="is not what runs"):
        host.running.patch("br1", {"wan[wan4].mtu": 1300})


def test_a_file_that_cannot_be_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(change, "write_atomically", fail)
    with pytest.raises(ChangeRefused, match="cannot be written: Permission denied"):
        host.running.patch("br1", {"wan[wan4].mtu": 1300})
    assert host.applied == []


@pytest.mark.parametrize("step", range(3))
def test_a_patch_that_the_disk_does_not_take_leaves_the_file(host: Host, disk: Disk, step: int) -> None:
    """Also where the name has gone over to the new text already, and only may not last."""
    before = host.file.read_bytes()
    disk.begin(broken={step})
    with pytest.raises(ChangeRefused, match="Input/output error"):
        host.running.patch("br1", {"wan[wan4].mtu": 1300})
    assert (host.file.read_bytes(), host.applied) == (before, [])


def test_a_patch_that_neither_the_host_nor_then_the_disk_takes(
    host: Host, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    def step() -> None:
        disk.begin(broken=range(99))
        raise HostFault("nft: no")

    host.step = step
    with pytest.raises(ChangeRefused, match="nft: no"):
        host.running.patch("br1", {"wan[wan4].mtu": 1300})
    assert "it may not say what runs" in caplog.text


def test_fields_tell_what_a_change_does(host: Host) -> None:
    fields = {field.path: field for field in host.running.fields("br1")}
    assert fields["wan[wan4].mtu"] == ConfigField("wan[wan4].mtu", 1400, "restart", True)
    assert fields["wan[wan4].rate_mbit"] == ConfigField("wan[wan4].rate_mbit", None, "hot", False)
    assert {path.partition("[")[0] for path in fields} == {"wan", "class"}
