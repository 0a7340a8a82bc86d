"""A headless Chromium, spoken to over its debugging pipe (no library, no port)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

COMMAND = "chromium-headless-shell"
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


_END_SECONDS = 60.0


class BrowserError(Exception):
    """The browser has refused a command, or ended."""


class HeadlessBrowser:
    """One browser with one page; end it with `close` or as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Start it with its profile in `folder`."""
        commands_read, self._commands = os.pipe()
        self._answers, answers_write = os.pipe()
        # The browser reads commands from its descriptor 3 and writes answers to 4.
        shell = f'exec "$0" "$@" 3<&{commands_read} 4>&{answers_write}'
        command = ["/bin/bash", "-c", shell, COMMAND, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(commands_read, answers_write), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(commands_read)
        os.close(answers_write)
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        """Events since `open`, as they came."""
        target = next(one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def open(self, url: str, width: int, height: int, *, dark: bool) -> None:
        """Load `url` in a window of `width` by `height` pixels, and wait for its end."""
        self._load("about:blank")  # another part of the same page would be no load
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._load(url)

    def _load(self, url: str) -> None:
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def evaluate(self, source: str) -> Any:
        """Return the value of a JavaScript expression, of a promise once it is kept."""
        answer = self.ask("Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"])[:2_000])
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key, by its name and its Windows key code."""
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def take_picture(self, path: Path, *, whole: bool = False) -> None:
        """Write the window, or the `whole` page, to `path` as PNG."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def problems(self) -> list[str]:
        """Return the errors and warnings since `open`: blocked by the policy, not found, thrown."""
        entries = [event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"]
        return [
            f"{entry['text']} {entry.get('url', '')}" for entry in entries if entry["level"] in {"error", "warning"}
        ]

    def requests(self) -> list[str]:
        """Return the URLs that were asked for since `open`."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command of the DevTools protocol about the page."""
        return self._ask(method, self._session, **parameters)

    def close(self) -> None:
        """End the browser."""
        self._write(json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, session: dict[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters, **(session or {})}
        self._write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._commands, data) :]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise BrowserError("the browser has ended")
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "id" not in message:
            self.events.append(message)
        return message
