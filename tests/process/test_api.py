"""The REST API in front of a fleet of fake workers."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mpq_supervisor.change import ChangeRefused, FileDiffers
from mpq_supervisor.plan import HostPlan
from tests.process.bad_inputs import inputs
from tests.process.conftest import SITE
from tests.process.portals import Portals, undocumented

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]
API = "/api/v1"
DOCUMENT = Path(__file__).parents[2] / "docs/api.md"


def test_who_may_what(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            assert (await portals.get(f"{API}/health", "")).json()["status"] == "ok"
            document = (await portals.get(f"{API}/docs/openapi.json", "")).json()
            for path, item in document["paths"].items():
                for method, operation in item.items():
                    if path.endswith("/health"):
                        continue
                    role = "admin" if method == "patch" else "viewer" if method == "get" else "operator"
                    role = "viewer" if "validate" in path else role
                    assert operation["security"] == [{"bearer": [role]}], path
                    assert operation["description"], path
                    where = path.format(name="cr1", rule="r", subject="s", number=1)
                    assert (await portals.ask(method.upper(), where, "")).status == 401, path
                    if role != "viewer":
                        answer = await portals.ask(method.upper(), where, "viewer")
                        assert (answer.status, answer.json()["detail"]) == (403, f"viewer is viewer, not {role}")
            assert portals.rig.fleet.summary() == "6 UP"

    run(body())


def test_tunnels_and_orders(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            names = [tunnel["name"] for tunnel in (await portals.get(f"{API}/tunnels")).json()]
            assert names == ["cr1", "br1", "df1", "cr2", "br2", "df2"]
            one = (await portals.get(f"{API}/tunnels/br2")).json()
            assert (one["class"], one["wan"], one["state"]) == ("bulk", "wan5", "UP")
            assert (await portals.get(f"{API}/tunnels/br9")).status == 404
            assert (await portals.get(f"{API}/tunnels/br2;")).status == 400
            pid = portals.rig.pid("br2")
            answer = await portals.ask("POST", f"{API}/tunnels/br2/restart", "operator")
            assert (answer.status, answer.json()) == (
                202, {"tunnel": "br2", "action": "restart", "state": "REPLACING"},
            )  # fmt: skip
            await portals.rig.until(lambda: portals.rig.fleet.workers["br2"].process is not None)
            assert (await portals.rig.pids())["br2"] != pid
            assert (await portals.ask("POST", f"{API}/tunnels/br2/stop", "operator")).status == 202
            await portals.rig.all_in("STOPPED", "br2")
            assert (await portals.ask("POST", f"{API}/tunnels/br2/start", "admin")).status == 202
            await portals.rig.all_in("UP")
            metrics = (await portals.get(f"{API}/tunnels/br2/metrics")).json()
            assert {sample["labels"]["tunnel"] for sample in metrics} == {"br2"}
            assert len((await portals.get(f"{API}/metrics")).json()) > 6 * len(metrics) / 2
            info = (await portals.get(f"{API}/system/info", "operator")).json()
            assert (info["name"], info["you"], info["your_role"]) == ("ship1", "operator", "operator")

    run(body())


def test_what_was_done_is_told_and_kept(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            async with portals.listening() as news:
                assert (await anext(news))[0] == "status"
                await portals.ask("POST", f"{API}/tunnels/br2/restart", "operator")
                kinds, states = set(), set()
                async with asyncio.timeout(5):
                    async for kind, data in news:
                        if kind == "event":
                            kinds.add(data["kind"])
                        else:
                            states.add(next(t["state"] for t in data["tunnels"] if t["name"] == "br2"))
                        if kinds >= {"state", "audit"} and states >= {"UP"}:
                            break
            async with asyncio.timeout(10):
                while True:
                    page = (await portals.get(f"{API}/events?tunnel=br2")).json()
                    if any(event["kind"] == "audit" for event in page["events"]):
                        break
                    await asyncio.sleep(0.1)
            (audit,) = (event for event in page["events"] if event["kind"] == "audit")
            assert audit["text"] == "operator (operator): restart br2: UP → REPLACING"
            assert audit["reason"] == "operator"
            lines = (await portals.get(f"{API}/tunnels/br2/logs?lines=3")).json()
            assert 0 < len(lines) <= 3
            assert all(line["text"].startswith("br2: ") for line in lines)
            assert (await portals.get(f"{API}/tunnels/br2/logs?level=error")).json() == []
            history = (await portals.get(f"{API}/history?name=br2&since={int(time.time()) - 60}")).json()
            assert history["points"][-1]["up"] is not None
            assert (await portals.get(f"{API}/history?name=nobody")).status == 404
            assert (await portals.get(f"{API}/history?name=br2&since=10&until=5")).status == 400
            assert (await portals.get(f"{API}/kpi?days=2")).status == 200

    run(body())


NONSENSE: list[tuple[str, str, bytes | None, int]] = [
    ("GET", "/tunnels/%00", None, 400),
    ("GET", "/tunnels/" + "x" * 65, None, 400),
    ("GET", "/tunnels/../../etc/passwd", None, 404),
    ("GET", "/tunnels/cr1/logs?lines=0", None, 400),
    ("GET", "/tunnels/cr1/logs?lines=x", None, 400),
    ("GET", "/tunnels/cr1/logs?level=loud", None, 400),
    ("GET", "/history?name=cr1&points=5001", None, 400),
    ("GET", "/history", None, 400),
    ("GET", "/kpi?days=367", None, 400),
    ("GET", "/events?limit=ten", None, 400),
    ("POST", "/config/validate", b"{", 400),
    ("POST", "/config/validate", b'{"toml": 1}', 400),
    ("POST", "/config/validate", b'{"a":' * 50_000, 400),
    ("POST", "/config/validate", b'{"toml": "\xff"}', 400),
    ("POST", "/silences", b'{"minutes": 1, "reason": "none\\n2026-01-01 INFO audit: ann (admin): stop cr1"}', 400),
    ("POST", "/silences", b'{"minutes": 1, "rule": "no\\u001b[2J"}', 400),
    ("GET", "/history?name=cr1&since=-1", None, 400),
    ("GET", "/history?name=cr1&since=-263879967742195433472", None, 400),
    ("GET", "/events?until=4102444801", None, 400),
    ("POST", "/config/validate", b'{"toml": "", "more": 1}', 400),
    ("POST", "/config/validate", b'{"toml": "' + b"x" * 600_000 + b'"}', 413),
    ("DELETE", "/tunnels", None, 405),
    ("GET", "/nothing", None, 404),
]


def test_nonsense_is_refused_as_documented(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            for method, path, data, status in NONSENSE:
                answer = await portals.ask(method, API + path, "admin", data, Content_Type="application/json")
                assert answer.status == status, (path, answer.body)
                assert answer.json()["status_code"] == status
                assert answer.headers["x-content-type-options"] == "nosniff", path

    run(body())


def test_bad_inputs_are_refused_as_documented(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    """10,000 of them are in tests/portal_full."""

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            document = (await portals.get(f"{API}/docs/openapi.json", "")).json()
            asked = [*inputs(document, 0, 300)]
            assert undocumented(document, asked, await portals.ask_all(asked, "admin")) == []

    run(body())


def test_a_configuration_is_looked_at(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            for change, verdict in ((("", ""), []), (("wan5", "wan4"), ['wan[1].name: "wan4" is taken'])):
                text = SITE.format(pki="/nowhere").replace(*change)
                answer = (await portals.ask("POST", f"{API}/config/validate", "viewer", {"toml": text})).json()
                assert answer["good"] is not verdict
                assert [problem[: len(verdict[0])] for problem in answer["problems"][:1]] == verdict

    run(body())


def test_the_configuration_of_a_tunnel(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    changes = {"changes": {"wan[wan5].mtu": 1300}}

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            path = f"{API}/tunnels/br2/config"
            assert (await portals.get(path)).json() == [
                {"path": "wan[wan5].mtu", "value": 1400, "effect": "restart", "coupled": True}
            ]
            assert (await portals.ask("PATCH", path, "operator", changes)).status == 403
            assert (await portals.ask("PATCH", f"{path}?only_try=true", "operator", changes)).status == 403
            done = await portals.ask("PATCH", f"{path}?only_try=true", "admin", changes)
            assert (done.json()["workers"], portals.patched) == ({"br2": "restart"}, [])
            done = await portals.ask("PATCH", path, "admin", changes)
            assert done.json()["workers"] == {"br2": "restart"}
            assert done.json()["fields"][0]["effect"] == "restart"
            done = await portals.ask("POST", path, "admin", changes, X_HTTP_Method_Override="PATCH")
            assert done.status == 200
            assert portals.patched == [("br2", {"wan[wan5].mtu": 1300})] * 2
            bad: object
            for bad in ({}, {"changes": {}}, {"changes": {"x": {}}}, {"changes": {"x": 1}, "more": 1}):
                assert (await portals.ask("PATCH", path, "admin", bad)).status == 400
            for refusal, status in ((ChangeRefused(["wan[1].mtu: no"]), 422), (FileDiffers(["differs"]), 409)):
                portals.refusal = refusal
                assert (await portals.ask("PATCH", f"{path}?only_try=1", "admin", changes)).status == status
                assert (await portals.ask("PATCH", path, "admin", changes)).status == status
            found = await portals.audits(2)
            assert found[0]["text"] == "admin (admin): set wan[wan5].mtu: 1400 → 1300"
            assert (found[0]["tunnel"], found[0]["reason"]) == ("br2", "admin")

    run(body())


def test_only_patch_can_be_meant_by_post(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            path = f"{API}/tunnels/cr1/restart"
            assert (await portals.ask("POST", path, "viewer", X_HTTP_Method_Override="PATCH")).status == 405
            assert (await portals.ask("POST", path, "viewer", X_HTTP_Method_Override="DELETE")).status == 403

    run(body())


def test_the_page_lists_every_operation(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    documented = re.findall(r"^\| `([A-Z]+) ([^`]+)` \|", DOCUMENT.read_text(), re.MULTILINE)

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            document = (await portals.get(f"{API}/docs/openapi.json", "")).json()
            operations = {(m.upper(), path) for path, item in document["paths"].items() for m in item}
            assert {(method, f"{API}/{path}") for method, path in documented} == operations

    run(body())


def test_the_page_and_all_it_needs_are_served(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    """Nothing comes from elsewhere, and nothing it asks for is missing."""

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            wanted, seen = ["/"], set()
            while wanted:
                path = wanted.pop()
                seen.add(path)
                answer = await portals.get(path, "")
                assert answer.status == 200, path
                text = answer.body.decode()
                assert "//" not in "".join(re.findall(r"""(?:src|href)=["']([^"']*)""", text)), path
                if not path.startswith("/static/vendor"):
                    found = re.findall(r"""(?:src|href)="(/[^"]+)"|from "\.(/[^"]+)\"""", text)
                    wanted += [one or f"/static{two}" for one, two in found if (one or f"/static{two}") not in seen]
            assert {"/static/main.js", "/static/tunnel.js", "/static/vendor/uplot/uPlot.iife.min.js"} <= seen
            assert answer.headers["content-security-policy"].startswith("default-src 'self';")
            assert (await portals.get("/static/../service.py", "")).status == 404
            assert (await portals.get("/static/%2e%2e/service.py", "")).status == 404

    run(body())


def test_the_documentation_is_served(run: Run, site_plan: HostPlan, tmp_path: Path) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            answer = await portals.get("/docs", "")
            assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/html")
            for path in re.findall(rb'(?:src|href)="(/[^"#]*)"', answer.body):
                assert (await portals.get(path.decode(), "")).status == 200, path

    run(body())
