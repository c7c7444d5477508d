"""What every test may use: an embedded Valkey, and real services where they are there."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.conf import settings
from hypothesis import settings as hypothesis_settings

from config import embedded
from tests import providers, services
from tests.providers import MakeBroker, QueueServer
from tests.settings import RUN_DIR

# Processes inherit which signals are ignored, as all jobs in the background of a shell's script
# ignore Ctrl-C. Those that tests start and stop must not.
for _signum in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, signal.SIG_DFL)

# How long an example takes says more of the machine than of the code.
hypothesis_settings.register_profile("busy", deadline=None)
hypothesis_settings.load_profile("ci" if services.IS_REQUIRED else "busy")


@pytest.fixture(scope="session")
def broker_server() -> Iterator[str]:
    """Address of a running Valkey or Redis that belongs to this test process alone."""
    url: str = settings.REDIS_URL
    if not url.startswith("unix://"):
        yield url
        return
    embedded.prepare(settings.DATA_DIR)
    process = subprocess.Popen(
        embedded.command(settings.DATA_DIR, durable=False),
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    client = redis.Redis.from_url(url)
    try:
        _wait_for(client, process)
        yield url
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=10)


def _wait_for(client: "redis.Redis", process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.fixture(autouse=True)
def _offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave to no other test what a worker's process has found of its clock's error."""
    monkeypatch.setattr("queueadmin.clock._offset", timedelta())


@pytest.fixture
def redis_url(broker_server: str) -> str:
    """Address of an empty Valkey or Redis database."""
    with redis.Redis.from_url(broker_server) as client:
        client.flushdb()
    return broker_server


@pytest.fixture
def postgresql_url() -> str:
    """Address of a real PostgreSQL; mark the test `postgresql`."""
    return services.URLS["postgresql"]


@pytest.fixture
def redis_server_url() -> str:
    """Address of a real Redis whose database tests may empty; mark it `redis_server`."""
    return services.URLS["redis_server"]


@pytest.fixture
def rabbitmq_url() -> str:
    """Address of a real RabbitMQ; mark the test `rabbitmq`."""
    return services.URLS["rabbitmq"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked `every_provider` once on each."""
    if (
        metafunc.definition.get_closest_marker("every_provider")
        and "provider" in metafunc.fixturenames
    ):
        metafunc.parametrize("provider", providers.ALL, indirect=True)


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> str:
    """The queue provider; Redis unless the test is marked `every_provider`."""
    return getattr(request, "param", "redis")


@pytest.fixture
def queue_server(provider: str, request: pytest.FixtureRequest) -> Iterator[QueueServer]:
    """The message server below the test's brokers, for what strangers do to it."""
    server: QueueServer
    if provider == "rabbitmq":
        server = providers.RabbitMQServer(request.getfixturevalue("rabbitmq_url"))
    else:
        server = providers.RedisServer(request.getfixturevalue("redis_url"))
    yield server
    server.close()


@pytest.fixture
def make_broker(queue_server: QueueServer) -> MakeBroker:
    """Make brokers that share the server's queues, as several processes would."""
    return queue_server.make_broker


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose service is missing; under CI=true fail it instead."""
    for name in services.URLS:
        if item.get_closest_marker(name) and (problem := services.problem_with(name)):
            (pytest.fail if services.IS_REQUIRED else pytest.skip)(problem)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's files when the last process of the run ends."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(RUN_DIR, ignore_errors=True)
