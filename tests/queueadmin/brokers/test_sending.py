"""Pushes whose answers nobody waits for."""

import logging
import os
import re
import time
import warnings

import dramatiq
import pytest

from queueadmin.brokers import RedisBroker, sending
from queueadmin.models import Job
from tests.chaos.servers import Redis

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(40)]


@pytest.fixture
def server(tmp_path):
    """A server on TCP that the test may refuse, cut and kill things at."""
    server = Redis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connect():
    """Return a function that makes a broker on a port."""
    brokers = []

    def make(port, **options):
        broker = RedisBroker(url=f"redis://127.0.0.1:{port}/0", **options)
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close()


def greeter(broker):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    return greet


def wait_for(broker, jobs):
    deadline = time.monotonic() + 10
    while broker.transport.size("greetings") != jobs:
        assert time.monotonic() < deadline, broker.transport.size("greetings")
        time.sleep(0.01)


def test_an_enqueue_does_not_wait_for_a_server_that_is_slow(server, connect, caplog):
    # Who waited would give up long before the answer comes.
    broker = connect(server.port, socket_timeout=0.2)
    greet = greeter(broker)
    greet.send("anna")
    wait_for(broker, 1)
    server.client.client_pause(1_000)

    with caplog.at_level(logging.WARNING):
        greet.send("ben")

    assert not caplog.records
    server.client.ping()  # answered when the pause is over
    wait_for(broker, 2)


def test_what_the_server_refuses_is_said_with_the_next_push_and_waits_in_the_ledger(
    server, connect, caplog, monkeypatch
):
    monkeypatch.setattr(sending, "_RECENT_SECONDS", 60.0)
    broker = connect(server.port)
    greet = greeter(broker)
    greet.send("anna")
    wait_for(broker, 1)
    server.refuse_writes(refuse=True)

    with caplog.at_level(logging.WARNING):
        greet.send("ben")
        assert not caplog.records
        greet.send("carla")
    assert "Broker unavailable (OutOfMemoryError: command not allowed" in caplog.text

    server.refuse_writes(refuse=False)
    broker._pushing_paused_until = 0.0
    greet.send("dora")
    wait_for(broker, 2)
    assert Job.objects.count() == 4


def test_a_push_after_the_server_was_restarted_goes_by_a_new_connection(
    server, connect, monkeypatch
):
    monkeypatch.setattr(sending, "_FRESH_SECONDS", 0.0)
    broker = connect(server.port)
    greet = greeter(broker)
    greet.send("anna")
    wait_for(broker, 1)

    server.stop()
    server.start()
    greet.send("ben")

    wait_for(broker, 2)


def test_a_server_that_is_away_is_said_at_once(server, connect, caplog):
    broker = connect(server.port)
    server.kill()

    with caplog.at_level(logging.WARNING):
        greeter(broker).send("anna")

    assert "Broker unavailable (ConnectionError" in caplog.text
    assert Job.objects.count() == 1


def test_a_child_process_uses_no_connection_of_its_parent(server, connect):
    broker = connect(server.port)
    greet = greeter(broker)
    greet.send("anna")
    wait_for(broker, 1)
    mine, childs = [_parcel(broker.new_job(greet.message(name))) for name in ("ben", "carla")]
    before = connections_at(broker)
    with warnings.catch_warnings():
        # From Python 3.12 on it warns of other threads, of which none matters here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        broker.transport.send([childs])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    broker.transport.send([mine])

    wait_for(broker, 3)
    assert connections_at(broker) == before + 1


def connections_at(broker):
    # By a client that has its connection: each look of `server.client` would be one more.
    return broker.transport._client.info("stats")["total_connections_received"]


def test_closing_waits_for_the_answers(server, connect, caplog):
    broker = connect(server.port, socket_timeout=0.2)
    greet = greeter(broker)
    greet.send("anna")
    wait_for(broker, 1)
    server.client.client_pause(5_000)
    greet.send("ben")

    with caplog.at_level(logging.WARNING):
        broker.close()

    # It did wait, for as long as a server may take.
    assert "The last push may not have arrived: Timeout" in caplog.text


def test_an_old_refusal_is_said_and_holds_nothing_up(server, connect, monkeypatch, caplog):
    monkeypatch.setattr(sending, "_RECENT_SECONDS", 0.0)
    broker = connect(server.port)
    greet = greeter(broker)
    server.refuse_writes(refuse=True)
    greet.send("anna")
    server.refuse_writes(refuse=False)

    with caplog.at_level(logging.WARNING):
        greet.send("ben")

    assert re.search(r"The server refused a push \d+ s ago: command not allowed", caplog.text)
    wait_for(broker, 1)


def test_what_takes_several_commands_waits_for_them(server, connect):
    broker = connect(server.port)
    greet = greeter(broker)
    server.client.config_resetstat()

    broker.enqueue_many(greet.message(str(number)) for number in range(1_200))

    assert server.client.info("commandstats")["cmdstat_eval"]["calls"] == 3
    assert broker.transport.size("greetings") == 1_200


def _parcel(job):
    from queueadmin.ledger import Parcel

    return Parcel(job.id, 1, job.queue, job.priority, job.message)
