"""What only Redis and Valkey can be asked."""

import dramatiq
import pytest
from django.db import transaction

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client(broker, broker_server):
    """The broker's client of a server that counts the commands of this test alone."""
    if not broker_server.startswith("unix://"):
        pytest.skip("the server is shared with other tests")
    return broker.transport._client


def test_a_few_jobs_cost_the_server_one_round_trip(broker, client):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    client.config_resetstat()
    with transaction.atomic():
        broker.enqueue_many([greet.message("anna"), greet.message("ben"), greet.message("carla")])

    # Whether the server knows a script is what would be asked first.
    asked = [name for name in client.info("commandstats") if name.startswith("cmdstat_script")]
    assert asked == []
    assert broker.transport.size("greetings") == 3


def test_what_a_worker_held_is_found_without_a_walk_through_the_servers_keys(broker, client):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    sent = greet.send("anna")
    mine, broker.transport.worker_id = broker.transport.worker_id, "gone*[x]:1:x"
    broker.transport.fetch("greetings", 10)
    broker.transport.worker_id = mine
    client.config_resetstat()

    held = broker.transport.held_by("gone*[x]:1:x")

    assert held == {"greetings": [f"{sent.message_id}:1"]}
    assert "cmdstat_scan" not in client.info("commandstats")
