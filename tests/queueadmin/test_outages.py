"""Databases that end connections and servers that restart, for real."""

import subprocess
import threading
import time
from pathlib import Path

import dramatiq
import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection

from config import embedded
from queueadmin import ledger
from queueadmin.brokers import RedisBroker
from queueadmin.brokers.base import LedgerBroker
from queueadmin.models import Attempt, Job
from queueadmin.states import JobState
from tests import services
from tests.chaos.servers import RabbitMQ

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


def wait_until(condition, seconds=40.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def completed():
    return Job.objects.filter(state=JobState.COMPLETED).count()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL ends connections")
def test_connections_ended_in_mid_batch_cost_no_outcome_and_no_second_run(broker, start_worker):
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)

    broker.enqueue_many([work.message(number) for number in range(2000)])
    worker = start_worker()
    for _ in range(10):
        with connection.cursor() as cursor:
            _end_other_connections(cursor)
        done = completed()
        wait_until(lambda done=done: completed() > done or completed() == 2000)

    wait_until(lambda: completed() == 2000)
    assert sorted(ran) == list(range(2000))
    assert Attempt.objects.count() == 2000
    assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite locks the whole file")
def test_a_row_locked_by_somebody_holds_up_its_own_outcome_only(broker, start_worker, settings):
    gate = threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        gate.wait(20)

    victim = work.send(0)
    for number in range(1, 20):
        work.send(number)
    with connection.cursor() as cursor:
        name = connection.settings_dict["NAME"]
        cursor.execute(f'ALTER DATABASE "{name}" SET lock_timeout = 200')
    holder = connection.copy()
    try:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(
                "SELECT 1 FROM queueadmin_job WHERE id = %s FOR UPDATE", [victim.message_id]
            )
            start_worker()
            gate.set()
            wait_until(lambda: completed() == 19)
            wait_until(lambda: broker.recorder.is_healthy)
            cursor.execute("ROLLBACK")
        wait_until(lambda: completed() == 20)
    finally:
        holder.close()
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" RESET lock_timeout')
    assert Attempt.objects.count() == 20


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no failover")
def test_a_database_that_is_read_only_for_a_while_costs_no_outcome_and_no_fetch(
    broker, start_worker
):
    gate, ran = threading.Event(), []

    @dramatiq.actor(queue_name="q", broker=broker, store_results=True)
    def work(number):
        ran.append(number)
        gate.wait(20)
        return {"number": number}

    name = connection.settings_dict["NAME"]
    first = work.send(1)
    start_worker(threads=1)
    wait_until(lambda: ran == [1])
    with connection.cursor() as cursor:
        try:
            # Sessions that begin from here on are as those of a standby.
            cursor.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            _end_other_connections(cursor)
            gate.set()
            wait_until(lambda: not broker.recorder.is_healthy)
            second = work.send(2)
            time.sleep(3)  # longer than it waits before it looks for rows that are locked
            assert not broker.recorder.is_healthy
            assert ran == [1]
        finally:
            cursor.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            _end_other_connections(cursor)

    wait_until(lambda: completed() == 2)
    assert ran == [1, 2]
    assert Job.objects.get(pk=first.message_id).result == '{"number":1}'
    assert Attempt.objects.filter(job_id=second.message_id).count() == 1


def _end_other_connections(cursor):
    cursor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_a_slow_database_makes_commits_larger_and_costs_no_outcome_and_no_second_run(
    broker, start_worker, monkeypatch
):
    commit, sizes, ran = ledger.commit, [], []

    def slow(endings):
        sizes.append(len(endings))
        time.sleep(0.3)
        return commit(endings)

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)

    broker.enqueue_many([work.message(number) for number in range(300)])
    monkeypatch.setattr(ledger, "commit", slow)
    start_worker()

    wait_until(lambda: completed() == 300)
    assert sorted(ran) == list(range(300))
    assert sum(sizes) == Attempt.objects.count() == 300
    assert len(sizes) < 100
    assert broker.recorder.is_healthy


class Server:
    """A message server of the test's own, without persistence, that can be killed."""

    def __init__(self, folder: Path) -> None:
        embedded.prepare(django_settings.DATA_DIR)
        command = embedded.command(django_settings.DATA_DIR, durable=False)
        self._command = [*command, "--unixsocket", str(folder / "s"), "--dir", str(folder)]
        self.url = f"unix://{folder / 's'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with redis.Redis.from_url(self.url) as client:
            wait_until(lambda: _answers(client))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def make_broker(self) -> RedisBroker:
        return RedisBroker(url=self.url, namespace="test")


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


class RabbitMQNode(RabbitMQ):
    """The same for RabbitMQ, which keeps what it has confirmed."""

    def make_broker(self) -> LedgerBroker:
        from queueadmin.brokers import RabbitMQBroker

        return RabbitMQBroker(url=self.environment(self.port)["RABBITMQ_URL"], namespace="test")


@pytest.fixture
def server(provider, tmp_path_factory):
    kind = RabbitMQNode if provider == "rabbitmq" else Server
    try:
        server = kind(tmp_path_factory.mktemp("v"))
    except RuntimeError as error:
        # One that answers may run elsewhere, and is not ours to kill.
        (pytest.fail if services.IS_REQUIRED else pytest.skip)(str(error))
    server.start()
    yield server
    server.kill()


@pytest.mark.every_provider
def test_a_killed_server_that_comes_back_costs_no_job_and_no_second_run(server, transactional_db):
    broker = server.make_broker()
    previous = dramatiq.get_broker()
    dramatiq.set_broker(broker)
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)
        time.sleep(0.002)

    broker.enqueue_many([work.message(number) for number in range(500)])
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        wait_until(lambda: completed() > 20)
        server.kill()
        # Requests go on, and what was running is recorded.
        late = work.send(500)
        assert Job.objects.get(pk=late.message_id).state == JobState.WAITING
        server.start()
        wait_until(lambda: completed() == 501)
    finally:
        worker.stop(timeout=5_000)
        dramatiq.set_broker(previous)
        broker.close()
    assert sorted(ran) == list(range(501))
    assert Attempt.objects.count() == 501


def test_a_server_whose_disk_is_full_takes_up_its_work_when_there_is_room(
    tmp_path_factory, transactional_db
):
    folder = tmp_path_factory.mktemp("v")
    server = Server(folder)
    server.start()
    broker = server.make_broker()
    previous = dramatiq.get_broker()
    dramatiq.set_broker(broker)
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)

    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("save", "3600 1")
            # No file can take the place of a folder: the snapshot fails, as on a full disk.
            (folder / "dump.rdb").mkdir()
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            with pytest.raises(redis.RedisError, match="MISCONF"):
                client.set("more", "x")
            sent = {work.send(number).message_id for number in range(20)}
            assert (
                set(Job.objects.filter(state=JobState.WAITING).values_list("pk", flat=True)) == sent
            )

            (folder / "dump.rdb").rmdir()
            client.bgsave()
        wait_until(lambda: completed() == 20)
        assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])
    finally:
        worker.stop(timeout=5_000)
        dramatiq.set_broker(previous)
        broker.close()
        server.kill()
    assert sorted(ran) == list(range(20))
    assert Attempt.objects.count() == 20
