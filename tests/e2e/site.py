"""The whole site, started as `make run` does it, and a browser to use it with."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
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


#: Run by `manage.py shell`: executes each line of its input, a program as a JSON string, and
#: answers with what it printed and the stack of its failure.
_SHELL = """
import io, json, sys, traceback
from contextlib import redirect_stdout
for line in sys.stdin:
    said, failure = io.StringIO(), None
    try:
        with redirect_stdout(said):
            exec(json.loads(line), {"__name__": "shell"})
    except BaseException:
        failure = traceback.format_exc()
    print(json.dumps([said.getvalue(), failure]), flush=True)
"""


@contextmanager
def running_site(directory: Path, **settings: str) -> "Iterator[Site]":
    """Run the site with its data in `directory`."""
    port = _free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PORT": str(port), "DATA_DIR": str(directory / "data"), **settings}
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
        site = Site(directory, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 20}")
        with site:
            yield site
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
    # Each process of the tests looks among ports of its own: two that find the same one free
    # would both take it, and one of them would use the site of the other.
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 18_600 + 300 * process
    for port in range(first, first + 300, 30):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError(f"No free port between {first} and {first + 300}.")


class Site:
    """A running site, and what its database and its providers' journal say."""

    def __init__(self, directory: Path, address: str, inbox: str) -> None:
        self.data, self.address, self.inbox = directory / "data", address, inbox
        self._shell: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._shell is not None:
            self._shell.communicate(timeout=60)

    def shell(self, code: str) -> str:
        """Run a program in the site's Django, and return what it printed.

        All are run by one process: to start one takes a second of a processor, and tests that
        wait for something ask for it all the time.
        """
        if self._shell is None:
            self._shell = self._open_shell()
        asked, answers = self._shell.stdin, self._shell.stdout
        assert asked is not None
        assert answers is not None
        asked.write(json.dumps(code) + "\n")
        asked.flush()
        said, failure = json.loads(answers.readline())
        assert failure is None, failure
        return str(said)

    def _open_shell(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "DATA_DIR": str(self.data), "DEBUG": "0", "HTTPS": "0"}
        environment |= {"DJANGO_SETTINGS_MODULE": "config.settings", "LOG_LEVEL": "ERROR"}
        environment.pop("REDIS_URL", None)
        return subprocess.Popen(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", _SHELL],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def facts(self) -> dict[str, Any]:
        code = (ROOT / "tests/e2e/business_facts.py").read_text()
        facts: dict[str, Any] = json.loads(self.shell(code).splitlines()[-1])
        return facts

    def journal(self) -> list[dict[str, Any]]:
        lines = (self.data / "sandbox.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def fail(self, fault: dict[str, Any]) -> None:
        httpx2.post(f"{self.inbox}/faults", json=fault).raise_for_status()

    def workers(self) -> list[Any]:
        processes = with_environment("DATA_DIR", str(self.data))
        return [one for one in processes if "queueadmin.worker_process" in one.cmdline()]


def log_in(client: httpx2.Client, name: str) -> None:
    client.get("/accounts/login/")
    form = {"username": name, "password": PASSWORD}
    answer = client.post("/accounts/login/", data={**form, **token(client)})
    assert answer.status_code == 302, answer.text


def token(client: httpx2.Client) -> dict[str, str]:
    return {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
