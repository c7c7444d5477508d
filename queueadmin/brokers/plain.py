"""What plain Dramatiq's Redis broker keeps on the server, for those who come from it or go back.

Keys, under its namespace:
    queue, queue.DQ           list of ids that wait; those of the delay queue have an `eta`
    queue.msgs, queue.DQ.msgs hash of id -> message, until it is acknowledged
    queue.XQ                  sorted set of ids that failed for good, by the time in milliseconds
    queue.XQ.msgs             hash of id -> message of those
    __acks__.{worker}.{queue} set of ids in a worker's hands
    __heartbeats__            sorted set of workers by the time of their last sign, by their clock
and our own
    queue.adopting            list of ids that wait for the ledger; no worker fetches them
    __handed_back__           set of ids that were handed back

Our own broker may use the same namespace: its ids can be told apart, and its workers too.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis

from ..consumer import split
from .redis_client import client_of
from .transport import BrokerUnavailable

# Silence after which plain Dramatiq takes a worker for dead.
_DEAD_AFTER_MS = 60_000
_BATCH = 500
_KEEP_IDS_SECONDS = 30 * 86_400
_WORKER = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# KEYS: list, adopting. ARGV: limit. Moves ids that wait to where no worker fetches them.
_SET_ASIDE = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return 0 end
redis.call('RPUSH', KEYS[2], unpack(ids))
return #ids
"""

# KEYS: acks of a worker, heartbeats, adopting. ARGV: worker, timeout in ms. Takes what a
# worker holds that has been silent for so long; in one step, so that it cannot come back.
_TAKE_BACK = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local seen = redis.call('ZSCORE', KEYS[2], ARGV[1])
if seen and now - tonumber(seen) < tonumber(ARGV[2]) then return 0 end
local ids = redis.call('SMEMBERS', KEYS[1])
for _, id in ipairs(ids) do redis.call('RPUSH', KEYS[3], id) end
redis.call('DEL', KEYS[1])
return #ids
"""

# KEYS: handed back, hash, list. ARGV: seconds to remember, id, data, id, data …
_HAND_BACK = """
for i = 2, #ARGV, 2 do
  if redis.call('SADD', KEYS[1], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    redis.call('RPUSH', KEYS[3], ARGV[i])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Stored(NamedTuple):
    """A message of plain Dramatiq's; when it failed for good, if it did."""

    id: bytes
    data: bytes
    dead_at_ms: float | None = None


class PlainQueues:
    """The queues of plain Dramatiq on one Redis.

    Every method raises BrokerUnavailable when the server does not answer.

    Args:
        url: address of the server, as for our own broker.
        namespace: of its keys.
    """

    #: Each id is taken once, so a batch that was interrupted may come again.
    hands_back_at_once = _BATCH

    def __init__(self, url: str, namespace: str = "dramatiq") -> None:
        self._namespace = namespace
        self._client: Any = client_of(url, socket_connect_timeout=2.0, socket_timeout=10.0)
        self._set_aside = self._client.register_script(_SET_ASIDE)
        self._take_back = self._client.register_script(_TAKE_BACK)
        self._give = self._client.register_script(_HAND_BACK)

    def _key(self, name: str) -> str:
        return f"{self._namespace}:{name}"

    def names(self) -> list[str]:
        """Return the queues that have messages, without their delay queues."""
        found = set()
        with _translated():
            for key in self._client.scan_iter(match=self._key("*.msgs"), count=1000):
                name = key.decode("utf-8", "replace")[len(self._namespace) + 1 : -len(".msgs")]
                found.add(name.removesuffix(".XQ").removesuffix(".DQ"))
        return sorted(found)

    def count(self, queue: str) -> tuple[int, int, int]:
        """Return how many messages wait, are delayed, and failed for good."""
        with _translated():
            waiting, delayed = (self._open(name) for name in (queue, f"{queue}.DQ"))
            return waiting, delayed, int(self._client.zcard(self._key(f"{queue}.XQ")))

    def _open(self, name: str) -> int:
        ids = self._client.hkeys(self._key(f"{name}.msgs"))
        return sum(not _is_ours(each) for each in ids)

    def held(self, queue: str) -> int:
        """Return how many messages of the queue living workers hold."""
        with _translated():
            return sum(
                int(self._client.scard(key))
                for name in (queue, f"{queue}.DQ")
                for key, _ in self._hands(name)
            )

    def _hands(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the sets of what plain Dramatiq's workers hold of a queue, with the workers."""
        prefix = self._key("__acks__.").encode()
        suffix = f".{name}".encode()
        pattern = b"".join(
            b"[%s]" % bytes([c]) if bytes([c]) in b"*?[" else bytes([c]) for c in prefix
        )
        for key in self._client.scan_iter(match=pattern + b"*", count=1000):
            worker = key[len(prefix) : -len(suffix)]
            if key.endswith(suffix) and _WORKER.fullmatch(worker):
                yield key, worker

    def collect(self, queue: str) -> None:
        """Set aside what waits, is delayed, or was held by workers that are dead."""
        with _translated():
            for name in (queue, f"{queue}.DQ"):
                aside = self._key(f"{name}.adopting")
                while self._set_aside(keys=[self._key(name), aside], args=[_BATCH]):
                    pass
                for key, worker in list(self._hands(name)):
                    keys = [key, self._key("__heartbeats__"), aside]
                    self._take_back(keys=keys, args=[worker, _DEAD_AFTER_MS])

    def number_aside(self, queue: str) -> int:
        """Return how many messages `aside` and `dead` are going to yield of a queue."""
        with _translated():
            waiting, delayed = (
                int(self._client.llen(self._key(f"{name}.adopting")))
                for name in (queue, f"{queue}.DQ")
            )
            return waiting + delayed + int(self._client.zcard(self._key(f"{queue}.XQ")))

    def aside(self, name: str) -> Iterator[list[Stored]]:
        """Yield what was set aside of a queue or delay queue, some at a time.

        Each step is dropped when the next is asked for; until then it comes again.
        """
        with _translated():
            while ids := self._client.lrange(self._key(f"{name}.adopting"), 0, _BATCH - 1):
                datas = self._client.hmget(self._key(f"{name}.msgs"), ids)
                # One without data was purged.
                yield [
                    Stored(*each) for each in zip(ids, datas, strict=True) if each[1] is not None
                ]
                with self._client.pipeline(transaction=True) as pipeline:
                    for each in ids:
                        pipeline.lrem(self._key(f"{name}.adopting"), 1, each)
                    pipeline.hdel(self._key(f"{name}.msgs"), *ids)
                    pipeline.execute()

    def dead(self, queue: str) -> Iterator[list[Stored]]:
        """Yield what failed for good, as `aside` does."""
        zset, messages = self._key(f"{queue}.XQ"), self._key(f"{queue}.XQ.msgs")
        with _translated():
            while found := self._client.zrange(zset, 0, _BATCH - 1, withscores=True):
                ids = [each for each, _ in found]
                datas = self._client.hmget(messages, ids)
                yield [
                    Stored(each, data, at)
                    for (each, at), data in zip(found, datas, strict=True)
                    if data is not None
                ]
                with self._client.pipeline(transaction=True) as pipeline:
                    pipeline.zrem(zset, *ids)
                    pipeline.hdel(messages, *ids)
                    pipeline.execute()

    def hand_back(self, name: str, messages: Iterable[tuple[str, bytes]]) -> None:
        """Add messages, as (id, data), to a queue or delay queue; each id once for all times."""
        arguments: list[str | bytes] = [part for message in messages for part in message]
        keys = [self._key(part) for part in ("__handed_back__", f"{name}.msgs", name)]
        with _translated():
            self._give(keys=keys, args=[_KEEP_IDS_SECONDS, *arguments])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the client's errors into the one that callers know."""
    try:
        yield
    except redis.RedisError as error:
        raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error


def _is_ours(message_id: bytes) -> bool:
    return split(message_id.decode("utf-8", "surrogateescape")) is not None
