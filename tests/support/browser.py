"""A real browser without a window, spoken to by the Chrome DevTools Protocol."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import wait_for

VARIABLE = "TEST_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
Json = dict[str, Any]  # Any: JSON


def find_browser() -> str | None:
    """The one in TEST_CHROMIUM, or of the system."""
    return os.environ.get(VARIABLE) or next((found for name in _NAMES if (found := shutil.which(name))), None)


@dataclass
class Page:
    socket: ClientConnection
    session_id: str = ""
    _ids: Iterator[int] = field(default_factory=count)

    def ask(self, method: str, **params: object) -> Json:
        number = next(self._ids)
        letter: Json = {"id": number, "method": method, "params": params}
        if self.session_id:
            letter["sessionId"] = self.session_id
        self.socket.send(json.dumps(letter))
        while True:
            answer: Json = json.loads(self.socket.recv(timeout=30))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: Json = answer["result"]
                return result

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)
        wait_for(lambda: self.run("location.href") == url and self.run("document.readyState") == "complete")

    def run(self, script: str) -> Any:  # Any: what it gives, as JSON
        """What the expression gives; of a promise what it becomes."""
        told = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def add_authenticator(self) -> None:
        """One that is built in, and says yes."""
        self.ask("WebAuthn.enable")
        self.ask(
            "WebAuthn.addVirtualAuthenticator",
            options={
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            },
        )


@contextmanager
def running_browser(binary: str) -> Iterator[Page]:
    with TemporaryDirectory(prefix="undercroft-browser-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                binary,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
                *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            told = Path(folder) / "DevToolsActivePort"
            wait_for(lambda: told.exists() and "\n" in told.read_text(), within_seconds=60)
            port, path = told.read_text().split("\n")[:2]
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as socket:
                page = Page(socket)
                target = page.ask("Target.createTarget", url="about:blank")["targetId"]
                page.session_id = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
                page.ask("Page.enable")
                # What is opened here is an answer of the service, which lets a page that shows it ask for nothing.
                page.ask("Page.setBypassCSP", enabled=True)
                yield page
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
