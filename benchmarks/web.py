"""How long a shop waits for its order while every provider takes 5 seconds.

The site's web server, workers and providers run as `make run` starts them. Clients place
orders one after the other, half of them by the view as it is and half by the same view without
its enqueues, in random order, so that both meet the same load at the same moments. The jobs of
the former keep the workers busy all the time. One run gives two 95th percentiles and their
ratio.
"""

import http.client
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.cookies import SimpleCookie
from statistics import quantiles
from urllib.parse import urlencode

from .fleet import ROOT, wait_until
from .results import Row, row
from .rivals import started
from .stand import Stand
from .without_enqueues import HEADER

OURS, RIVAL = "queueadmin", "same-view-without-enqueues"
CLIENTS = 4
#: Seconds a provider takes for each message.
PROVIDER_SECONDS = 5.0
#: Seconds between a client's orders, from and to.
PAUSE = (0.05, 0.15)
_PASSWORD = "demo-queueadmin"  # noqa: S105  # a demo's
_PERCENT = 95
_PAIRED = "x the view without enqueues, run by run"


class Client:
    """A shop with a browser.

    Args:
        port: of the web server on this machine.
        seed: makes its choices repeatable.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._cookies: SimpleCookie = SimpleCookie()
        self.chance = random.Random(seed)  # noqa: S311  # a benchmark's chance
        self._ask("GET", "/accounts/login/")
        status = self._ask("POST", "/accounts/login/", {"username": "shop", "password": _PASSWORD})
        if status != http.client.FOUND:
            raise RuntimeError(f"The shop could not log in: {status}.")

    def order(self, products: list[int], *, without_enqueues: bool) -> float:
        """Place an order of three products and return the milliseconds it took."""
        chosen = self.chance.sample(products, 3)
        form = {f"quantity_{product}": "1" for product in chosen}
        form |= {"token": str(uuid.uuid4()), "payment": "cash"}
        began = time.perf_counter()
        status = self._ask("POST", "/orders/new/", form, {HEADER: "1"} if without_enqueues else {})
        taken = time.perf_counter() - began
        if status != http.client.FOUND:
            raise RuntimeError(f"An order was answered by {status}.")
        return taken * 1000

    def _ask(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> int:
        sent = {
            "Cookie": "; ".join(f"{name}={each.value}" for name, each in self._cookies.items()),
            "Content-Type": "application/x-www-form-urlencoded",
            **(headers or {}),
        }
        body = None
        if form is not None:
            body = urlencode({**form, "csrfmiddlewaretoken": self._cookies["csrftoken"].value})
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie") or ():
            self._cookies.load(line)
        return answer.status


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Measure both views in the same runs."""
    seconds, runs = (10.0, 3) if quick else (20.0, 12)
    ours: list[float] = []
    rivals: list[float] = []
    with site(stand) as port:
        clients = [Client(port, seed) for seed in range(CLIENTS)]
        products = _products()
        _run(clients, products, 5.0)  # connections, caches, and a first backlog
        for _ in range(runs):
            times = _run(clients, products, seconds)
            ours.append(percentile(times[False]))
            rivals.append(percentile(times[True]))
    unit = f"ms, {_PERCENT}th percentile"
    shares = [mine / theirs for mine, theirs in zip(ours, rivals, strict=True)]
    return [
        row(OURS, unit, ours),
        row(RIVAL, unit, rivals),
        row(OURS, _PAIRED, shares),
    ]


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return the median of the ratios of single runs: what slows a run slows both views."""
    return {RIVAL: round(next(found.median for found in rows if found.unit == _PAIRED), 3)}


def percentile(times: list[float]) -> float:
    """Return the 95th percentile."""
    return quantiles(times, n=100, method="inclusive")[_PERCENT - 1]


def _run(clients: list[Client], products: list[int], seconds: float) -> dict[bool, list[float]]:
    """Let all clients order for a while; return the times without enqueues and with them."""
    end = time.monotonic() + seconds
    times: dict[bool, list[float]] = {False: [], True: []}

    def shop(client: Client) -> None:
        while time.monotonic() < end:
            # Both in random order, so that neither follows the other more often.
            for without in client.chance.sample((False, True), 2):
                times[without].append(client.order(products, without_enqueues=without))
                time.sleep(client.chance.uniform(*PAUSE))  # the shop thinks

    with ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(shop, client) for client in clients]:
            done.result()
    return times


@contextmanager
def site(stand: Stand) -> Iterator[int]:
    """Run web server, workers and slow providers as `make run` does; yield the port."""
    from notifications.sandbox import Sandbox

    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(slow_seconds=PROVIDER_SECONDS))
        for channel in ("whatsapp", "email", "sms"):
            sandbox.fail(channel, fault="slow")
        port = _free_port()
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "benchmarks.web_settings",
            "BENCHMARK_DATABASE": stand.database,
            "BENCHMARK_JOB_LOG": "INFO",
            "SANDBOX_URL": sandbox.url,
            "SITE_URL": f"http://127.0.0.1:{port}",
            "PYTHONPATH": str(ROOT),
        }
        for command in (("collectstatic", "--no-input"), ("seed",)):
            _manage(*command, environment=environment)
        _fill_stock()
        stack.enter_context(started(_workers(), environment))
        stack.enter_context(started(_web(port), environment))
        wait_until(lambda: _answers(port), 30)
        yield port


def _workers() -> list[str]:
    return [sys.executable, "manage.py", "rundramatiq", "--processes", "2", "--threads", "4"]


def _web(port: int) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "config.wsgi", "--no-control-socket"]
    command += ["--bind", f"127.0.0.1:{port}", "--access-logfile", "-"]
    return [*command, "--worker-class", "gthread", "--workers", "2", "--threads", "4"]


def _manage(*arguments: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(  # noqa: S603  # our own command
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
    )


def _fill_stock() -> None:
    from orders.models import Offer

    Offer.objects.update(stock=1_000_000)


def _products() -> list[int]:
    from orders.models import Product

    return list(Product.objects.on_sale().values_list("pk", flat=True))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
