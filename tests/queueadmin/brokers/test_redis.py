"""What only Redis and Valkey can be asked."""

import dramatiq
import pytest
from django.db import transaction

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_few_jobs_cost_the_server_one_round_trip(broker):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    client = broker.transport._client
    client.config_resetstat()
    with transaction.atomic():
        broker.enqueue_many([greet.message("anna"), greet.message("ben"), greet.message("carla")])

    # Whether the server knows a script is what would be asked first.
    asked = [name for name in client.info("commandstats") if name.startswith("cmdstat_script")]
    assert asked == []
    assert broker.transport.size("greetings") == 3
