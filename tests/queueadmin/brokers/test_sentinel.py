"""Servers of which Sentinels say which one is the master, and a failover under load."""

import subprocess
import time
from pathlib import Path

import dramatiq
import pytest
import redis

from config import embedded
from queueadmin.brokers import RedisBroker
from queueadmin.brokers.redis_client import client_of
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.exceptions import ConfigurationError
from queueadmin.models import Attempt, Job
from queueadmin.states import JobState
from tests.chaos.servers import free_port


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def answers(port):
    try:
        with redis.Redis(port=port) as client:
            return client.ping()
    except redis.RedisError:
        return False


class Servers:
    """A master, its replica and a Sentinel."""

    def __init__(self, folder: Path) -> None:
        self.master, self.replica, self.sentinel = (free_port() for _ in range(3))
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel}/orders/0"
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._start(self.master)
        self._start(self.replica, "--replicaof", "127.0.0.1", str(self.master))
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor orders 127.0.0.1 {self.master} 1\n"
            "sentinel down-after-milliseconds orders 500\n"
            "sentinel failover-timeout orders 3000\n"
        )
        self._run(self.sentinel, str(config), "--sentinel")
        with redis.Redis(port=self.sentinel, decode_responses=True) as client:
            wait_until(lambda: client.sentinel_slaves("orders"))

    def _start(self, port: int, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._run(port, *arguments, "--save", "", "--repl-diskless-sync-delay", "0", *options)

    def _run(self, port: int, *arguments: str) -> None:
        self._processes[port] = subprocess.Popen(
            [str(embedded.find_executable()), *arguments], stdout=subprocess.DEVNULL
        )
        wait_until(lambda: answers(port))

    def kill(self, port: int) -> None:
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def close(self) -> None:
        for port in list(self._processes):
            self.kill(port)


@pytest.fixture
def servers(tmp_path_factory):
    servers = Servers(tmp_path_factory.mktemp("s"))
    yield servers
    servers.close()


@pytest.mark.timeout(120)
@pytest.mark.django_db(transaction=True)
def test_a_job_is_pushed_to_the_master_and_after_a_failover_to_the_next_one(servers, monkeypatch):
    monkeypatch.setattr("queueadmin.brokers.sending._FRESH_SECONDS", 0.0)
    broker = RedisBroker(url=servers.url, namespace="test")

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number): ...

    # No worker lives here, and so no dispatcher that would look for what did not arrive.
    work.send(1)
    wait_until(lambda: broker.transport.size("q") == 1)
    servers.kill(servers.master)
    wait_until(lambda: is_answered(broker), 60)
    before = broker.transport.size("q")

    broker._pushing_paused_until = 0.0
    work.send(2)

    wait_until(lambda: broker.transport.size("q") == before + 1)
    broker.close()


def is_answered(broker):
    try:
        broker.transport.heartbeat()
    except BrokerUnavailable:
        return False
    return True


@pytest.mark.timeout(120)
@pytest.mark.django_db(transaction=True)
def test_a_failover_under_load_costs_no_job(servers):
    broker = RedisBroker(url=servers.url, namespace="test")
    previous = dramatiq.get_broker()
    dramatiq.set_broker(broker)
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)
        time.sleep(0.005)

    broker.enqueue_many([work.message(number) for number in range(600)])
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        wait_until(lambda: len(ran) > 50)
        servers.kill(servers.master)
        work.send(600)
        wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 601, 60)
        assert broker.heart.era >= 1
    finally:
        worker.stop(timeout=5_000)
        dramatiq.set_broker(previous)
        broker.close()
    assert set(ran) == set(range(601))
    # No outcome counts twice, whatever the replica had not heard of yet.
    assert Attempt.objects.count() == 601


def test_several_sentinels_a_login_and_tls_are_understood():
    client = client_of("rediss+sentinel://anna:p%40ss@one:26380,two,[::1]:26381/orders/3")
    pool = client.connection_pool

    assert [
        tuple(each.connection_pool.connection_kwargs[key] for key in ("host", "port"))
        for each in pool.sentinel_manager.sentinels
    ] == [("one", 26380), ("two", 26379), ("::1", 26381)]
    assert pool.service_name == "orders"
    expected = {"username": "anna", "password": "p@ss", "db": 3}
    assert {key: pool.connection_kwargs[key] for key in expected} == expected
    assert "SSL" in pool.connection_class.__name__
    client.close()


@pytest.mark.parametrize(
    "url", ["redis+sentinel://one:26379", "redis+sentinel:///orders", "redis+sentinel://x/orders/z"]
)
def test_an_address_without_host_or_service_is_refused(url):
    with pytest.raises(ConfigurationError, match=r"redis\+sentinel://host:26379"):
        client_of(url)
