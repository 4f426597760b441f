"""The page in Chromium over nine tunnels: what it shows, what it lets whom do, and that all can use it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.netns.portals import PORT, TOKENS, Portal
from tests.netns.product import System, ok
from tools.product import Side
from tools.wait import end, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
URL = f"http://127.0.0.1:{PORT}/"
ROOT = Path(__file__).parents[2]
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

    def words(self, selector: str) -> str:
        """As `text`, with one space between them."""
        return " ".join(self.text(selector).split())

    def press(self, *keys: str) -> None:
        """Where the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def field(self, label: str) -> WebElement:
        """The input of that label, once it is there."""
        where = f"//input[@id=//label[text()='{label}']/@for]"
        self.until(lambda: self.driver.find_elements(By.XPATH, where))
        return self.driver.find_element(By.XPATH, where)

    def effect_of(self, field: WebElement) -> str:
        """What its description says."""
        return self.text(f"#{field.get_attribute('aria-describedby')}")

    def paint(self, colour: str) -> None:
        """Light or dark."""
        media = {"features": [{"name": "prefers-color-scheme", "value": colour}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

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
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
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
def test_a_supervisor_that_hangs_does_not_look_well(running: System, page: Page, portals: dict[Side, Portal]) -> None:
    page.sign_in("viewer")
    pid = running.products["site"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        page.until(lambda: "The supervisor is silent" in page.text("#link"))
        page.until(lambda: "not known" in page.text(".verdict"))
        page.shot("silent")
        metrics = portals["site"].metrics()
        ages = [tunnel["age"] for tunnel in json.loads(portals["site"].get("/api/v1/tunnels"))]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert list(metrics["mpq_supervisor_up"].values()) == [0]
    assert "mpq_tunnel_up" not in metrics
    assert min(ages) >= 5
    page.until(lambda: "All 9 tunnels serve" in page.text(".verdict"))
    assert page.text("#link") == ""


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_what_happens_while_nobody_listens_is_shown_after_it(
    running: System, page: Page, portals: dict[Side, Portal]
) -> None:
    page.sign_in("viewer")
    end(portals["site"].pid())
    pid = running.pids("site")["br2"]
    ok(running.lab.ctl("site", "restart", "br2"))  # the next portal is told at once, the page comes later
    running.until_replaced("site", "br2", pid)
    page.until(lambda: "portal: killed by signal 9" in page.text("main table"))
    page.until(lambda: "restart br2" in page.text("main table"))
    page.until(lambda: "No connection" not in page.text("#link"))


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_odd_words_are_answered(page: Page) -> None:
    page.sign_in("admin")
    page.go("tunnel/br2", "br2")
    page.driver.find_element(By.TAG_NAME, "summary").click()
    page.field("wan[wan5].mtu").clear()
    page.field("wan[wan5].mtu").send_keys("01300" + Keys.ENTER)
    page.until(lambda: "refused, nothing has changed" in page.text(".told"))
    page.go("kpi", "Indicators")
    page.go("%", "Overview")
    assert [line for line in page.errors() if "422" not in line] == []


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


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_an_admin_changes_a_field_by_the_keyboard(running: System, page: Page, axe: str) -> None:
    """Looked at first, then applied; what is wrong is told and changes nothing."""
    file, pids = running.configs["site"], running.pids("site")
    before = file.read_text()
    page.sign_in("admin")
    page.go("tunnel/br2", "br2")
    page.driver.execute_script("document.querySelector('summary').focus()")
    page.press(Keys.ENTER)
    field = page.field("wan[wan5].rate_mbit")
    assert page.effect_of(field) == "at once"
    assert page.effect_of(page.field("wan[wan5].mtu")) == "restarts; the other end has to follow"
    for colour in ("dark", "light"):
        page.paint(colour)
        assert page.findings(axe) == []
    field.send_keys("lots" + Keys.ENTER)
    page.until(lambda: "refused, nothing has changed" in page.text(".told"))
    assert "rate_mbit" in page.text(".told li")
    page.field("wan[wan5].rate_mbit").clear()
    page.field("wan[wan5].rate_mbit").send_keys("88" + Keys.ENTER)
    page.until(lambda: "This would change: wan[wan5].rate_mbit: default → 88" in page.words(".told"))
    page.shot("fields")
    assert file.read_text() == before
    page.press(Keys.TAB, Keys.TAB, Keys.ENTER)  # from what was told to Check, to Apply
    page.until(lambda: "Changed, in the file and in what runs" in page.text(".told"))
    assert "rate_mbit = 88" in file.read_text()
    page.until(lambda: "admin (admin): set wan[wan5].rate_mbit: default → 88" in page.text("main"))
    page.driver.set_window_size(400, 800)
    assert page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.findings(axe) == []
    page.shot("fields-phone")
    page.field("wan[wan5].rate_mbit").clear()
    page.field("wan[wan5].rate_mbit").send_keys(Keys.ENTER)
    page.until(lambda: "This would change: wan[wan5].rate_mbit: 88.0 → default" in page.words(".told"))
    page.click("Apply")
    page.until(lambda: "Changed," in page.text(".told"))
    assert "rate_mbit = 88" not in file.read_text()
    assert running.pids("site") == pids
    severe = [line for line in page.errors() if "422" not in line]  # Chromium logs every answer above 399
    assert severe == []


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_whoever_is_no_admin_only_looks_at_fields(page: Page) -> None:
    page.sign_in("operator")
    page.go("tunnel/br2", "br2")
    page.driver.find_element(By.TAG_NAME, "summary").click()
    assert page.field("wan[wan5].mtu").get_attribute("readonly")
    assert not page.driver.find_elements(By.XPATH, "//button[text()='Check']")


def test_every_page_is_accessible_in_both_colours_and_on_a_phone(page: Page, side: Side, axe: str) -> None:
    page.sign_in("operator")
    name = "br2" if side == "site" else "mt5.bulk"
    pages = [("", "Overview"), (f"tunnel/{name}", name), ("alarms", "Alarms"), ("kpi", "Indicators")]
    if side == "hub":
        pages.append(("sites", "Sites"))
    for colour in ("light", "dark"):
        page.paint(colour)
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
    assert page.text("#TunnelStatus h3") == "TunnelStatus"
    assert page.findings(axe) == []
    page.shot("documentation")
    assert page.errors() == []


@pytest.mark.parametrize("side", ["site"], indirect=True)
def test_a_bad_token_is_told(page: Page) -> None:
    page.driver.get(URL)
    page.until(lambda: page.driver.find_elements(By.ID, "token"))
    page.driver.find_element(By.ID, "token").send_keys("nonsense\n")
    page.until(lambda: "no such token" in page.text("#said"))


def test_the_chart_library_is_as_npm_has_it(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", ROOT, "vendor", f"VENDOR={tmp_path}"], check=True)
    ours = ROOT / "mpq_supervisor/portal/static/vendor"
    found = [
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path, ours)
    ]
    assert found[0] == found[1] != {}
