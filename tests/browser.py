"""A headless Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1400,1000",
)


@dataclass(frozen=True)
class Browser:
    """A session at `address`."""

    address: str

    def send(self, path: str, body: dict[str, Any] | None = None, method: str = "") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method or ("POST" if data else "GET"))
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self.send("/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """The value that a function body returns."""
        return self.send("/execute/sync", {"script": script, "args": []})

    def element(self, selector: str) -> str:
        return str(next(iter(self.send("/element", {"using": "css selector", "value": selector}).values())))

    def press(self, element: str, keys: str) -> None:
        self.send(f"/element/{element}/value", {"text": keys})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("/screenshot")))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A fresh browser; skips the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = {"binary": chromium, "args": [*(f"--{flag}" for flag in _FLAGS), f"--user-data-dir={profile}"]}
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = next(
                found[1] for line in process.stdout if (found := re.search(r"successfully on port (\d+)", line))
            )
            server = Browser(f"http://127.0.0.1:{port}/session")
            session = server.send("", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})["sessionId"]
            opened = Browser(f"{server.address}/{session}")
            try:
                yield opened
            finally:
                opened.send("", method="DELETE")
        finally:
            process.terminate()
