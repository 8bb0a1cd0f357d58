"""Headless Chromium, and the triage page as a person uses it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
ENTER, ESCAPE, LEFT, UP, RIGHT, DOWN = "\ue007", "\ue00c", "\ue012", "\ue013", "\ue014", "\ue015"
"""Keys as WebDriver names them."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


def start(profile: Path, downloads: Path) -> Any:
    """A WebDriver; skips where there is no Chromium, and fails there in continuous integration."""
    try:
        from selenium import webdriver
    except ImportError:
        return _without("selenium is not installed; pip install 'safevlm[dev]'")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = next(filter(None, map(shutil.which, DRIVERS)), None)
    if browser is None or driver is None:
        return _without("no Chromium with its driver; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
    started.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    return started


def _without(reason: str) -> None:
    if os.environ.get("CI") or os.environ.get("SAFEVLM_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Triage:
    """The page in a browser: what it shows, and what a person does to it."""

    def __init__(self, driver: Any, page: Path) -> None:
        self.driver = driver
        self.problems()  # of earlier pages
        driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def number(self, selector: str) -> int:
        return int(self.text(selector).replace(",", ""))

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)

    def choose(self, selector: str, value: Any, event: str = "change") -> None:
        """Set a control's value as a person's choice would."""
        script = (
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event(arguments[2], {bubbles: true}))"
        )
        self.run(script, selector, value, event)

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def tab(self, name: str) -> None:
        self.click(f'.tabs [data-tab="{name}"]')

    def ids(self) -> list[str]:
        """Ids of the cards on this page of the gallery."""
        script = "return [...document.querySelectorAll('.card .title')].map(e => e.title.split('\\n')[0])"
        return list(self.run(script))

    def all_ids(self) -> list[str]:
        """Ids of every page of the gallery, in one go through `Next`."""
        script = """
            const found = [];
            for (;;) {
                document.querySelectorAll('.card .title').forEach(e => found.push(e.title.split('\\n')[0]));
                if (document.querySelector('#next').disabled) return found;
                document.querySelector('#next').click();
            }"""
        return list(self.run(script))

    def current(self) -> str:
        """Id of the card that has the focus."""
        return str(self.run("return document.activeElement.querySelector('.title').title.split('\\n')[0]"))

    def problems(self) -> list[str]:
        """What the console complained of, and every request that left the page, since the last call."""
        found = [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith(("file:///", "data:", "blob:")):
                    found.append(f"requested {url}")
        return found
