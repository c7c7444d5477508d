"""Takes messages from the broker to the worker threads, and never loses its way."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import DecodeError
from dramatiq.message import Message

from . import events, messages, payloads
from .exceptions import InvalidMessage, Undecryptable
from .states import PARKED, Priority
from .work_queue import CLOSED_SECONDS, Item

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker
    from .controls import Control

#: Work to hold in memory per queue: enough for the threads not to wait for the network,
#: little enough that another process with idle threads finds some.
PREFETCH_MS = 100
_MOST = 256
# The threads begin with the first of many messages while the others are still being read.
_AT_ONCE = 32
# From this length on a message waits for the next fetch longer than for the round trip: room
# is filled early, so that one of high priority overtakes all but a few per thread.
_LONG_MS = 20

# How long a consumer without messages sleeps when nothing wakes it. Wake-ups can be lost
# with the connection that carries them, so this bounds the harm.
_IDLE_SECONDS = 1.0


# How often a consumer looks for messages that are in this worker's hands by the server's
# account only: the reply that carried them was cut.
_STRAYS_SECONDS = 10.0
# A limited queue says so at most this often.
_TELL_SECONDS = 60.0


class Hand:
    """What this process holds of one queue.

    It outlives the consumers, which Dramatiq replaces after every error of the connection.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: Ids of messages fetched and not settled yet.
        self.held: set[str] = set()
        #: Those of them that have not run yet.
        self.unrun: set[str] = set()
        #: Messages of a limited queue that have run and still occupy their slots.
        self.freed: deque[str] = deque()

    def take(self, fetched: "Iterable[tuple[str, bytes]]") -> None:
        """Note what the server has handed over."""
        with self.lock:
            for parcel_id, _ in fetched:
                self.held.add(parcel_id)
                self.unrun.add(parcel_id)

    @property
    def outstanding(self) -> int:
        """How many messages have not run yet."""
        return len(self.unrun)

    def drop(self, parcel_ids: "Iterable[str]") -> None:
        """Note what has left this process: settled, or given back."""
        with self.lock:
            self.held.difference_update(parcel_ids)


class Delivery(MessageProxy):
    """A fetched message with what the engine has to know about it."""

    def __init__(
        self, message: Message[Any], *, parcel_id: str, dispatch: int, era: int = 0
    ) -> None:
        super().__init__(message)
        self.carry(message)
        self.parcel_id = parcel_id
        self.dispatch = dispatch
        #: Since when no worker knew what to do with it, in milliseconds since 1970.
        self.parked_ms: float | None = None
        #: The heart's era in which it was fetched.
        self.era = era
        #: True when nothing is to be recorded of it: the ledger knows better.
        self.is_void = False
        #: How the run ended; None means interrupted.
        self.ending: Any = None
        #: Logs how it ended; the recorder calls it.
        self.tell: Callable[[], None] | None = None

    def carry(self, message: Message[Any]) -> None:
        """Stand for this message; its fields are asked for too often to be looked up in it."""
        self._message = message
        self.queue_name, self.actor_name = message.queue_name, message.actor_name
        self.args, self.kwargs, self.options = message.args, message.kwargs, message.options
        self.message_id, self.message_timestamp = message.message_id, message.message_timestamp

    def __str__(self) -> str:
        """Say which message it is; Dramatiq's own log lines would print the arguments."""
        return f"{self.actor_name} #{self.message_id}"

    @property
    def priority(self) -> int:
        """Order within the queue, as it was pushed."""
        return Priority.BY_NAME.get(self.options.get("priority") or "normal", Priority.NORMAL)


def split(parcel_id: str) -> tuple[str, int] | None:
    """Return (job id, dispatch) of a broker's message id, None for one that is not ours."""
    job, separator, number = parcel_id.removesuffix("?").rpartition(":")
    # int() takes more than digits, and digits of any length.
    if not separator or not number.isdecimal() or len(number) > 9:
        return None
    if not 0 < len(job) <= 64 or not job.isprintable():
        return None
    return job, int(number)


class LedgerConsumer(Consumer):
    """Hands the messages of one queue over to the worker's threads.

    It runs in Dramatiq's consumer thread, which would take single messages from it to do the
    same; what it is given instead is always None: "nothing for now". `ack`, `nack` and
    `run_started` are called from worker threads. The counters are the hand's, and the one event
    wakes the consumer for both reasons it may have to fetch: a push, or room in memory.
    """

    def __init__(
        self, broker: "LedgerBroker", queue_name: str, *, threads: int, timeout_ms: int
    ) -> None:
        self.logger = logger
        self.broker = broker
        self.queue_name = queue_name
        self.wake = threading.Event()
        self._timeout = min(timeout_ms / 1000, _IDLE_SECONDS)
        # Dramatiq hands over twice its number of threads as the prefetch.
        self._threads = max(threads // 2, 1)
        self._hand = broker.hand(queue_name)
        #: The recorder wakes it, not the room that a job makes.
        self._is_held_back = False
        self._strays_at = 0.0
        self._tell_at = 0.0
        broker.transport_consumers.add(self)

    # --- Fetch ----------------------------------------------------------------------
    @property
    def prefetch(self) -> int:
        """How many messages to hold: about PREFETCH_MS of work for all threads."""
        wanted = self._threads * PREFETCH_MS / max(self.broker.mean_ms(self.queue_name), 0.1)
        return max(self._threads, min(_MOST, round(wanted)))

    def _is_worth_a_fetch(self, room: int, prefetch: int) -> bool:
        """Return whether to refill now; one round trip is to bring many short jobs."""
        enough = prefetch / 2
        if self.broker.mean_ms(self.queue_name) >= _LONG_MS:
            enough = min(enough, self._threads / 2)
        return room > 0 and room >= enough

    def __next__(self) -> MessageProxy | None:
        """Fetch, or wait until there may be something to fetch.

        Raises:
            BrokerUnavailable: Dramatiq's consumer thread starts over with a new consumer.
        """
        self.wake.clear()
        timeout = self._timeout
        # After the event was cleared: who closes the queue sets the event then.
        if self.broker.work_queue.is_closed:
            self._give_back_unstarted()
            timeout = CLOSED_SECONDS
        self._take_back_strays()
        control = self.broker.controls.of(self.queue_name)
        # Read before: what is fetched while an era begins belongs to the one before.
        era = self.broker.era
        if control.is_limited:
            fetched, wait_ms = self._fetch_limited(control)
            if wait_ms and not fetched:
                self._tell_limited(wait_ms)
        else:
            fetched, wait_ms = self._fetch(control), 0
        if fetched:
            self._hand.take(fetched)
            self._hand_over(fetched, era)
            return None
        began = time.monotonic()
        self.wake.wait(min(timeout, wait_ms / 1000) if wait_ms else timeout)
        if wait_ms:
            self.broker.meters.limited(self.queue_name, time.monotonic() - began)
        return None

    def _hand_over(self, fetched: list[tuple[str, bytes]], era: int) -> None:
        actors = self.broker.actors
        for start in range(0, len(fetched), _AT_ONCE):
            items = []
            for parcel_id, data in fetched[start : start + _AT_ONCE]:
                delivery = self._open(parcel_id, data, era)
                if delivery is not None:
                    items.append(Item(actors[delivery.actor_name].priority, delivery))
            self.broker.work_queue.put_many(items)

    def _may_fetch(self, control: "Control") -> bool:
        recorder = self.broker.recorder
        is_healthy = recorder is None or recorder.is_healthy
        return (
            is_healthy
            and not self.broker.work_queue.is_closed
            and not self.broker.is_quiet
            and self.broker.controls.is_known
            and (self.broker.heart is None or self.broker.heart.is_fresh())
            and not control.is_paused
            and not self._holds_back()
        )

    def _holds_back(self) -> bool:
        """Return whether the recorder is too far behind; it wakes this consumer when it is not.

        Room in memory is no reason to wake it meanwhile: each of the threads' jobs would.
        """
        recorder = self.broker.recorder
        self._is_held_back = recorder is not None and not recorder.has_room(self.wake)
        return self._is_held_back

    def _take_back_strays(self) -> None:
        """Put back what the server says we hold and we do not: its reply was cut.

        The only fetches of this queue by this process are made in this thread, so none can
        be under way. A fetch that timed out here may still be executed there later, hence
        not only once.
        """
        now = time.monotonic()
        if now < self._strays_at:
            return
        self._strays_at = now + _STRAYS_SECONDS
        strays = self.broker.transport.in_hand(self.queue_name) - self._hand.held
        if strays:
            self.logger.warning("Putting back %d messages that never arrived.", len(strays))
            back = [(parcel_id, Priority.NORMAL) for parcel_id in sorted(strays)]
            self.broker.transport.give_back(self.queue_name, back)

    def _give_back_unstarted(self) -> None:
        """Give back what the closed work queue has of this queue, while other jobs still run.

        In this thread, which is the one that fetches: a fetch that was under way as the queue
        was closed has put its messages there before, and no other begins. A broker that is
        away does not hold up the shutdown: Dramatiq starts this consumer over and so tries
        again as long as jobs run, at last by itself, and then the messages are rescued from
        this worker's hands.
        """
        items = self.broker.work_queue.drain(self.queue_name)
        if not items:
            return
        try:
            self.requeue(item.message for item in items)
        except BaseException:
            # If only the reply was cut, nothing comes of giving it back again.
            self.broker.work_queue.put_many(items)
            raise
        self.logger.info("Gave back %d messages of %s.", len(items), self.queue_name)

    def _fetch(self, control: "Control") -> list[tuple[str, bytes]]:
        prefetch = self.prefetch
        room = prefetch - self._hand.outstanding
        if not self._may_fetch(control) or not self._is_worth_a_fetch(room, prefetch):
            return []
        return self.broker.transport.fetch(self.queue_name, room)

    def _tell_limited(self, wait_ms: int) -> None:
        """Log that the rate holds jobs back, once in a while."""
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + _TELL_SECONDS
            events.of_queue("limited", self.queue_name, wait_ms=wait_ms)

    def _fetch_limited(self, control: "Control") -> tuple[list[tuple[str, bytes]], int]:
        """Fetch into idle threads only: what is fetched occupies a slot of the whole fleet.

        One message is fetched also when no thread is idle, or a queue without limits that
        keeps all threads busy would never let this one in.
        """
        freed = [self._hand.freed.popleft() for _ in range(len(self._hand.freed))]
        room = 0
        if self._may_fetch(control):
            room = max(self._idle_threads(), 1) - self._hand.outstanding
        if room <= 0 and not freed:
            return [], 0
        try:
            return self.broker.transport.fetch_limited(self.queue_name, room, control, freed)
        except Exception:
            # The slots are still to be freed, by whoever asks next.
            self._hand.freed.extend(freed)
            raise

    def _idle_threads(self) -> int:
        recorder = self.broker.recorder
        busy = len(recorder.running) if recorder is not None else 0
        # Its own messages wait for the threads counted here, and are subtracted by the caller
        # as outstanding, so those that run already must not count twice.
        return self._threads - busy + self._running

    @property
    def _running(self) -> int:
        recorder = self.broker.recorder
        if recorder is None:
            return 0
        return sum(run.queue == self.queue_name for run in list(recorder.running.values()))

    def _open(self, parcel_id: str, data: bytes, era: int) -> Delivery | None:
        """Return the message as a delivery, or hand over to the recorder what cannot run."""
        ours = split(parcel_id)
        try:
            message = Message.decode(data)
            if ours is None:
                self._adopt(parcel_id, message)
                return None
            if message.queue_name != self.queue_name:
                raise InvalidMessage(
                    f"queue_name is {message.queue_name!r:.100} in queue {self.queue_name!r}.",
                    field="queue_name",
                )
            messages.validate(message)
        except (DecodeError, InvalidMessage) as error:
            # DecodeError's own text contains the whole payload.
            reason = str(error) if isinstance(error, InvalidMessage) else "not a Dramatiq message"
            self._quarantine(parcel_id, data, reason)
            return None
        except Exception as error:
            # Whatever else the bytes bring about: the thread goes on, the message is kept.
            self.logger.exception("Could not read message %r.", parcel_id)
            self._quarantine(parcel_id, data, f"cannot be read: {error!r:.200}")
            return None
        message.options.pop("eta", None)
        delivery = Delivery(message, parcel_id=parcel_id, dispatch=ours[1], era=era)
        delivery.parked_ms = message.options.pop(PARKED, None)
        try:
            delivery.carry(payloads.open_message(message))
        except Undecryptable as error:
            self.broker.require_recorder().refuse(delivery, error)
            self._release(parcel_id)
            return None
        except Exception as error:
            # A token that no release of ours has written.
            self.logger.exception("Could not open message %r.", parcel_id)
            self._quarantine(parcel_id, data, f"cannot be opened: {error!r:.200}")
            return None
        if not self.broker.knows(message):
            self._settle_unrun(delivery)
            return None
        return delivery

    def _settle_unrun(self, delivery: Delivery) -> None:
        self.broker.require_recorder().park(delivery)
        self._release(delivery.parcel_id)

    def _adopt(self, parcel_id: str, message: Message[Any]) -> None:
        messages.validate(message)
        self.broker.require_recorder().adopt(self.queue_name, parcel_id, message)
        self._release(parcel_id)

    def _quarantine(self, parcel_id: str, data: bytes, reason: str) -> None:
        self.logger.error("Quarantined message %r: %s", parcel_id, reason)
        self.broker.require_recorder().quarantine(self.queue_name, parcel_id, data, reason)
        self._release(parcel_id)

    # --- Afterwards -----------------------------------------------------------------
    def _release(self, parcel_id: str) -> None:
        hand = self._hand
        with hand.lock:
            hand.unrun.discard(parcel_id)
            outstanding = len(hand.unrun)
        if self.wake.is_set():
            return  # it clears the event before it looks for room
        prefetch = self.prefetch
        if hand.freed or (
            not self._is_held_back and self._is_worth_a_fetch(prefetch - outstanding, prefetch)
        ):
            self.wake.set()

    def ack(self, message: MessageProxy) -> None:
        """Hand the run's ending to the recorder; it lets go of the message after its commit."""
        delivery: Delivery = message  # type: ignore[assignment]
        ending = delivery.ending
        if self.broker.controls.of(self.queue_name).concurrency is not None:
            self._hand.freed.append(delivery.parcel_id)
        if ending is not None:
            self.broker.note_run(self.queue_name, ending.duration_ms)
        self._release(delivery.parcel_id)
        self.broker.require_recorder().put(delivery)

    #: A failed job is an ending like any other; the dead letter is in the ledger.
    nack = ack

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give fetched messages back that were not started."""
        deliveries: list[Delivery] = list(messages)  # type: ignore[arg-type]
        # Before the attempt: if its reply is cut, whoever looks for strays decides.
        self._hand.drop(delivery.parcel_id for delivery in deliveries)
        self.broker.transport.give_back(
            self.queue_name, [(delivery.parcel_id, delivery.priority) for delivery in deliveries]
        )
        for delivery in deliveries:
            self._release(delivery.parcel_id)

    def close(self) -> None:
        """Leave the worker; what was fetched is in its queue."""
        self.broker.transport_consumers.discard(self)
