"""The whole site, started as `make run` does it, and a browser to use it with."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.config.processes import wait_until, with_environment

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "demo-queueadmin"
#: Chromium as root in a container, and quiet about hosts it cannot reach.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def running_site(directory: Path) -> Iterator[tuple[str, str]]:
    """Run the site with its data in `directory`; give its address and the inbox's."""
    port = _free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PORT": str(port), "DATA_DIR": str(directory / "data")}
    output = directory / "up.log"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up"], cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    try:
        wait_until(
            lambda: "The site is ready" in output.read_text() or process.poll() is not None,
            seconds=120,
        )
        assert process.poll() is None, output.read_text()
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 20}"
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert not with_environment("DATA_DIR", environment["DATA_DIR"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give Debian's Chromium, headless."""
    path = shutil.which("chromium")
    assert path, "Chromium is missing; `make e2e` installs it."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


def _free_port() -> int:
    for port in range(18_600, 18_900, 30):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("No free port between 18600 and 18900.")
