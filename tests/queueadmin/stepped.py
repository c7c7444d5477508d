"""A worker process that takes its steps one by one, so that a test can order and interrupt them.

It is made of the real parts: consumer, worker thread, middleware, recorder and heart. Only
their own threads are not started: each method is one thing that they would do.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import dramatiq
from django.db import connections
from dramatiq.worker import ConsumerThread, WorkerThread

from queueadmin import dispatcher
from queueadmin.recorder import Recorder
from queueadmin.registry import Registration
from queueadmin.scoreboard import Running, Scoreboard
from queueadmin.work_queue import WorkQueue

# Nobody waits so long unless a thread has died.
_PATIENCE = 30.0


class Rejected(Exception):
    """What no repetition mends."""


class _Killed(BaseException):
    """Ends the run of a process that is no more; nobody hears of it."""


#: How a run may end.
ENDINGS: dict[str, Callable[[], BaseException] | None] = {
    "succeed": None,
    "fail": lambda: RuntimeError("failed"),
    "reject": lambda: Rejected("refused"),
}


class Process:
    """One worker process with one thread.

    Args:
        broker: its own; it has the actor of `declare` on each of the queues.
        queues: what it consumes.
    """

    def __init__(self, broker: Any, queues: list[str]) -> None:
        self.broker = broker
        self.is_frozen = False
        #: The job that the thread runs, and under which dispatch.
        self.running: tuple[str, int] | None = None
        self._orders: SimpleQueue[Callable[[], BaseException] | None] = SimpleQueue()
        self._events: SimpleQueue[str] = SimpleQueue()
        self._pool = ThreadPoolExecutor(1)
        # How many messages it fetches at once must not depend on how fast the machine is.
        broker.note_run = lambda queue, duration_ms: None
        broker.scoreboard = Scoreboard.in_memory(1)
        broker.heart = dispatcher.Heart(broker)
        broker.recorder = Recorder(broker, Registration(broker, threads=1, queues=None))
        self._work_queue = broker.work_queue = WorkQueue(lambda queue: 1, lambda queue: 1.0)
        declare(broker, queues, self._act)
        self.beat()
        self._consumers = {queue: self._consume(queue) for queue in queues}
        self._thread = WorkerThread(
            broker=broker,
            consumers=self._consumers,
            work_queue=self._work_queue,
            worker_timeout=1,
        )

    def _consume(self, queue: str) -> ConsumerThread:
        thread = ConsumerThread(
            broker=self.broker,
            queue_name=queue,
            prefetch=2,
            work_queue=self._work_queue,
            worker_timeout=0,
        )
        thread.consumer = self.broker.consume(queue, prefetch=2, timeout=0)
        return thread

    def _act(self) -> None:
        self._events.put("started")
        order = self._orders.get(timeout=_PATIENCE)
        if order is not None:
            raise order()

    # --- Its threads ------------------------------------------------------------------
    def start(self) -> tuple[str, int] | None:
        """Take the next message and begin it; return the job and dispatch whose actor runs."""
        assert self.running is None
        for thread in self._consumers.values():
            if self._work_queue.empty():
                next(thread.consumer)
        if self._work_queue.empty():
            return None
        delivery = self._work_queue.get().message
        self._pool.submit(self._run, delivery)
        if self._events.get(timeout=_PATIENCE) == "started":
            self.running = delivery.message_id, delivery.dispatch
        return self.running

    def _run(self, delivery: Any) -> None:
        try:
            self._thread.process_message(delivery)
        finally:
            self._events.put("ended")

    def finish(self, how: str) -> None:
        """Let the actor return, or raise; the recorder has not looked yet."""
        self._end(ENDINGS[how])

    def _end(self, order: Callable[[], BaseException] | None) -> None:
        assert self.running is not None
        self.running = None
        self._orders.put(order)
        assert self._events.get(timeout=_PATIENCE) == "ended"

    def record(self, *, settles: bool = True) -> None:
        """Commit what has ended; without `settles`, not a word of it to the broker."""
        recorder = self.broker.recorder
        if not recorder._inbox.empty():
            entries, _ = recorder._gather()
            recorder._record(entries, is_last=False)
        if settles:
            recorder._settle_unsettled()

    def show(self) -> None:
        """Show in the ledger what runs."""
        self.broker.recorder._show_active()

    def beat(self) -> None:
        """Send a heartbeat, say what it holds to a server that forgot, and read the controls."""
        self.broker.heart.beat()
        if self.broker.heart.must_restore:
            self.broker.heart.must_restore = False
            dispatcher.restore(self.broker)
        self.broker.controls.refresh()

    # --- What happens to it -----------------------------------------------------------
    def freeze(self) -> None:
        """Stop everything, until everybody takes it for dead."""
        self.is_frozen = True
        self.broker.heart._fresh_until = float("-inf")
        self.broker.transport.declare_dead(self.broker.transport.worker_id)

    def kill(self) -> list[Running]:
        """End it without a word; return what its scoreboard says that it ran."""
        ran: list[Running] = self.broker.scoreboard.running()
        if self.running is not None:
            self._end(_Killed)
        self.broker.transport.declare_dead(self.broker.transport.worker_id)
        self.close()
        return ran

    def close(self) -> None:
        """Leave nothing behind in this process, the test's."""
        if self.running is not None:
            self._end(_Killed)
        self._pool.submit(connections.close_all).result()
        self._pool.shutdown()
        self.broker.close()


def declare(broker: Any, queues: list[str], act: Callable[[], None] = lambda: None) -> None:
    """Give the broker an actor per queue, named as the queue."""
    for queue in queues:
        dramatiq.actor(queue_name=queue, actor_name=queue, broker=broker, throws=Rejected)(
            lambda: act()
        )
