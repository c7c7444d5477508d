"""Carries messages through RabbitMQ; who holds them stands in the ledger.

RabbitMQ can neither be asked whether it has a message, nor who holds one, nor take one out
of the middle of a queue. So the holder of a message is a row (`queueadmin.ledger.holdings`),
and a delivery without a row of its own is a copy and is dropped. See decision 21.

On the server, under the namespace:
    {namespace}.{queue}   durable queue with priorities; a message carries its id in a header
    {namespace}.pushed    exchange that tells all workers the names of queues with news
"""

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import uuid4

from amqp import spec
from django.db import DatabaseError, InterfaceError, connection, connections
from dramatiq.middleware import Middleware

from .. import clock
from ..consumer import split
from .base import LedgerBroker
from .line import Line, options_of
from .publisher import ANSWER_SECONDS, ID, Publisher, declare
from .transport import BrokerUnavailable

if TYPE_CHECKING:
    from ..controls import Control
    from ..ledger import Parcel
    from ..ledger.holdings import Copy, Key

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FOREIGN = "foreign."
# How often a queue that seems to have lost messages is looked at before it counts as such,
# and how long between: deliveries are on their way, and rows about to be written.
_LOOKS = 3
_LOOK_SECONDS = 0.3
# What became due later may not have been pushed yet.
_ON_ITS_WAY = timedelta(seconds=2)
# The looks at all queues take at most one part in so many of the dispatcher's time.
_SPARE = 20


class _Got(NamedTuple):
    """A message as the server delivered it."""

    parcel: str
    data: bytes
    tag: int
    copy: "Copy | None"


@contextmanager
def _rows() -> Iterator[None]:
    """Turn errors of the database into the one that callers know how to survive.

    In somebody's transaction they stay what they are: it is broken, and has to end.
    """
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        if connection.in_atomic_block:
            raise
        connection.close()
        raise BrokerUnavailable(f"The ledger does not answer: {error}") from error


class RabbitMQTransport:
    """Speaks to the server and to the accounts in the ledger; see `Transport`.

    Messages are fetched, acknowledged and given back by one thread of its own, which has one
    connection to the server and one to the database however many queues are consumed.
    """

    settling_ms = 0
    is_exact = False

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace = namespace
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"
        options = options_of(url)
        self._publisher = Publisher(options, namespace)
        # So often the server expects a sign of life; without it, messages in the hands of a
        # host that was lost would stay there for hours.
        steady = {**options, "heartbeat": 30}
        self._line = Line(steady, timeout=ANSWER_SECONDS, prepare=self._forget_tags)
        self._listening = Line(steady, timeout=ANSWER_SECONDS, prepare=self._subscribe)
        self._thread: ThreadPoolExecutor | None = None
        self._thread_pid = 0
        self._start_lock = threading.Lock()
        #: Delivery tags of what this process holds, on the connection that there is.
        self._tags: dict[tuple[str, str], int] = {}
        self._declared: set[str] = set()
        #: Limited queues that had no room at the last look.
        self._full: set[str] = set()
        self._pushed: set[str] = set()
        self._look_at = self._tidy_at = 0.0

    # --- The thread -------------------------------------------------------------------
    def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the thread that has the connection."""
        return self._begin(function, *arguments).result()

    def _begin(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        with self._start_lock:
            if self._thread is None or self._thread_pid != os.getpid():
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="queueadmin-rabbitmq")
                self._thread_pid = os.getpid()
            return self._thread.submit(function, *arguments)

    def _forget_tags(self, channel: Any) -> None:
        self._tags.clear()
        self._declared.clear()

    # --- Messages ---------------------------------------------------------------------
    def push(self, parcels: "Sequence[Parcel]") -> None:
        self._publisher.publish(parcels, {parcel.queue for parcel in parcels})

    #: Without the server's confirmation nobody could ever tell whether it has a message.
    send = push

    def fetch(self, queue: str, limit: int) -> list[tuple[str, bytes]]:
        return self._run(self._fetch, queue, limit)

    def _fetch(self, queue: str, limit: int) -> list[tuple[str, bytes]]:
        from ..ledger import holdings  # needs models; see `base`

        def take(copies: "Sequence[Copy]") -> "tuple[set[Key], Sequence[Copy]]":
            return holdings.take(queue, copies, worker=self.worker_id), ()

        found: list[tuple[str, bytes]] = []
        while (wanted := limit - len(found)) > 0:
            got = self._get(queue, wanted)
            found += self._keep(queue, got, take)
            if len(got) < wanted:
                break
        return found

    def fetch_limited(
        self, queue: str, limit: int, control: "Control", freed: Sequence[str]
    ) -> tuple[list[tuple[str, bytes]], int]:
        return self._run(self._fetch_limited, queue, limit, control, freed)

    def _fetch_limited(
        self, queue: str, limit: int, control: "Control", freed: Sequence[str]
    ) -> tuple[list[tuple[str, bytes]], int]:
        """Get messages, then take under the lock what has room, and give back the rest.

        The lock is not held while the server is asked. A queue that had no room at the last
        look is not asked for more than has room, so that little has to be given back.
        """
        from ..ledger import holdings  # needs models; see `base`

        limits = holdings.Limits(queue, control.concurrency, control.rate)
        keys = _keys(freed)
        room = holdings.Room(limits.most, 0)
        if queue in self._full:
            with _rows():
                room = holdings.Room(len(keys), 0) if keys else holdings.room(limits)

        def take(copies: "Sequence[Copy]") -> "tuple[set[Key], Sequence[Copy]]":
            nonlocal room
            taken, left, room = holdings.take_limited(
                limits, copies, worker=self.worker_id, freed=keys
            )
            return taken, left

        found: list[tuple[str, bytes]] = []
        is_empty = False
        while not is_empty and (wanted := min(limit - len(found), room.starts)) > 0:
            got = self._get(queue, wanted)
            is_empty = len(got) < wanted
            found += self._keep(queue, got, take)
            keys = keys if not got else []
        if keys:
            with _rows():
                holdings.free_slots(self.worker_id, keys)
                room = holdings.room(limits)
        self._full = self._full - {queue} if room.starts else self._full | {queue}
        if freed and room.starts and not is_empty and self._ready(queue):
            self._wake(queue)
        return found, room.wait_ms if not found and limit > 0 else 0

    def _wake(self, queue: str) -> None:
        try:
            self._publisher.publish((), [queue])
        except BrokerUnavailable as error:
            logger.debug("Nobody was woken, they look by themselves: %s", error)

    def _get(self, queue: str, count: int) -> list[_Got]:
        """Get up to `count` messages, the requests for all but the first at once."""
        from ..ledger.holdings import Copy  # needs models; see `base`

        found: list[_Got] = []
        name = f"{self.namespace}.{queue}"
        with self._line.use() as channel:
            self._declare(channel, queue)
            ahead = 1
            while ahead:
                for _ in range(ahead):
                    channel.send_method(spec.Basic.Get, "Bsb", (0, name, False))
                left = 0
                for _ in range(ahead):
                    answer = channel.wait(
                        [spec.Basic.GetOk, spec.Basic.GetEmpty], returns_tuple=True
                    )
                    if len(answer) > 1:
                        tag, _redelivered, _exchange, _key, left, message = answer
                        found.append(_opened(tag, message, Copy))
                ahead = min(count - len(found), left) if found else 0
        return found

    def _keep(
        self,
        queue: str,
        got: Sequence[_Got],
        take: "Callable[[Sequence[Copy]], tuple[set[Key], Sequence[Copy]]]",
    ) -> list[tuple[str, bytes]]:
        """Return what is ours now; acknowledge copies, give back what the limits do not allow."""
        if not got:
            return []
        first: dict[Key, _Got] = {}
        for each in got:
            if each.copy is not None:
                first.setdefault(each.copy.key, each)
        try:
            with _rows():
                copies = [each.copy for each in first.values() if each.copy is not None]
                taken, left = take(copies)
        except BaseException:
            # Perhaps it was committed all the same. Then these are strays, for which the
            # consumer looks.
            self._return([each.tag for each in got])
            raise
        late = {copy.key for copy in left}
        mine, others, back = [], [], []
        for each in got:
            key = each.copy.key if each.copy is not None else None
            if key is None or (key in taken and first[key] is each):
                mine.append(each)
            elif key in late:
                back.append(each.tag)
            else:
                others.append(each)
        strange = _strangers(others)
        mine += strange
        if len(others) > len(strange):
            logger.debug("Dropped %d copies in queue %s.", len(others) - len(strange), queue)
            tags = {each.tag for each in strange}
            self._acknowledge([each.tag for each in others if each.tag not in tags])
        self._return(back)
        self._tags.update({(queue, each.parcel): each.tag for each in mine})
        return [(each.parcel, each.data) for each in mine]

    def _acknowledge(self, tags: Iterable[int]) -> None:
        """Let the server drop messages; one that it delivers again would be a copy."""
        try:
            with self._line.use() as channel:
                for tag in tags:
                    channel.basic_ack(tag)
        except BrokerUnavailable as error:
            logger.debug("Could not acknowledge: %s", error)

    def _return(self, tags: Sequence[int]) -> bool:
        """Put messages back where they were; return whether the server has done it.

        Where the connection is broken, the server has put them back itself, some time ago.
        """
        if not tags or not self._line.is_open:
            return not tags
        try:
            with self._line.use() as channel:
                for tag in reversed(tags):
                    channel.basic_reject(tag, requeue=True)
                # A rejection is not answered, this is.
                channel.basic_qos(0, 0, False)
        except BrokerUnavailable as error:
            logger.debug("Could not give back: %s", error)
            return False
        return True

    def settle(self, done: dict[str, list[str]], parcels: "Sequence[Parcel]") -> None:
        from ..ledger import holdings  # needs models; see `base`

        # In the recorder's own thread, so that no fetch waits for this commit.
        with _rows():
            holdings.drop(self.worker_id, _keys(parcel for ids in done.values() for parcel in ids))
        # Nobody waits for it: what is not acknowledged comes back as a copy.
        self._begin(self._settle, done)
        if not parcels:
            return
        try:
            self.push(parcels)
        except BrokerUnavailable as error:
            # What is done has left. The dispatcher finds what was not pushed.
            logger.warning("Not pushed yet, the jobs wait in the ledger: %s", error)

    def _settle(self, done: dict[str, list[str]]) -> None:
        tags = [
            tag
            for queue, ids in done.items()
            for parcel in ids
            if (tag := self._tags.pop((queue, parcel), None)) is not None
        ]
        if tags and self._line.is_open:
            self._acknowledge(tags)

    def give_back(
        self, queue: str, messages: Sequence[tuple[str, int]], worker_id: str = ""
    ) -> None:
        if messages:
            parcels = [parcel for parcel, _ in messages]
            self._run(self._give_back, queue, parcels, worker_id or self.worker_id)

    def _give_back(self, queue: str, parcels: Sequence[str], worker_id: str) -> None:
        """Let go of the rows, then of the messages.

        What the server has taken back already, because the connection broke meanwhile, may
        have been dropped as a copy by somebody else: it is pushed again.
        """
        from ..ledger import holdings, parcels_of  # need models; see `base`
        from ..models import Job

        with _rows():
            held = holdings.drop(worker_id, _keys(parcels))
        is_mine = worker_id == self.worker_id
        tags = {
            parcel: tag
            for parcel in parcels
            if is_mine
            and ((ours := split(parcel)) is None or ours in held)
            and (tag := self._tags.pop((queue, parcel), None)) is not None
        }
        if not self._return(list(tags.values())):
            tags = {}
        again = {ours[0] for parcel in parcels if parcel not in tags and (ours := split(parcel))}
        if again:
            with _rows():
                found = parcels_of(Job.objects.filter(id__in=again))
            self.push([parcel for parcel in found if parcel[:2] in held])

    def in_hand(self, queue: str) -> set[str]:
        return self._run(self._in_hand, queue)

    def _in_hand(self, queue: str) -> set[str]:
        from ..ledger import holdings  # needs models; see `base`

        self._line.tick()
        with _rows():
            return set(holdings.held(self.worker_id, queue).get(queue, ()))

    # --- What is there ----------------------------------------------------------------
    def _declare(self, channel: Any, queue: str) -> None:
        if queue not in self._declared:
            declare(channel, self.namespace, queue)
            self._declared.add(queue)

    def _ready(self, queue: str) -> int:
        with self._line.use() as channel:
            return declare(channel, self.namespace, queue)

    def _ready_of(self, queues: Iterable[str]) -> dict[str, int]:
        return {queue: self._ready(queue) for queue in queues}

    def _short(self, queues: Iterable[str]) -> set[str]:
        """Return those queues that hold fewer messages than jobs wait for theirs.

        The server can only be asked how many messages wait in a queue. It is asked first,
        then the ledger: a message fetched before the one question has its row by the other,
        and what is pushed between them is too young to count. What a look may still miss,
        such as a message given back just then, is not missed three times in a row. Copies
        that nobody needs count as messages; they hide a loss only until they are fetched.
        """
        from ..ledger import holdings  # needs models; see `base`

        suspects = set(queues)
        for look in range(_LOOKS):
            if not suspects:
                break
            if look:
                time.sleep(_LOOK_SECONDS)  # paces the looks
            before = clock.now() - _ON_ITS_WAY
            ready = self._run(self._ready_of, sorted(suspects))
            with _rows():
                wanted = holdings.unheld(before, suspects)
            suspects = {queue for queue in suspects if ready[queue] < wanted.get(queue, 0)}
        return suspects

    def missing(self, parcels: "Sequence[Parcel]", *, bar: bool = False) -> "list[Parcel]":
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            waiting, lost = holdings.in_no_hands(parcels)
        short = self._short({parcel.queue for parcel in parcels if parcel[:2] in waiting})
        found = [
            parcel
            for parcel in parcels
            # What runs is in somebody's hands, or nowhere.
            if parcel[:2] in lost or (parcel[:2] in waiting and parcel.queue in short)
        ]
        if not bar:
            return found
        with _rows():
            barred = holdings.forbid(found)
        return [parcel for parcel in found if parcel.id in barred]

    def needs_refill(self) -> bool:
        """Look at every queue that jobs wait in, as often as the looks are cheap."""
        from ..ledger import holdings  # needs models; see `base`

        begun = time.monotonic()
        if begun < self._look_at:
            return False
        with _rows():
            if begun >= self._tidy_at:
                self._tidy_at = begun + 600
                holdings.tidy()
            wanted = holdings.unheld(clock.now() - _ON_ITS_WAY)
        ready = self._run(self._ready_of, sorted(wanted))
        short = self._short(queue for queue in wanted if ready[queue] < wanted[queue])
        now = time.monotonic()
        self._look_at = now + (now - begun) * _SPARE
        return bool(short)

    def refilled(self) -> None:
        """Nothing to note: what was missing counts no more once it is there."""

    def restore(self, parcels: "Sequence[Parcel]", slots: Sequence[str]) -> None:
        """Nothing to tell: what this worker holds stands in the ledger."""

    def withdraw(self, parcels: "Sequence[Parcel]") -> set[str]:
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            return holdings.forbid(parcels)

    def listed(self, queue: str, limit: int) -> list[str]:
        # What is over is dropped where it is fetched; see `ledger.holdings.take`.
        return []

    def size(self, queue: str) -> int:
        from ..ledger import holdings  # needs models; see `base`

        ready = self._run(self._ready, queue)
        with _rows():
            return ready + holdings.number_held(queue)

    def purge(self, queue: str) -> None:
        self._run(self._purge, queue)

    def _purge(self, queue: str) -> None:
        with self._line.use() as channel:
            self._declare(channel, queue)
            channel.queue_purge(f"{self.namespace}.{queue}")

    # --- Workers ----------------------------------------------------------------------
    def heartbeat(self, worker_id: str = "") -> str:
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            holdings.beat(worker_id or self.worker_id)
        # The accounts are in the database, which forgets nothing.
        return "ledger"

    def dead_workers(self, timeout_ms: int) -> list[str]:
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            return holdings.silent(timeout_ms)

    def held_by(self, worker_id: str) -> dict[str, list[str]]:
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            return holdings.held(worker_id)

    def forget(self, worker_id: str, held: dict[str, list[str]]) -> None:
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            holdings.forget(worker_id, _keys(parcel for ids in held.values() for parcel in ids))

    def declare_dead(self, worker_id: str) -> None:
        from ..ledger import holdings  # needs models; see `base`

        with _rows():
            holdings.silence(worker_id)

    # --- Wake-up ----------------------------------------------------------------------
    def _subscribe(self, channel: Any) -> None:
        exchange = f"{self.namespace}.pushed"
        channel.exchange_declare(exchange, "fanout", durable=True, auto_delete=False)
        # Who reads too slowly looks by itself, once a second.
        name = channel.queue_declare(
            "", exclusive=True, auto_delete=True, arguments={"x-max-length": 1000}
        ).queue
        channel.queue_bind(name, exchange)
        channel.basic_consume(name, no_ack=True, callback=self._on_pushed)

    def _on_pushed(self, message: Any) -> None:
        self._pushed.add(bytes(message.body).decode("utf-8", "replace"))

    def wait_for_push(self, timeout: float) -> set[str]:
        self._listening.wait(timeout)
        self._listening.tick()
        pushed, self._pushed = self._pushed, set()
        return pushed

    def close(self) -> None:
        if self._thread is not None and self._thread_pid == os.getpid():
            self._thread.submit(self._line.close).result()
            self._thread.submit(connections.close_all).result()
            self._thread.shutdown()
        self._thread = None
        self._publisher.close()
        self._listening.close()


def _keys(parcels: Iterable[str]) -> "list[Key]":
    """Return job and dispatch of those messages that are the ledger's."""
    return [ours for parcel in parcels if (ours := split(parcel)) is not None]


def _opened(tag: int, message: Any, copy: "type[Copy]") -> _Got:
    """Return a delivery with its id; one that the ledger cannot know gets it from its bytes."""
    # Without a body there is no frame for one.
    data = bytes(message.body or b"")
    headers = message.properties.get("application_headers")
    parcel = headers.get(ID) if isinstance(headers, dict) else None
    ours = split(parcel) if isinstance(parcel, str) else None
    if parcel is None or ours is None:
        return _Got(_foreign(data), data, tag, None)
    return _Got(parcel, data, tag, copy(*ours, parcel))


def _foreign(data: bytes) -> str:
    # The same bytes delivered again are the same message.
    return _FOREIGN + hashlib.sha256(data).hexdigest()[:40]


def _strangers(others: Iterable[_Got]) -> list[_Got]:
    """Return, as foreign messages, those that are no copies of what their id says.

    What is neither about that job nor equal to its message was put there by somebody else.
    It is not dropped but quarantined like everything that nobody understands.
    """
    from ..models import Job  # needs models; see `base`

    doubtful = [
        each for each in others if each.copy is not None and each.copy.job.encode() not in each.data
    ]
    if not doubtful:
        return []
    ids = {each.copy.job for each in doubtful if each.copy is not None}
    with _rows():
        known = dict(Job.objects.filter(id__in=ids).values_list("id", "message"))
    return [
        _Got(_foreign(each.data), each.data, each.tag, None)
        for each in doubtful
        if each.copy is not None
        and (each.copy.job not in known or bytes(known[each.copy.job]) != each.data)
    ]


class RabbitMQBroker(LedgerBroker):
    """A ledger-backed broker on RabbitMQ that needs no Redis.

    Args:
        url: address of the server: amqp:// or amqps://; see `line.options_of`.
        namespace: prefix of the names of queues and exchange.
        middleware: extras; the standard ones are built in.
    """

    def __init__(
        self,
        *,
        url: str = "amqp://guest:guest@127.0.0.1:5672/",
        namespace: str = "queueadmin",
        middleware: list[Middleware] | None = None,
    ) -> None:
        super().__init__(middleware=middleware)
        self.transport = RabbitMQTransport(url, namespace)
