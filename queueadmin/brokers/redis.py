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
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import redis
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..exceptions import ConfigurationError
from .base import BrokerUnavailable, LedgerBroker, ServerSettling
from .sending import Sender

if TYPE_CHECKING:
    from ..controls import Control
    from ..ledger import Parcel

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# KEYS: list, hash, barred. ARGV: channel, queue, id, data, id, data … The hash decides, so a
# repeated push of an id that is still there adds nothing. It wakes who waits itself, or a push
# would be two commands.
_PUSH = """
local added = 0
local some_are_barred = redis.call('EXISTS', KEYS[3]) == 1
for i = 3, #ARGV, 2 do
  if not (some_are_barred and redis.call('ZSCORE', KEYS[3], ARGV[i]))
      and redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('RPUSH', KEYS[1], ARGV[i])
    added = added + 1
  end
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return added
"""

# A full server refuses a script whose first write may need memory, and lets it go on after
# one that needs none. Fetches and heartbeats have to go on, or nobody makes room: each
# script of theirs begins with such a write.

# KEYS: high, normal, low, hash, acks, heartbeats, queues. ARGV: limit, worker, queue. Returns id,
# data, id, data …
# An id without data was purged or withdrawn; it is dropped and the next one taken. A worker that holds anything is
# among the heartbeats, also between a flush and its next beat, and the queue it holds something
# of is among the queues: who asks what a dead worker held need not walk through all keys of a
# server that others may use, too.
_FETCH = """
local found = {}
local left = tonumber(ARGV[1])
local t = redis.call('TIME')
redis.call('ZREM', KEYS[6], '')
redis.call('ZADD', KEYS[6], 'NX', t[1] * 1000 + math.floor(t[2] / 1000), ARGV[2])
redis.call('SADD', KEYS[7], ARGV[3])
for p = 1, 3 do
  while left > 0 do
    local ids = redis.call('LPOP', KEYS[p], left)
    if not ids then break end
    local datas = redis.call('HMGET', KEYS[4], unpack(ids))
    for i = 1, #ids do
      if datas[i] then
        redis.call('SADD', KEYS[5], ids[i])
        found[#found + 1] = ids[i]
        found[#found + 1] = datas[i]
        left = left - 1
      end
    end
  end
end
return found
"""

# KEYS: high, normal, low, hash, acks, slots, grants, channel, heartbeats, queues. ARGV: limit,
# concurrency, starts per window, window in ms (each 0 for none), worker, queue, freed id, freed id …
# Slots and rate are asked and taken where the message is taken, so nothing has to be put
# back. `grants` is a log of the starts of the last window, by the server's clock: at most
# as many as allowed lie in any window. An actor starts some milliseconds after its grant;
# where a late one met the early ones of the next window, the provider behind it would see
# too many, so the window is a little longer. Returns wait in ms, id, data, id, data …
_FETCH_LIMITED = """
local left = tonumber(ARGV[1])
local slots, starts, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if #ARGV > 6 then redis.call('HDEL', KEYS[6], unpack(ARGV, 7)) end
local wait = 0
if slots > 0 then left = math.min(left, slots - redis.call('HLEN', KEYS[6])) end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREM', KEYS[9], '')
redis.call('ZADD', KEYS[9], 'NX', math.floor(now / 1000), ARGV[5])
redis.call('SADD', KEYS[10], ARGV[6])
if starts > 0 then
  window = window + math.min(window * 0.05, 50)
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now - window * 1000)
  local free = starts - redis.call('ZCARD', KEYS[7])
  if free < left then left = free end
  if free <= 0 then
    local oldest = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
    wait = math.max(1, math.ceil((oldest[2] + window * 1000 - now) / 1000))
  end
end
local found = {0}
for p = 1, 3 do
  while left > 0 do
    local ids = redis.call('LPOP', KEYS[p], left)
    if not ids then break end
    local datas = redis.call('HMGET', KEYS[4], unpack(ids))
    for i = 1, #ids do
      if datas[i] then
        redis.call('SADD', KEYS[5], ids[i])
        if slots > 0 then redis.call('HSET', KEYS[6], ids[i], ARGV[5]) end
        if starts > 0 then
          redis.call('ZADD', KEYS[7], now, now .. ':' .. ids[i])
          redis.call('PEXPIRE', KEYS[7], math.ceil(window * 2))
        end
        found[#found + 1] = ids[i]
        found[#found + 1] = datas[i]
        left = left - 1
      end
    end
  end
end
found[1] = wait
if #ARGV > 6 and slots > 0 and wait == 0 and redis.call('HLEN', KEYS[6]) < slots then
  for p = 1, 3 do
    if redis.call('EXISTS', KEYS[p]) == 1 then
      redis.call('PUBLISH', KEYS[8], ARGV[6])
      break
    end
  end
end
return found
"""

# KEYS: hash, heartbeats. ARGV: id, ..., prefix and suffix of the acks' keys first. A message
# is free when it is there and in nobody's hands; its id stays in the list, where the fetch
# drops it: LREM would walk the list for each. Whoever fetches is among the heartbeats.
_WITHDRAW = """
local workers = redis.call('ZRANGE', KEYS[2], 0, -1)
local taken = {}
for i = 3, #ARGV do
  local free = redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1
  for _, worker in ipairs(workers) do
    if not free then break end
    if redis.call('SISMEMBER', ARGV[1] .. worker .. ARGV[2], ARGV[i]) == 1 then free = false end
  end
  if free then
    redis.call('HDEL', KEYS[1], ARGV[i])
    taken[#taken + 1] = ARGV[i]
  end
end
return taken
"""

# KEYS: high, normal, low, acks, slots. ARGV: id, priority, id, priority …, last to be first.
_GIVE_BACK = """
for i = 1, #ARGV, 2 do
  redis.call('HDEL', KEYS[5], ARGV[i])
  if redis.call('SREM', KEYS[4], ARGV[i]) == 1 then
    redis.call('LPUSH', KEYS[tonumber(ARGV[i + 1]) + 1], ARGV[i])
  end
end
"""

_TIME = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000) "
# KEYS[1] is the mark in the scripts below. The server that has none has lost everything, or
# never had anything. The mark says since when it is there, by the server's clock.
_MARK = (
    _TIME
    + """
redis.call('ZREM', KEYS[2], '')
local mark = redis.call('GET', KEYS[1])
if not mark then
  mark = now .. ':' .. ARGV[1]
  redis.call('SET', KEYS[1], mark)
end
"""
)
# KEYS: mark, heartbeats. ARGV: random text, worker.
_HEARTBEAT = _MARK + "redis.call('ZADD', KEYS[2], now, ARGV[2]); return mark"
# KEYS: mark, barred, messages. ARGV: random text, settling time in ms, 1 to bar, id, id …
# What is barred stays so for an hour: longer than any producer hesitates before its push.
_MISSING = (
    _MARK
    + """
if now - tonumber(string.match(mark, '^%d+')) < tonumber(ARGV[2]) then return false end
local missing = {}
for i = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then
    missing[#missing + 1] = ARGV[i]
    if ARGV[3] == '1' then redis.call('ZADD', KEYS[2], now, ARGV[i]) end
  end
end
if ARGV[3] == '1' and #missing > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 3600000)
  redis.call('PEXPIRE', KEYS[2], 3600000)
end
return missing
"""
)
# KEYS: hash, acks, slots, queues. ARGV: worker, queue, how many slots, id of each, id, data, id,
# data …
_RESTORE = """
redis.call('SADD', KEYS[4], ARGV[2])
local slots = tonumber(ARGV[3])
for i = 4, 3 + slots do redis.call('HSET', KEYS[3], ARGV[i], ARGV[1]) end
for i = 4 + slots, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('SADD', KEYS[2], ARGV[i])
  end
end
"""
_DEAD = _TIME + "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])"

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
        self._fetch = self._client.register_script(_FETCH)
        self._fetch_limited = self._client.register_script(_FETCH_LIMITED)
        self._give_back = self._client.register_script(_GIVE_BACK)
        self._withdraw = self._client.register_script(_WITHDRAW)
        self._heartbeat = self._client.register_script(_HEARTBEAT)
        self._missing = self._client.register_script(_MISSING)
        self._restore = self._client.register_script(_RESTORE)
        self.settling_ms = 3_000
        self._dead = self._client.register_script(_DEAD)

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
                calls.append((_PUSH, len(keys), *keys, channel, queue, *batch))
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


# Any: the stubs know the client's answers only as unions of all of them.
def client_of(url: str, **options: Any) -> Any:
    """Return a client for an address.

    Args:
        url: redis://, rediss:// or unix://; or, where Sentinels know which server is the
            master, redis+sentinel://user:password@host:26379,host2:26379/service/0, the
            password being that of the servers; rediss+sentinel:// for TLS to all of them.
        **options: of `redis.Redis`.

    Raises:
        ConfigurationError: the address names no Sentinel, or not which service.
    """
    parts = urlsplit(url)
    if not parts.scheme.endswith("+sentinel"):
        return redis.Redis.from_url(url, **options)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, number = parts.path.strip("/").partition("/")
    if not hosts or not service or not (number or "0").isdecimal():
        raise ConfigurationError(
            "REDIS_URL has no host or no service; with Sentinel it must be "
            "redis+sentinel://host:26379,host2:26379/service/0."
        )
    addresses = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        addresses.append((name.strip("[]") or port, int(port) if name and port else 26379))
    kept = ("socket_connect_timeout", "socket_timeout", "retry")
    own: dict[str, Any] = {key: options[key] for key in kept if key in options}
    # A subscription waits as long as it likes, a Sentinel's answer not.
    own["socket_timeout"] = own.get("socket_timeout") or 2.0
    if parts.scheme == "rediss+sentinel":
        own["ssl"] = options["ssl"] = True
    if login:
        options |= {"username": unquote(user) or None, "password": unquote(password) or None}
    sentinel: Any = redis.Sentinel(addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    return sentinel.master_for(service, db=int(number or 0), **options)


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
