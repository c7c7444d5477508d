"""What plain Dramatiq's RabbitMQ broker keeps on the server, for those who come from it or go back.

Queues, without a prefix:
    queue     durable; what waits
    queue.DQ  what is delayed, with an `eta`; a worker holds it until then
    queue.XQ  what failed for good, for seven days; the header `x-death` says since when
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import amqp

from .line import Line, options_of
from .plain import Stored

_BATCH = 500
_ANSWER_SECONDS = 10.0
# As Dramatiq declares its dead letter queues (`dramatiq.brokers.rabbitmq`).
_DEAD_TTL_MS = int(os.environ.get("dramatiq_dead_message_ttl", 7 * 86_400_000))  # noqa: SIM112


class PlainRabbitMQ:
    """The queues of plain Dramatiq on one RabbitMQ; does what `PlainQueues` does on a Redis.

    The server tells nobody which queues it has, so they are named. Neither does it tell what
    a worker holds: as long as workers consume a queue, `held` is how many of them do.

    Every method raises BrokerUnavailable when the server does not answer.

    Args:
        url: address of the server, see `line.options_of`.
        queues: which to look at.
    """

    #: What was interrupted before it was noted comes again.
    hands_back_at_once = 1

    def __init__(self, url: str, queues: Iterable[str]) -> None:
        self._queues = sorted(queues)
        #: Queues that messages may be handed back to.
        self._ready: set[str] = set()
        self._line = Line(options_of(url), timeout=_ANSWER_SECONDS, prepare=lambda channel: None)

    def names(self) -> list[str]:
        """Return the queues that are there."""
        return [queue for queue in self._queues if self._look(queue) is not None]

    def _look(self, name: str) -> tuple[int, int] | None:
        """Return how many messages and consumers a queue has, None where there is no such queue."""
        with self._line.use() as channel:
            try:
                found = channel.queue_declare(name, passive=True)
                return int(found.message_count), int(found.consumer_count)
            except amqp.NotFound:
                pass
        # The server has closed the channel with its answer.
        self._line.drop()
        return None

    def _count(self, name: str) -> int:
        return (self._look(name) or (0, 0))[0]

    def count(self, queue: str) -> tuple[int, int, int]:
        """Return how many messages wait, are delayed, and failed for good."""
        return self._count(queue), self._count(f"{queue}.DQ"), self._count(f"{queue}.XQ")

    def held(self, queue: str) -> int:
        """Return how many consumers plain Dramatiq's workers have, each with messages in hand."""
        return sum((self._look(name) or (0, 0))[1] for name in (queue, f"{queue}.DQ"))

    def collect(self, queue: str) -> None:
        """Do nothing: what a worker that is gone held is back in its queue."""

    def number_aside(self, queue: str) -> int:
        """Return how many messages `aside` and `dead` are going to yield of a queue."""
        return sum(self.count(queue))

    def aside(self, name: str) -> Iterator[list[Stored]]:
        """Yield what is in a queue or delay queue, some at a time.

        Each step is acknowledged when the next is asked for; until then nobody else gets it,
        and if the connection ends it comes again.
        """
        if self._look(name) is None:
            return
        with self._line.use() as channel:
            while got := self._get(channel, name):
                is_dead = name.endswith(".XQ")
                yield [
                    Stored(_id(message), _data(message), _dead_at(message) if is_dead else None)
                    for message in got
                ]
                channel.basic_ack(got[-1].delivery_tag, multiple=True)

    def dead(self, queue: str) -> Iterator[list[Stored]]:
        """Yield what failed for good, as `aside` does."""
        yield from self.aside(f"{queue}.XQ")

    def _get(self, channel: Any, name: str) -> list[Any]:
        found: list[Any] = []
        while len(found) < _BATCH and (message := channel.basic_get(name)) is not None:
            found.append(message)
        return found

    def hand_back(self, name: str, messages: Iterable[tuple[str, bytes]]) -> None:
        """Add messages, as (id, data), to a queue or delay queue.

        Queues that are not there are declared as Dramatiq does without priorities.
        """
        queue = name.removesuffix(".DQ")
        if queue not in self._ready:
            for each in (queue, f"{queue}.DQ", f"{queue}.XQ"):
                # Where it is there, as its owner has declared it.
                if self._look(each) is None:
                    self._declare(each, queue)
            self._ready.add(queue)
        with self._line.use() as channel:
            channel.confirm_select()
            for message_id, data in messages:
                channel.basic_publish_confirm(
                    amqp.Message(data, delivery_mode=2, message_id=message_id), "", name
                )

    def _declare(self, name: str, queue: str) -> None:
        dead = f"{queue}.XQ"
        arguments: dict[str, Any] = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        }
        if name == dead:
            arguments = {"x-message-ttl": _DEAD_TTL_MS}
        with self._line.use() as channel:
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)

    def close(self) -> None:
        """Close the connection."""
        self._line.close()


def _data(message: Any) -> bytes:
    body = message.body
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)


def _id(message: Any) -> bytes:
    # Plain Dramatiq gives its messages none. The same message has the same one each time.
    return hashlib.sha256(_data(message)).hexdigest()[:32].encode()


def _dead_at(message: Any) -> float:
    """Return when it failed for good, in milliseconds since 1970; now, where nobody has noted it."""
    deaths = (message.properties.get("application_headers") or {}).get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else {}
    at = newest.get("time") if isinstance(newest, dict) else None
    if not isinstance(at, datetime):
        at = datetime.now(UTC)
    # The client leaves out that the server's times are in UTC.
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000
