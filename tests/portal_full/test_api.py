"""The API under schemathesis, 10,000 seeded bad inputs, and those who guess at tokens."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal.auth import TRIES
from tests.process.bad_inputs import inputs
from tests.process.portals import EXPIRED, TOKENS, Portals, undocumented
from tools.results import Results

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]
API = "/api/v1"
DOCUMENT = f"{API}/docs/openapi.json"
EXAMPLES = 100
COUNT = 10_000
GUESSES = 5000
CHECKS_NOT_MADE = ("ignored_auth", "positive_data_acceptance", "allow_header_conformance")
"""It takes a 429 to its own bad tokens for a way in, and a 404 for a refusal of what is valid; tokens: below. And the
answers to OPTIONS are the framework's, which of two handlers of a path names one."""


def test_schemathesis(run: Run, site_plan: HostPlan, tmp_path: Path, build: Path, results: Results) -> None:
    report = build / "schemathesis.json"

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            process = await asyncio.create_subprocess_exec(
                Path(sys.executable).with_name("schemathesis"), "run", f"http://127.0.0.1:{portals.port}{DOCUMENT}",
                "--header", f"Authorization: Bearer {TOKENS['admin']}", "--exclude-path", f"{API}/stream",
                "--exclude-checks", ",".join(CHECKS_NOT_MADE), "--seed", "1", "--max-examples", str(EXAMPLES),
                "--continue-on-failure", "--no-color", "--report-json-path", str(report),
                cwd=tmp_path,
            )  # fmt: skip
            status = await process.wait()
            said = json.loads(report.read_bytes())
            results.add("api.schemathesis.operations", [said["operations"]["tested"]], "operations")
            results.add("api.schemathesis.cases", [said["test_cases"]["generated"]], "requests")
            results.add("api.schemathesis.failures", [len(said["failures"]) + len(said["errors"])], "kinds", target=0)
            assert status == 0, said["failures"]
            assert (await portals.get(f"{API}/health", "")).status == 200

    run(body())


def test_bad_inputs(run: Run, site_plan: HostPlan, tmp_path: Path, results: Results) -> None:
    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            document = (await portals.get(DOCUMENT, "")).json()
            asked = [*inputs(document, 1, COUNT)]
            pid = portals.portal.pid
            assert pid is not None
            before = psutil.Process(pid).memory_full_info().uss
            begin = time.monotonic()
            answers = await portals.ask_all(asked, "admin")
            took = time.monotonic() - begin
            bad = undocumented(document, asked, answers)
            results.add("api.bad_inputs.sent", [len(answers)], "requests")
            results.add("api.bad_inputs.undocumented", [len(bad)], "answers", target=0)
            for status, count in sorted(Counter(answer.status for answer in answers).items()):
                results.add(f"api.bad_inputs.status_{status}", [count], "answers")
            results.add("api.bad_inputs.each", [1e3 * took / COUNT], "ms")
            results.add(
                "api.bad_inputs.memory_growth", [(psutil.Process(pid).memory_full_info().uss - before) / 1e6], "MB"
            )
            assert bad == []
            assert portals.portal.pid == pid
            assert len((await portals.get(f"{API}/tunnels")).json()) == 6

    run(body())


def test_whoever_guesses_tokens(run: Run, site_plan: HostPlan, tmp_path: Path, results: Results) -> None:
    """Wrong, missing, expired, of the wrong role, and one after the other as fast as they are refused."""

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            document = (await portals.get(DOCUMENT, "")).json()
            operations = [
                (method.upper(), path.format(name="cr1", rule="r", subject="s", number=1), operation)
                for path, item in document["paths"].items()
                for method, operation in item.items()
                if operation.get("security")
            ]
            assert len(operations) > 15
            refused: Counter[int] = Counter()
            for method, path, _ in operations:
                for token in ("", EXPIRED, f"{TOKENS['admin']}x", TOKENS["admin"][:-1], "x" * 8000):
                    answer = await portals.ask(method, path, token)
                    refused[answer.status] += 1
                    assert answer.status in (401, 429), (method, path)
            needs = [(m, p) for m, p, o in operations if m != "GET" and "validate" not in p]
            for method, path in needs:
                assert (await portals.ask(method, path, "viewer")).status == 403, (method, path)
            begin = time.monotonic()
            guesses = await asyncio.to_thread(_guess, portals.port)
            took = time.monotonic() - begin
            results.add("api.tokens.refused_401", [refused[401]], "answers")
            results.add("api.tokens.refused_429", [refused[429]], "answers")
            results.add("api.tokens.guesses", [GUESSES], "requests")
            results.add("api.tokens.guesses_looked_at", [guesses[401]], "requests", target=TRIES)
            results.add("api.tokens.guesses_let_in", [GUESSES - guesses[401] - guesses[429]], "requests", target=0)
            results.add("api.tokens.guesses_rate", [GUESSES / took], "requests/s")
            assert guesses[401] + guesses[429] == GUESSES
            assert (await portals.get(f"{API}/tunnels")).status == 200  # a token that this address has used well
            assert portals.rig.fleet.summary() == "6 UP"

    run(body())


def _guess(port: int) -> Counter[int]:
    """The answers to guesses of an address that has not been seen yet."""
    seen: Counter[int] = Counter()
    with closing(http.client.HTTPConnection("127.0.0.1", port, 10, ("127.0.0.2", 0))) as connection:
        for _ in range(GUESSES):
            headers = {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"}
            connection.request("POST", f"{API}/tunnels/cr1/stop", headers=headers)
            response = connection.getresponse()
            response.read()
            seen[response.status] += 1
    return seen
