"""What a supervisor that has ended left in the host's network, and who is in the way: `clear`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpq_supervisor.__main__ import main
from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.leftovers import Register
from mpq_supervisor.plan import make_plan
from tests.netns.namespace import run
from tests.netns.site import LOG, RATED, Net

pytestmark = pytest.mark.root

TEXT = RATED.replace(
    'interface = "lan1"',
    'interface = "lan1", address = ["172.16.9.1/24", "fd00:16:9::1/64"], prefixes = ["192.0.2.0/24"]',
)
SHOWN = (
    "ip address", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all proto 109",
    "nft list ruleset", "tc qdisc",
)  # fmt: skip


@pytest.mark.parametrize("end", ["closed", "crash"])
def test_all_of_ours_is_taken_away_and_nothing_else(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("mpq_supervisor.logs.set_up", lambda: None)
    clear = ["clear", "--runtime-dir", str(tmp_path)]
    with net.site.entered():
        run("ip address add 192.168.9.7/24 dev lan1", "nft add table inet filter")
        before = run(*SHOWN)
        host = Host(make_plan(parse(TEXT)), LOG)
        host.up()
        if end == "closed":
            host.down("closed")
        left = run(*SHOWN)
        assert "172.16.9.1/24" in left
        assert "fd00:16:9::1/64" in left
        register = Register(tmp_path)
        assert main(clear) == 69, "one that runs would put it back"
        assert run(*SHOWN) == left
        register.close()
        assert main(clear) == 0
        if end == "crash":  # its TUNs go with it
            host.down("open")
        assert run(*SHOWN) == before
        assert main(clear) == 0
