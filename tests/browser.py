"""A headless Chromium that loads a page, runs scripts in it, and remembers every complaint: DevTools' protocol by a
pair of pipes, where each message ends in a zero byte (`--remote-debugging-pipe`)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

SECONDS = 60.0
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_READ_FROM, _WRITE_TO = 3, 4
"""The descriptors by which Chromium talks."""


class Tab:
    """One page.

    Attributes:
        complaints: errors and warnings of the console, exceptions, and replies that were not as they should be.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser = to_browser
        self._answers: Queue[dict[str, Any]] = Queue()
        self._number = 0
        self._session = ""
        self._loaded = threading.Event()
        self.complaints: list[str] = []
        threading.Thread(target=self._listen, args=(from_browser,), daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._answers.get(timeout=SECONDS))["id"] != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        """Returns when it is loaded."""
        self._loaded.clear()
        self.call("Page.navigate", url=url)
        assert self._loaded.wait(SECONDS), "the page was not loaded in time"

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it comes to."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def picture(self) -> bytes:
        """What is to be seen, as a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _listen(self, from_browser: int) -> None:
        rest = b""
        with os.fdopen(from_browser, "rb", buffering=0) as pipe:
            while part := pipe.read(1 << 16):
                *messages, rest = (rest + part).split(b"\0")
                for message in messages:
                    self._hear(json.loads(message))

    def _hear(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case None:
                self._answers.put(message)
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(" ".join(str(one.get("value", one)) for one in told["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def browser(folder: Path, *flags: str) -> Iterator[Tab]:
    """A tab of a browser of its own; skips where Chromium is not installed.

    Args:
        folder: for its profile.
    """
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    wiring = f'exec "$@" {_READ_FROM}<&{their_in} {_WRITE_TO}>&{their_out}'
    words = [chromium, *FLAGS, *flags, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen(
        ["bash", "-c", wiring, "bash", *words], pass_fds=(their_in, their_out), stderr=subprocess.DEVNULL
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Tab(our_out, our_in)
    finally:
        os.close(our_out)  # at which it ends
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
