"""Queue providers as tests see them: brokers on them, and what strangers do to their servers."""

from collections.abc import Callable
from typing import Any, Protocol
from uuid import uuid4

import amqp
import pytest
import redis

from config.queues import QUEUES
from queueadmin.brokers import RedisBroker
from queueadmin.brokers.base import LedgerBroker
from queueadmin.brokers.line import options_of
from queueadmin.brokers.rabbitmq import RabbitMQBroker, RabbitMQTransport

#: Values for the fixture `provider`.
ALL = ["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]

#: What worker processes of the tests declare besides: the site's queues and the benchmarks'.
_OF_PROCESSES = {
    *QUEUES,
    *("default", "workload", "open", "timed", "rated", "rated-briefly", "narrow", "noop"),
}

MakeBroker = Callable[[], LedgerBroker]


class QueueServer(Protocol):
    """A message server with queues of the test's own."""

    #: Prefix of all that the brokers have there.
    namespace: str
    #: Variables that tell a process of the site to use this server.
    environment: dict[str, str]

    def make_broker(self) -> LedgerBroker:
        """Return another broker on these queues."""

    def put(self, queue: str, parcel_id: Any, data: bytes) -> None:
        """Add a message as somebody else would."""

    def replace(self, queue: str, parcel_id: str, data: bytes) -> None:
        """Change the only message of a queue."""

    def announce(self, data: bytes) -> None:
        """Tell all workers something that is no queue's name."""

    def granted(self, queue: str) -> dict[Any, float]:
        """Return when the starts of the last window of a rate were allowed."""

    def empty(self) -> None:
        """Make the server forget all messages."""

    def close(self) -> None:
        """Close all brokers and leave nothing behind."""


class RedisServer:
    """A Redis or Valkey whose database the tests may empty."""

    namespace = "test"

    def __init__(self, url: str) -> None:
        self._url = url
        self.environment = {"QUEUE_PROVIDER": "redis", "REDIS_URL": url}
        self._client: Any = redis.Redis.from_url(url)
        self._brokers: list[RedisBroker] = []

    def make_broker(self) -> RedisBroker:
        # A push that a busy machine cannot make in time would be left to a dispatcher, which
        # most tests do not have.
        broker = RedisBroker(
            url=self._url,
            namespace=self.namespace,
            socket_connect_timeout=10.0,
            socket_timeout=10.0,
        )
        # No other process has anything to say when a test empties the server.
        broker.transport.settling_ms = 0
        self._brokers.append(broker)
        return broker

    def put(self, queue: str, parcel_id: Any, data: bytes) -> None:
        self._client.hset(f"test:{queue}.msgs", parcel_id, data)
        self._client.rpush(f"test:{queue}.1", parcel_id)

    def replace(self, queue: str, parcel_id: str, data: bytes) -> None:
        self._client.hset(f"test:{queue}.msgs", parcel_id, data)

    def announce(self, data: bytes) -> None:
        self._client.publish("test:__pushed__", data)

    def granted(self, queue: str) -> dict[Any, float]:
        found = self._client.zrange(f"{self.namespace}:{queue}.grants", 0, -1, withscores=True)
        return {member: score / 1e6 for member, score in found}

    def empty(self) -> None:
        self._client.flushdb()

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()
        self._client.close()


class RabbitMQServer:
    """Queues with a prefix of their own on a RabbitMQ."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.environment = {"QUEUE_PROVIDER": "rabbitmq", "RABBITMQ_URL": url}
        self.namespace = f"test-{uuid4().hex[:12]}"
        self._connection = amqp.Connection(**options_of(url))
        self._connection.connect()
        self._channel = self._connection.channel()
        self._brokers: list[RabbitMQBroker] = []
        # Tests put others in their places.
        self._transports: list[RabbitMQTransport] = []

    def make_broker(self) -> RabbitMQBroker:
        broker = RabbitMQBroker(url=self._url, namespace=self.namespace)
        # As for Redis; a server that is busy with others' queues takes its time for a new one.
        broker.transport._publisher._line._timeout = 10.0
        self._brokers.append(broker)
        self._transports.append(broker.transport)
        return broker

    def put(self, queue: str, parcel_id: Any, data: bytes, **properties: Any) -> None:
        headers = {"queueadmin-id": parcel_id}
        self.send(queue, amqp.Message(data, application_headers=headers, **properties))

    def send(self, queue: str, message: amqp.Message) -> None:
        """Publish any message at all."""
        self._declare(queue)
        self._channel.basic_publish(message, "", f"{self.namespace}.{queue}")
        # Answered after the publish.
        self._declare(queue)

    def replace(self, queue: str, parcel_id: str, data: bytes) -> None:
        self._channel.queue_purge(f"{self.namespace}.{queue}")
        self.put(queue, parcel_id, data)

    def announce(self, data: bytes) -> None:
        self._channel.basic_publish(amqp.Message(data), f"{self.namespace}.pushed", "")

    def granted(self, queue: str) -> dict[Any, float]:
        from queueadmin.models import Grant  # this module is imported before models can be

        return {
            (grant.pk, number): grant.at_us / 1e6
            for grant in Grant.objects.filter(queue=queue)
            for number in range(grant.starts)
        }

    def empty(self) -> None:
        for queue in self._queues() - _OF_PROCESSES:
            self._channel.queue_purge(f"{self.namespace}.{queue}")

    def delete(self, queue: str) -> None:
        """Remove a queue with all that is in it."""
        self._channel.queue_delete(f"{self.namespace}.{queue}")

    def close(self) -> None:
        queues = self._queues()
        for broker in self._brokers:
            broker.close()
        for transport in self._transports:
            transport.close()
        # That of a queue which is not there succeeds.
        for queue in queues:
            self.delete(queue)
        self._channel.exchange_delete(f"{self.namespace}.pushed")
        self._connection.close()

    def _declare(self, queue: str) -> None:
        self._channel.queue_declare(
            f"{self.namespace}.{queue}",
            durable=True,
            auto_delete=False,
            arguments={"x-max-priority": 2},
        )

    def _queues(self) -> set[str]:
        made = [each._declared | each._publisher._declared for each in self._transports]
        return _OF_PROCESSES.union(*made, *(broker.queues for broker in self._brokers))
