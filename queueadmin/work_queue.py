"""The order in which a process's threads take fetched jobs: by weight, then by priority.

Weights share the threads' time between queues that have work at the same time, by
start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). Each queue has a virtual
time that advances by a job's expected run time divided by the queue's weight; the queue
that is furthest behind is served next. A queue that had nothing to do joins at the
virtual time of the one served last, so that it can neither save up nor fall behind.
Every queue's virtual time moves on only when it is served, so none starves.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from queue import Empty, Queue
from typing import Any, NamedTuple

#: Threads and consumers of a worker that stops wait no longer than this for anything: Dramatiq
#: tells them to end by a flag that they look at in between.
CLOSED_SECONDS = 0.05


class Item(NamedTuple):
    """What a `WorkQueue` holds; Dramatiq's threads know it by these names."""

    #: The actor's.
    priority: int
    message: Any


@dataclass(slots=True)
class _Lane:
    """What is fetched of one queue."""

    weight: int
    virtual: float = 0.0
    #: (the actor's priority, the message's priority, order of arrival, item)
    heap: list[tuple[int, int, int, Any]] = field(default_factory=list)


class WorkQueue(Queue[Any]):
    """Stands in for the `PriorityQueue` of a `dramatiq.Worker`.

    An actor's own `priority` goes first over all queues, as in plain Dramatiq; it is the
    same for all actors unless somebody sets it. Among equals the weights decide between
    queues and high, normal or low within one. The methods below are called by `Queue`
    under its one lock.

    Once it is closed, worker threads get nothing any more. What is in it, and what a fetch
    that was under way still brings, stays here until its consumer drains it. Start and close
    take the same lock: an item was started before or is drained after, there is no third.

    Args:
        weight_of: a queue's weight, by its name; asked once.
        cost_of: expected run time of a queue's jobs in milliseconds, by its name.
    """

    def __init__(self, weight_of: Callable[[str], int], cost_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._cost_of = cost_of
        #: True when the worker stops: nothing here is to be started.
        self.is_closed = False
        super().__init__()

    def put_many(self, items: Sequence[Item]) -> None:
        """Add items in their order, and wake only as many threads as there are items."""
        with self.mutex:
            for item in items:
                self._put(item)
            self.unfinished_tasks += len(items)
            self.not_empty.notify(len(items))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next item; as in `Queue`, but at once where there is one.

        There is no bound, so nobody waits for room and has to be told of it. After `close`
        only who does not wait gets any: that is Dramatiq, which gives back what is left when
        its threads have ended. Who waits, or comes to wait, is sent on instead: `close` takes
        the lock, so it is seen before the wait or ends it.

        Raises:
            Empty: nothing came in `timeout` seconds, or the queue was closed.
        """
        with self.mutex:
            if self._size and not (block and self.is_closed):
                return self._get()
            if not block:
                raise Empty
            ends = inf if timeout is None else time.monotonic() + timeout
            while not self._size and not self.is_closed:
                left = ends - time.monotonic()
                if left <= 0:
                    raise Empty
                self.not_empty.wait(None if left == inf else left)
            if not self.is_closed:
                return self._get()
            # Not at once: a thread asks again until it has been told to end.
            self.not_empty.wait(min(CLOSED_SECONDS, max(ends - time.monotonic(), 0)))
            raise Empty

    def close(self) -> None:
        """Let no thread take another item, nor wait for one."""
        with self.mutex:
            self.is_closed = True
            self.not_empty.notify_all()

    def drain(self, queue: str) -> list[Any]:
        """Take out all items of one queue, in the order of their arrival."""
        with self.mutex:
            lane = self._busy.pop(queue, None)
            if lane is None:
                return []
            items = [entry[3] for entry in sorted(lane.heap, key=_arrival)]
            lane.heap.clear()
            self._size -= len(items)
            self.unfinished_tasks -= len(items)
            if not self.unfinished_tasks:
                self.all_tasks_done.notify_all()
            return items

    def _init(self, maxsize: int) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._busy: dict[str, _Lane] = {}
        self._served = 0.0
        self._arrival = count()
        self._size = 0

    def _qsize(self) -> int:
        return self._size

    def _put(self, item: Any) -> None:
        message = item.message
        queue = message.queue_name
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = _Lane(max(self._weight_of(queue), 1))
        if not lane.heap:
            lane.virtual = max(lane.virtual, self._served)
            self._busy[queue] = lane
        priority = getattr(message, "priority", 0)
        heappush(lane.heap, (item.priority, priority, next(self._arrival), item))
        self._size += 1

    def _get(self) -> Any:
        queue, lane = min(self._busy.items(), key=_place)
        item = heappop(lane.heap)[3]
        self._served = lane.virtual
        lane.virtual += max(self._cost_of(queue), 0.01) / lane.weight
        if not lane.heap:
            del self._busy[queue]
        self._size -= 1
        return item


def _arrival(entry: tuple[int, int, int, Any]) -> int:
    return entry[2]


def _place(entry: tuple[str, _Lane]) -> tuple[int, float]:
    lane = entry[1]
    return lane.heap[0][0], lane.virtual
