"""Carries messages through Redis or Valkey.

Keys, under the namespace:
    queue.{priority}          list of message ids that wait (0 high, 1 normal, 2 low)
    queue.msgs                hash of message id -> message, until it is settled
    queue.slots               hash of message id -> worker, of what runs in a limited queue
    queue.grants              sorted set of a limited queue's starts, by the server's time
    __acks__.{worker}.{queue} set of message ids in a worker's hands
    __heartbeats__            sorted set of workers by the server's time of their last sign
    queue.barred              sorted set of ids that may not be pushed any more, by time
    __mark__                  since when the server remembers; see `Transport.heartbeat`
    __refilled__              the mark for which everything that waits was pushed
    __pushed__                channel that names the queue of each push
"""

import logging
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import uuid4

import redis
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import redis_scripts
from .base import LedgerBroker
from .redis_client import client_of
from .sending import Sender
from .transport import BrokerUnavailable, ServerSettling

if TYPE_CHECKING:
    from ..controls import Control
    from ..ledger import Parcel

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Lua's stack bounds how many ids one call may unpack.
_FETCH_LIMIT = 500
_PUSH_BATCH = 500


def _translated(
    method: "Callable[Concatenate[RedisTransport, P], R]", /
) -> "Callable[Concatenate[RedisTransport, P], R]":
    """Turn every error of the client into the one that callers know how to survive."""

    @wraps(method)
    def wrapper(self: "RedisTransport", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except redis.RedisError as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error

    return wrapper


class RedisTransport:
    """Speaks to the server; see `Transport` for what each method does."""

    is_exact = True

    def __init__(self, url: str, namespace: str, **parameters: Any) -> None:
        self.namespace = namespace
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"
        self._pid = os.getpid()
        # No hidden retries: a fetch whose reply was cut must not be sent twice. Two
        # hundred milliseconds is what a web request may wait for a server that is away.
        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": 0.2,
            "socket_timeout": 2.0,
            **parameters,
        }
        self._client = client_of(url, **options)
        # A pool of its own: what it makes of connections it keeps.
        self._sender = Sender(client_of(url, **options).connection_pool)
        self._listening = client_of(url, **{**options, "socket_timeout": None})
        self._mark: bytes | None = None
        self._pubsub: redis.client.PubSub | None = None
        self._fetch = self._client.register_script(redis_scripts.FETCH)
        self._fetch_limited = self._client.register_script(redis_scripts.FETCH_LIMITED)
        self._give_back = self._client.register_script(redis_scripts.GIVE_BACK)
        self._withdraw = self._client.register_script(redis_scripts.WITHDRAW)
        self._heartbeat = self._client.register_script(redis_scripts.HEARTBEAT)
        self._missing = self._client.register_script(redis_scripts.MISSING)
        self._restore = self._client.register_script(redis_scripts.RESTORE)
        self.settling_ms = 3_000
        self._dead = self._client.register_script(redis_scripts.DEAD)

    # --- Keys -----------------------------------------------------------------------
    def _key(self, *parts: object) -> str:
        return f"{self.namespace}:{'.'.join(map(str, parts))}"

    def _lists(self, queue: str) -> list[str]:
        return [self._key(queue, priority) for priority in range(3)]

    def _acks(self, queue: str, worker_id: str = "") -> str:
        return self._key("__acks__", worker_id or self.worker_id, queue)

    # --- Messages -------------------------------------------------------------------
    @_translated
    def send(self, parcels: "Sequence[Parcel]") -> None:
        calls = self._pushes(parcels)
        if len(calls) == 1:
            self._sender.send("EVAL", *calls[0])
        else:
            # If the process ended with answers unread, the rest of them would not be sent.
            self.push(parcels)

    @_translated
    def push(self, parcels: "Sequence[Parcel]") -> None:
        calls = self._pushes(parcels)
        if len(calls) == 1:
            # A pipeline of one takes the client twice as long.
            self._client.eval(*calls[0])
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.eval(*call)
            pipeline.execute()

    @_translated
    def settle(self, done: dict[str, list[str]], parcels: "Sequence[Parcel]") -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for queue, names in done.items():
                ids = _raw(names)
                pipeline.hdel(self._key(queue, "msgs"), *ids)
                pipeline.srem(self._acks(queue), *ids)
                pipeline.hdel(self._key(queue, "slots"), *ids)
            pushes_at = len(pipeline)
            for call in self._pushes(parcels):
                pipeline.eval(*call)
            answers = pipeline.execute(raise_on_error=False)
        failures = [answer for answer in answers if isinstance(answer, redis.RedisError)]
        # A full server refuses pushes. What is done has to leave all the same, or it stays
        # full; the dispatcher finds what was not pushed.
        for answer in answers[:pushes_at]:
            if isinstance(answer, redis.RedisError):
                raise answer
        if failures:
            logger.warning("Not pushed yet, the jobs wait in the ledger: %s", failures[0])

    def _pushes(self, parcels: "Sequence[Parcel]") -> list[tuple[str | int | bytes, ...]]:
        """Return the calls that push the parcels.

        Not by the script's hash: the client would ask first whether the server knows it, a round
        trip for every push to spare half a kilobyte.
        """
        by_list: dict[tuple[str, int], list[str | bytes]] = defaultdict(list)
        for parcel in parcels:
            by_list[parcel.queue, parcel.priority] += (parcel.id, parcel.data)
        channel = self._key("__pushed__")
        calls: list[tuple[str | int | bytes, ...]] = []
        for (queue, priority), arguments in by_list.items():
            keys = [self._key(queue, part) for part in (priority, "msgs", "barred")]
            for start in range(0, len(arguments), 2 * _PUSH_BATCH):
                batch = arguments[start : start + 2 * _PUSH_BATCH]
                calls.append((redis_scripts.PUSH, len(keys), *keys, channel, queue, *batch))
        return calls

    @_translated
    def fetch(self, queue: str, limit: int) -> list[tuple[str, bytes]]:
        keys = [*self._lists(queue), self._key(queue, "msgs"), self._acks(queue)]
        keys += [self._key("__heartbeats__"), self._key("__queues__")]
        arguments = [min(limit, _FETCH_LIMIT), self.worker_id, queue]
        return _pairs(self._fetch(keys=keys, args=arguments))

    @_translated
    def fetch_limited(
        self, queue: str, limit: int, control: "Control", freed: Sequence[str]
    ) -> tuple[list[tuple[str, bytes]], int]:
        keys = [*self._lists(queue), self._key(queue, "msgs"), self._acks(queue)]
        keys += [self._key(queue, "slots"), self._key(queue, "grants"), self._key("__pushed__")]
        keys += [self._key("__heartbeats__"), self._key("__queues__")]
        rate = control.rate
        arguments: list[str | bytes | int] = [
            max(min(limit, _FETCH_LIMIT), 0),
            control.concurrency or 0,
            rate.limit if rate else 0,
            rate.window_ms if rate else 0,
            self.worker_id,
            queue,
            *_raw(freed),
        ]
        wait_ms, *found = self._fetch_limited(keys=keys, args=arguments)
        return _pairs(found), int(wait_ms)

    @_translated
    def give_back(
        self, queue: str, messages: Sequence[tuple[str, int]], worker_id: str = ""
    ) -> None:
        if messages:
            arguments: list[bytes | int] = []
            for message, priority in reversed(messages):
                arguments += (*_raw([message]), priority)
            acks = self._acks(queue, worker_id)
            keys = [*self._lists(queue), acks, self._key(queue, "slots")]
            self._give_back(keys=keys, args=arguments)

    @_translated
    def in_hand(self, queue: str) -> set[str]:
        return {_text(message) for message in self._client.smembers(self._acks(queue))}

    @_translated
    def missing(self, parcels: "Sequence[Parcel]", *, bar: bool = False) -> "list[Parcel]":
        by_queue: dict[str, list[str]] = defaultdict(list)
        for parcel in parcels:
            by_queue[parcel.queue].append(parcel.id)
        found: set[tuple[str, str]] = set()
        for queue, ids in by_queue.items():
            keys = [self._key("__mark__"), self._key(queue, "barred"), self._key(queue, "msgs")]
            for start in range(0, len(ids), _PUSH_BATCH):
                batch = ids[start : start + _PUSH_BATCH]
                arguments: list[str | int] = [uuid4().hex, self.settling_ms, int(bar), *batch]
                answer = self._missing(keys=keys, args=arguments)
                if answer is None:
                    raise ServerSettling("The server has just lost what it held.")
                found.update((queue, _text(parcel_id)) for parcel_id in answer)
        return [parcel for parcel in parcels if (parcel.queue, parcel.id) in found]

    @_translated
    def withdraw(self, parcels: "Sequence[Parcel]") -> set[str]:
        by_queue: dict[str, list[str]] = defaultdict(list)
        for parcel in parcels:
            by_queue[parcel.queue].append(parcel.id)
        taken = set()
        for queue, ids in by_queue.items():
            keys = [self._key(queue, "msgs"), self._key("__heartbeats__")]
            # "\0" is in no worker's id.
            around = self._acks(queue, "\0").split("\0")
            for start in range(0, len(ids), _PUSH_BATCH):
                found = self._withdraw(keys=keys, args=[*around, *ids[start : start + _PUSH_BATCH]])
                taken |= {message.decode("utf-8", "replace") for message in found}
        return taken

    @_translated
    def listed(self, queue: str, limit: int) -> list[str]:
        found: list[str] = []
        for key in self._lists(queue):
            if left := limit - len(found):
                found += map(_text, self._client.lrange(key, 0, left - 1))
        return found

    @_translated
    def size(self, queue: str) -> int:
        return int(self._client.hlen(self._key(queue, "msgs")))

    @_translated
    def purge(self, queue: str) -> None:
        lists = self._lists(queue)
        with self._client.pipeline(transaction=True) as pipeline:
            for key in lists:
                pipeline.lrange(key, 0, -1)
            for key in lists:
                pipeline.delete(key)
            waiting = [message for ids in pipeline.execute()[:3] for message in ids]
        for start in range(0, len(waiting), _PUSH_BATCH):
            batch = waiting[start : start + _PUSH_BATCH]
            self._client.hdel(self._key(queue, "msgs"), *batch)

    # --- Workers --------------------------------------------------------------------
    @_translated
    def heartbeat(self, worker_id: str = "") -> str:
        keys = [self._key("__mark__"), self._key("__heartbeats__")]
        mark = self._heartbeat(keys=keys, args=[uuid4().hex, worker_id or self.worker_id])
        return _text(mark + self._master())

    def _master(self) -> bytes:
        """Return which of several servers answers; nothing where there is only one.

        A replica that has become the master has the mark of the one before, and may lack the
        last of its messages: it counts as a server that has lost its memory.
        """
        address = getattr(self._client.connection_pool, "master_address", None)
        return b"@%s:%d" % (address[0].encode(), address[1]) if address else b""

    @_translated
    def needs_refill(self) -> bool:
        mark, refilled = self._client.mget(self._key("__mark__"), self._key("__refilled__"))
        mark = None if mark is None else mark + self._master()
        self._mark = mark
        return mark is not None and mark != refilled

    @_translated
    def refilled(self) -> None:
        # The mark as it was when the refill began: a server emptied since needs another one.
        if self._mark is not None:
            self._client.set(self._key("__refilled__"), self._mark)

    @_translated
    def restore(self, parcels: "Sequence[Parcel]", slots: Sequence[str]) -> None:
        by_queue: dict[str, list[Parcel]] = defaultdict(list)
        for parcel in parcels:
            by_queue[parcel.queue].append(parcel)
        for queue, held in by_queue.items():
            keys = [self._key(queue, "msgs"), self._acks(queue), self._key(queue, "slots")]
            keys.append(self._key("__queues__"))
            taken = [parcel.id for parcel in held if parcel.id in set(slots)]
            arguments: list[str | bytes | int] = [self.worker_id, queue, len(taken), *taken]
            for parcel in held:
                arguments += (parcel.id, parcel.data)
            self._restore(keys=keys, args=arguments)

    @_translated
    def dead_workers(self, timeout_ms: int) -> list[str]:
        silent = self._dead(keys=[self._key("__heartbeats__")], args=[timeout_ms])
        return [_text(worker) for worker in silent]

    @_translated
    def held_by(self, worker_id: str) -> dict[str, list[str]]:
        queues = sorted(map(_text, self._client.smembers(self._key("__queues__"))))
        with self._client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.smembers(self._acks(queue, worker_id))
            answers = pipeline.execute()
        return {
            queue: [_text(message) for message in found]
            for queue, found in zip(queues, answers, strict=True)
            if found
        }

    @_translated
    def forget(self, worker_id: str, held: dict[str, list[str]]) -> None:
        with self._client.pipeline(transaction=True) as pipeline:
            for queue, names in held.items():
                if ids := _raw(names):
                    pipeline.hdel(self._key(queue, "msgs"), *ids)
                    pipeline.srem(self._acks(queue, worker_id), *ids)
                    pipeline.hdel(self._key(queue, "slots"), *ids)
            pipeline.zrem(self._key("__heartbeats__"), worker_id)
            pipeline.execute()

    @_translated
    def declare_dead(self, worker_id: str) -> None:
        self._client.zadd(self._key("__heartbeats__"), {worker_id: 0}, xx=True)

    # --- Wake-up --------------------------------------------------------------------
    @_translated
    def wait_for_push(self, timeout: float) -> set[str]:
        if self._pubsub is None:
            pubsub = self._listening.pubsub(ignore_subscribe_messages=True)
            pubsub.subscribe(self._key("__pushed__"))
            self._pubsub = pubsub
        queues = set()
        try:
            message = self._pubsub.get_message(timeout=timeout)
            while message is not None:
                queues.add(_text(message["data"]))
                message = self._pubsub.get_message(timeout=0)
        except redis.RedisError:
            self._pubsub.close()
            self._pubsub = None
            raise
        return queues

    def close(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None
        self._sender.close()
        self._client.close()
        self._listening.close()


def _text(name: bytes) -> str:
    # Any bytes, and the same ones back when it is sent again.
    return name.decode("utf-8", "surrogateescape")


def _raw(names: Iterable[str]) -> list[bytes]:
    return [name.encode("utf-8", "surrogateescape") for name in names]


def _pairs(found: list[bytes]) -> list[tuple[str, bytes]]:
    return [(_text(found[index]), found[index + 1]) for index in range(0, len(found), 2)]


class RedisBroker(LedgerBroker):
    """A ledger-backed broker on Redis or Valkey.

    Args:
        url: address of the server: redis://, rediss://, unix:// or redis+sentinel://; see
            `client_of`.
        namespace: prefix of every key.
        middleware: extras; the standard ones are built in.
        **parameters: passed to `redis.Redis.from_url`.
    """

    def __init__(
        self,
        *,
        url: str = "redis://127.0.0.1:6379/0",
        namespace: str = "dramatiq",
        middleware: list[Middleware] | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(middleware=middleware)
        self.transport = RedisTransport(url, namespace, **parameters)
