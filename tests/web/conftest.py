"""A real browser (Debian's Chromium, driven by selenium) and pages served over a real socket."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyong.pages.access import LOOPBACK, Access
from keyong.pages.app import application
from keyong.pages.judging import judge
from keyong.pages.serving import _listening
from keyong.pages.source import open_source
from keyong.pages.watch import Watch
from tests.keyong.pages.conftest import Mill, make_mill

PATIENCE = 60.0


def programs() -> tuple[str, str] | None:
    """Chromium and its driver, where both are."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests of a worker."""
    found = programs()
    if found is None:
        pytest.skip("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = found[0]
    profile = tmp_path_factory.mktemp("profile")
    # Its own sandbox cannot be built by root or within containers; it opens our pages alone.
    for one in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", f"user-data-dir={profile}"):
        options.add_argument(f"--{one}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    driver.set_page_load_timeout(60)
    yield Browser(driver)
    driver.quit()


@dataclass
class Browser:
    """The driver, with what the tests ask of it."""

    driver: Any

    def open(self, address: str, width: int = 1280) -> None:
        """Open a page at a width; what the console said before is forgotten."""
        self.driver.get_log("browser")
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get(address)

    def run(self, script: str) -> Any:
        """Run a script on the page."""
        return self.driver.execute_script(script)

    def text(self, selector: str) -> str:
        """The text of an element; empty where there is none."""
        return str(self.run(f"return document.querySelector({selector!r})?.textContent ?? ''")).strip()

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return int(self.run(f"return document.querySelectorAll({selector!r}).length"))

    def until(self, script: str) -> Any:
        """Wait for a script to return something true."""
        end = time.monotonic() + PATIENCE
        while not (found := self.run(script)):
            assert time.monotonic() < end, (script, self.text("main"))
            time.sleep(0.02)
        return found

    def checked(self) -> str:
        """Wait for the page's own check; what the browser found, with its tone."""
        self.until("return document.body.dataset.checked === 'yes'")
        return (
            f"{self.run('return document.getElementById(`own-verdict`).className')}: {self.text('#own-verdict .said')}"
        )

    def complaints(self) -> list[str]:
        """What the console said: scripts that failed, what the policy forbade."""
        return [one["message"] for one in self.driver.get_log("browser") if "favicon.ico" not in one["message"]]

    def ran(self, address: str) -> bool:
        """Open a page, and tell whether what a hostile party wrote ran on it as a script."""
        self.open(address)
        self.until("return document.readyState === 'complete'")
        return bool(self.run("return document.documentElement.dataset.ran !== undefined"))

    def forget(self) -> None:
        """Forget what was kept for this origin."""
        self.run("localStorage.clear(); sessionStorage.clear()")


@contextmanager
def serving(
    path: Path, fingerprint: str, changed: Callable[[Any], Any] = lambda app: app
) -> Iterator[tuple[str, Access]]:
    """The pages of a ledger over a socket of their own; yields the address and who may enter."""
    import uvicorn

    with ExitStack() as stack:
        source = stack.enter_context(open_source(path, fingerprint))
        listener = stack.enter_context(_listening("127.0.0.1", 0))
        port = listener.getsockname()[1]
        access = Access(LOOPBACK, f"keyong-pages-{port}")
        watch = Watch(source, fingerprint)
        watch.size = watch.indexed = source.index.bring_up()
        watch.judgement = judge(path, fingerprint)
        config = uvicorn.Config(changed(application(source, watch, access)), log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}", access
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """A mill's ledger of some jobs, cosigned by the other mills."""
    found = make_mill(tmp_path_factory.mktemp("mill"))
    found.parties.attest("mill-a")
    found.parties.close()
    yield found


@pytest.fixture(scope="session")
def address(mill: Mill, browser: Browser) -> Iterator[str]:
    """Its pages; the browser is logged in."""
    with serving(mill.home.path, mill.fingerprint) as (base, access):
        enter(browser, base, access)
        yield base


def let_in(browser: Browser, base: str, access: Access) -> None:
    """Log in without opening a page that shows anything."""
    browser.open(f"{base}/assets/mark.svg")
    session = access.redeem(access.new_link())
    browser.driver.add_cookie({"name": access.cookie, "value": session, "path": "/", "httpOnly": True})


def enter(browser: Browser, base: str, access: Access) -> None:
    """Follow a login link."""
    browser.open(f"{base}/login?token={access.new_link()}")
    browser.until(f"return location.pathname === '/' && document.body.dataset.vkey && location.origin === {base!r}")
    browser.forget()
