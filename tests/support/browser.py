"""Drive a headless Chromium by its debugging pipe, which needs no package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HANG_SECONDS = 900
"""A browser that hangs is killed, so that the tests of its file fail."""


class Browser:
    """A page of a headless browser, with what it complained about and asked for."""

    def __init__(self, profile: Path) -> None:
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # The browser reads from file 3 and writes to file 4. bash, because other shells know only files up to 9.
        connect = ["bash", "-c", f'exec "$0" "$@" 3<&{read} 4>&{write}']
        self.process = subprocess.Popen(
            [*connect, *command], pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self._guard = threading.Timer(HANG_SECONDS, self.process.kill)
        self._guard.daemon = True
        self._guard.start()
        self._pending = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.setLifecycleEventsEnabled", enabled=True)

    def close(self) -> None:
        self._guard.cancel()
        self.process.kill()
        self.process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (found := self._receive()).get("id") != self._number:
            self.events.append(found)
        assert "error" not in found, found
        return dict(found["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            part = os.read(self._in, 2**16)
            assert part, "the browser has ended"
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\0")
        return dict(json.loads(line))

    def open(self, place: Path | str, width: int = 1280, scheme: str = "light", fragment: str = "") -> None:
        """Open a file or a URL, and wait until it is loaded."""
        self._load("about:blank")  # otherwise another fragment of an open page would not load it
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.media(scheme)
        self._load((place.as_uri() if isinstance(place, Path) else place) + fragment)

    def _load(self, url: str) -> None:
        self.events.clear()
        loader = self.send("Page.navigate", url=url)["loaderId"]
        while not any(_is_load(event, loader) for event in self.events):
            self.events.append(self._receive())

    def media(self, scheme: str = "light", media: str = "") -> None:
        self.send(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or that of its promise."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a condition is true, which the page checks before each frame."""
        again = f"({condition}) ? done() : requestAnimationFrame(check)"
        check = f"const check = () => {{ try {{ {again}; }} catch (error) {{ fail(error); }} }}; check();"
        self.evaluate(f"new Promise((done, fail) => {{ {check} }})")

    def click(self, selector: str, number: int = 0) -> None:
        """Click the middle of an element, as a mouse does."""
        find = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        self.evaluate(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.evaluate(f"{find}.getBoundingClientRect().toJSON()")
        middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **middle, button="left", clickCount=1)

    def click_until(self, condition: str, selector: str) -> None:
        """Click an element until a condition is true: a page that still draws its charts may move under the mouse."""
        while not self.evaluate(condition):
            self.click(selector)
            self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str) -> None:
        """Press a key: a letter, a digit or another character, or one of the names below."""
        code = {"Enter": 13, "ArrowDown": 40, "End": 35, "Home": 36}.get(key, ord(key[0].upper()))
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, among them what the page's policy refused."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
        return found

    def violations(self) -> list[str]:
        """Serious faults of accessibility that axe-core finds in the page as it is now."""
        axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        self.evaluate(f"{axe}; undefined")
        # A page that fades in has too little contrast until it is there.
        self.evaluate("Promise.all(document.getAnimations().map((x) => x.finished)).then(() => undefined)")
        found = self.evaluate("axe.run({resultTypes: ['violations']}).then((result) => result.violations)")
        return [
            f"{fault['id']}: {fault['help']}: {[node['html'] for node in fault['nodes']]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def requests(self) -> list[str]:
        """Addresses that the page asked for, besides itself."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:"))]


def _is_load(event: dict[str, Any], loader: str) -> bool:
    """Whether a page is loaded: the one that was asked for, not the one before it."""
    params = event.get("params", {})
    return event["method"] == "Page.lifecycleEvent" and (params["loaderId"], params["name"]) == (loader, "load")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the tests of a file; without one they are skipped, or fail if `REQUIRE_BROWSER` is set."""
    give_up = pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip
    if CHROMIUM is None:
        give_up("no Chromium: make browser")
    try:
        found = Browser(tmp_path_factory.mktemp("profile"))
    except (AssertionError, OSError) as error:
        give_up(f"Chromium does not start here: {error}")
    yield found
    found.close()
