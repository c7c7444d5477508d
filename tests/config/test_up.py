"""The whole stack for real: these tests start every program of the site."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import amqp
import psycopg
import pytest

from config.machine import HOST, SMTP_OFFSET
from config.queues import QUEUES
from queueadmin.brokers.line import options_of
from tests.config.processes import wait_until, with_environment

ROOT = Path(__file__).resolve().parents[2]
#: A slow machine needs most of a minute to start everything.
PATIENCE = 120
pytestmark = pytest.mark.timeout(3 * PATIENCE)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


@pytest.fixture
def port() -> int:
    """A port that is free, and those of the sandbox above it."""
    # Each process of pytest-xdist looks in a range of its own.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 18_200 + worker * 2 * (SMTP_OFFSET + 1)
    return next(
        number
        for number in range(first, first + SMTP_OFFSET)
        if all(is_free(number + offset) for offset in (0, 20, 25))
    )


class Site:
    """A running `manage.py up` and what it says."""

    def __init__(self, process: "subprocess.Popen[str]", output: Path, directory: Path) -> None:
        self.process, self._output, self._directory = process, output, directory

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until_ready(self) -> None:
        wait_until(
            lambda: "The site is ready" in self.output or self.process.poll() is not None,
            seconds=PATIENCE,
        )
        assert "The site is ready" in self.output, self.output

    def processes(self) -> list[str]:
        found = with_environment("DATA_DIR", str(self._directory))
        return sorted(str(process.pid) for process in found)


@pytest.fixture
def up(tmp_path, port) -> Iterator[Callable[..., Site]]:
    """Start `manage.py up` on a directory and port of its own."""
    sites = []

    def start(**environment: str) -> Site:
        output = tmp_path / f"up-{len(sites)}.log"
        given = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        given |= {"PORT": str(port), "DATA_DIR": str(tmp_path / "data"), **environment}
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up"], cwd=ROOT, env=given, stdout=file, stderr=file
            )
        sites.append(Site(process, output, Path(given["DATA_DIR"])))
        return sites[-1]

    yield start
    for site in sites:
        if site.process.poll() is None:
            site.process.terminate()
            site.process.wait(timeout=PATIENCE)


def test_the_site_starts_answers_and_leaves_nothing_behind_at_ctrl_c_twice(up, port, tmp_path):
    for _ in range(2):
        site = up()
        site.wait_until_ready()
        with urlopen(f"http://{HOST}:{port}/accounts/login/", timeout=10) as answer:
            assert answer.status == 200

        site.process.send_signal(signal.SIGINT)

        assert site.process.wait(timeout=PATIENCE) == 0
        assert site.processes() == []
    assert (tmp_path / "data" / "db.sqlite3").exists()


def test_no_process_is_left_ten_seconds_after_the_site_was_killed(up):
    site = up()
    site.wait_until_ready()

    site.process.kill()
    site.process.wait()

    wait_until(lambda: site.processes() == [], seconds=10)


def test_a_second_start_on_the_same_data_is_refused(up):
    first = up()
    wait_until(lambda: "migrate" in first.output, seconds=PATIENCE)

    second = up()

    assert second.process.wait(timeout=PATIENCE) == 1
    assert f"runs already from {first._directory} (process {first.process.pid})" in second.output


def test_a_taken_port_ends_the_start_with_its_number(up, port):
    with socket.create_server((HOST, port)):
        site = up()

        assert site.process.wait(timeout=PATIENCE) == 1
    assert f"Port {port}, for the site, is taken by another program" in site.output
    assert site.processes() == []


def test_a_redis_of_ones_own_that_does_not_answer_is_said(up):
    site = up(REDIS_URL=f"redis://{HOST}:1/0")

    assert site.process.wait(timeout=PATIENCE) == 1
    assert "No Redis answers at the address in REDIS_URL" in site.output


def test_a_rabbitmq_that_does_not_answer_is_said(up):
    site = up(QUEUE_PROVIDER="rabbitmq", RABBITMQ_URL=f"amqp://{HOST}:1/")

    assert site.process.wait(timeout=PATIENCE) == 1
    assert "No RabbitMQ lets us in at the address in RABBITMQ_URL" in site.output
    assert not list(site._directory.glob("valkey*"))


@pytest.mark.rabbitmq
def test_the_site_runs_on_rabbitmq_without_any_redis(up, rabbitmq_url):
    namespace = f"up-{time.time_ns()}"
    site = up(QUEUE_PROVIDER="rabbitmq", RABBITMQ_URL=rabbitmq_url, RABBITMQ_NAMESPACE=namespace)
    try:
        site.wait_until_ready()
        assert not list(site._directory.glob("valkey*"))
        site.process.send_signal(signal.SIGTERM)
        assert site.process.wait(timeout=PATIENCE) == 0
    finally:
        with amqp.Connection(**options_of(rabbitmq_url)) as connection:
            for queue in ["default", *QUEUES]:
                connection.channel().queue_delete(f"{namespace}.{queue}")
            connection.channel().exchange_delete(f"{namespace}.pushed")


def test_a_database_that_does_not_answer_is_said_with_the_lines_that_tell_why(up):
    site = up(DATABASE_URL=f"postgres://nobody@{HOST}:1/none")

    assert site.process.wait(timeout=PATIENCE) == 1
    assert "migrate ended with exit code 1" in site.output
    assert "Connection refused" in site.output
    assert site.processes() == []


@pytest.mark.postgresql
@pytest.mark.redis_server
def test_the_site_runs_on_postgresql_and_redis(up, port, postgresql_url, redis_server_url):
    name = f"queueadmin_up_{os.getpid()}"
    admin = postgresql_url.replace("postgres://", "postgresql://", 1)
    with closing(psycopg.connect(admin, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            database = urlunsplit(urlsplit(postgresql_url)._replace(path=f"/{name}"))
            site = up(
                DATABASE_URL=database,
                REDIS_URL=redis_server_url,
                REDIS_NAMESPACE=f"up-{time.time_ns()}",
            )
            site.wait_until_ready()
            assert not list(site._directory.glob("valkey*"))
            site.process.send_signal(signal.SIGTERM)
            assert site.process.wait(timeout=PATIENCE) == 0
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
