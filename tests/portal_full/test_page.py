"""The page in Chromium over nine tunnels: what it shows, what it lets whom do, and that all can use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.netns.portals import PORT, TOKENS, Portal
from tests.netns.product import System
from tools.product import Side
from tools.wait import end, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
URL = f"http://127.0.0.1:{PORT}/"
SERIOUS = ("serious", "critical")


class Page:
    """Chromium at the page, in the namespace of a side."""

    def __init__(self, driver: webdriver.Chrome, shots: Path) -> None:
        self.driver = driver
        self._shots = shots

    def sign_in(self, role: str) -> None:
        self.driver.get(URL)
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(URL)
        self.until(lambda: self.driver.find_elements(By.ID, "token"))
        self.driver.find_element(By.ID, "token").send_keys(TOKENS[role] + "\n")
        self.until(lambda: "serve" in self.text("main"))

    def go(self, where: str, heading: str) -> None:
        self.driver.execute_script(f"location.hash = {json.dumps(where)}")
        self.until(lambda: self.text("h2") == heading)

    def text(self, selector: str) -> str:
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join(' ')"
        return str(self.driver.execute_script(script, selector))

    def click(self, title: str) -> None:
        self.driver.find_element(By.XPATH, f"//button[text()='{title}']").click()

    def until(self, condition: Callable[[], object], seconds: float = 20) -> float:
        """How long it took."""
        begin = time.monotonic()
        until(condition, lambda: self.text("body"), seconds)
        return time.monotonic() - begin

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self._shots / f"{name}.png"))

    def errors(self) -> list[str]:
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def findings(self, axe: str) -> list[str]:
        """Serious ones of axe on what is shown."""
        self.driver.execute_script(axe)
        result: dict[str, Any] = self.driver.execute_async_script("axe.run().then(arguments[0])")
        return [
            f"{violation['id']}: {node['html']}"
            for violation in result["violations"]
            if violation["impact"] in SERIOUS
            for node in violation["nodes"]
        ]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", "axe-core@4"], cwd=directory, check=True, capture_output=True)
    (archive,) = directory.glob("*.tgz")
    shutil.unpack_archive(archive, directory)
    return (directory / "package/axe.min.js").read_text()


@pytest.fixture(params=["site", "hub"])
def side(request: pytest.FixtureRequest) -> Side:
    side: Side = request.param
    return side


@pytest.fixture
def page(running: System, portals: dict[Side, Portal], side: Side, build: Path) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1300,900",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    with running.inside(side):
        driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
        try:
            yield Page(driver, build)
        finally:
            driver.quit()


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_an_operator_sees_a_death_and_restarts_by_the_button(running: System, page: Page) -> None:
    page.sign_in("operator")
    assert "All 9 tunnels serve" in page.text(".verdict")
    page.shot("overview")
    assert len(page.driver.find_elements(By.CSS_SELECTOR, ".grid tbody tr")) == 9
    pid = running.pids("site")["br2"]
    end(pid)
    took = page.until(lambda: "br2: killed by signal 9" in page.text("main"))
    assert took < 2, took
    running.until_replaced("site", "br2", pid)
    page.go("tunnel/br2", "br2")
    page.until(lambda: "UP" in page.text("main p[role=status]"))
    page.shot("tunnel")
    pid = running.pids("site")["br2"]
    page.click("Restart")
    page.until(lambda: "restart of br2:" in page.text("#said"))
    running.until_replaced("site", "br2", pid)
    page.until(lambda: "operator (operator): restart br2" in page.text("main"))
    assert page.errors() == []


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_a_viewer_is_refused(page: Page) -> None:
    page.sign_in("viewer")
    page.go("tunnel/br2", "br2")
    assert all(
        not page.driver.find_element(By.XPATH, f"//button[text()='{t}']").is_enabled() for t in ("Restart", "Stop")
    )
    status = page.driver.execute_async_script(
        "const done = arguments[0]; fetch('/api/v1/tunnels/br2/restart', {method: 'POST', headers: {Authorization: "
        f"'Bearer {TOKENS['viewer']}'}}}}).then(r => done(r.status))"
    )
    assert status == 403


def test_every_page_is_accessible_in_both_colours_and_on_a_phone(page: Page, side: Side, axe: str) -> None:
    page.sign_in("operator")
    name = "br2" if side == "site" else "mt5.bulk"
    pages = [("", "Overview"), (f"tunnel/{name}", name), ("alarms", "Alarms"), ("kpi", "Indicators")]
    if side == "hub":
        pages.append(("sites", "Sites"))
    for colour in ("light", "dark"):
        page.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colour}]}
        )
        for where, heading in pages:
            page.go(where, heading)
            assert page.findings(axe) == [], (colour, heading)
            page.shot(f"{side}-{heading.replace('.', '-').lower()}-{colour}")
    page.driver.set_window_size(400, 800)
    for where, heading in pages:
        page.go(where, heading)
        wide = page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, heading
        page.shot(f"{side}-{heading.replace('.', '-').lower()}-phone")
    assert page.errors() == []


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_the_documentation_of_the_api(page: Page, axe: str) -> None:
    page.driver.get(URL + "docs")
    page.until(lambda: "GET /api/v1/kpi" in page.text("h3"))
    assert page.text("#WorkerStatus h3") == "WorkerStatus"
    assert page.findings(axe) == []
    page.shot("documentation")
    assert page.errors() == []


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_a_bad_token_is_told(page: Page) -> None:
    page.driver.get(URL)
    page.until(lambda: page.driver.find_elements(By.ID, "token"))
    page.driver.find_element(By.ID, "token").send_keys("nonsense\n")
    page.until(lambda: "no such token" in page.text("#said"))
