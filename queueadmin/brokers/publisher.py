"""Publishes to RabbitMQ, with confirms."""

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import amqp

from ..states import Priority
from .line import Line
from .transport import BrokerUnavailable

if TYPE_CHECKING:
    from ..ledger import Parcel

#: The header that carries a message's id.
ID = "queueadmin-id"
# So many publishes are on their way at a time: more gain nothing, and a server that waits
# for its acknowledgements to be read must not wait for ever.
_WINDOW = 500
# A web request waits at most so long for a server that is away, each step of it.
_PUSH_SECONDS = 0.5
ANSWER_SECONDS = 2.0


class Publisher:
    """Publishes with confirms, for any thread.

    Args:
        options: of the connection.
        namespace: prefix of every name.
    """

    def __init__(self, options: dict[str, Any], namespace: str) -> None:
        self._exchange = f"{namespace}.pushed"
        self._namespace = namespace
        self._line = Line(options, timeout=_PUSH_SECONDS, prepare=self._prepare)
        self._lock = threading.Lock()
        self._declared: set[str] = set()
        self._last = 0
        self._unconfirmed: set[int] = set()
        self._refused = ""

    def _prepare(self, channel: Any) -> None:
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        channel.exchange_declare(self._exchange, "fanout", durable=True, auto_delete=False)
        self._declared.clear()
        self._unconfirmed.clear()
        self._last, self._refused = 0, ""

    def publish(self, parcels: "Sequence[Parcel]", wake: Iterable[str]) -> None:
        """Publish, wait until the server has everything, and wake those who wait.

        Raises:
            BrokerUnavailable: some of it may not have arrived.
        """
        wake = list(wake)
        with self._lock:
            was_open = self._line.is_open
            try:
                self._publish(parcels, wake)
            except BrokerUnavailable as error:
                # The server may have ended an idle connection, or somebody deleted a queue.
                # To push twice is no harm: the second copy is dropped.
                if not was_open or isinstance(error.__cause__, TimeoutError):
                    raise
                self._publish(parcels, wake)

    def _publish(self, parcels: "Sequence[Parcel]", wake: Sequence[str]) -> None:
        with self._line.use() as channel:
            for queue in {parcel.queue for parcel in parcels} - self._declared:
                declare(channel, self._namespace, queue)
                self._declared.add(queue)
            for parcel in parcels:
                message = amqp.Message(
                    parcel.data,
                    delivery_mode=2,
                    priority=Priority.LOW - parcel.priority,
                    application_headers={ID: parcel.id},
                )
                self._send(channel, message, "", f"{self._namespace}.{parcel.queue}")
            for queue in wake:
                # To nobody in particular, and lost where nobody listens.
                message = amqp.Message(queue, delivery_mode=1)
                self._send(channel, message, self._exchange, "", mandatory=False)
            self._confirm(channel, 0)

    def _send(
        self, channel: Any, message: Any, exchange: str, key: str, *, mandatory: bool = True
    ) -> None:
        self._last += 1
        self._unconfirmed.add(self._last)
        channel.basic_publish(message, exchange, key, mandatory=mandatory)
        if len(self._unconfirmed) >= _WINDOW:
            self._confirm(channel, _WINDOW // 2)

    def _confirm(self, channel: Any, left: int) -> None:
        while len(self._unconfirmed) > left:
            channel.connection.drain_events(timeout=ANSWER_SECONDS)
            if self._line.blocked:
                raise BrokerUnavailable(f"The server takes no messages: {self._line.blocked}")
        if self._refused:
            raise BrokerUnavailable(self._refused)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {other for other in self._unconfirmed if other > tag}
        else:
            self._unconfirmed.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused = "The server refused a message."
        self._on_ack(tag, multiple)

    def _on_return(self, error: object, exchange: str, key: str, message: object) -> None:
        self._refused = f"The queue {key} is not there."

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._line.close()


def declare(channel: Any, namespace: str, queue: str) -> int:
    """Make the server's queue where there is none; return how many messages wait in it."""
    arguments = {"x-max-priority": Priority.LOW}
    found = channel.queue_declare(
        f"{namespace}.{queue}", durable=True, auto_delete=False, arguments=arguments
    )
    return int(found.message_count)
