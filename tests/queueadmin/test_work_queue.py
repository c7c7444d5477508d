"""Queues share the threads by their weights, and nobody starves."""

import threading
import time
from collections import Counter
from queue import Empty
from typing import Any, NamedTuple

import dramatiq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueadmin.policies import Policy, Weight
from queueadmin.work_queue import WorkQueue


class _Message(NamedTuple):
    queue_name: str
    priority: int = 1
    number: int = 0


class _Item(NamedTuple):
    message: _Message
    priority: int = 0


def _queue(weights: dict[str, int], costs: dict[str, float] | None = None) -> WorkQueue:
    return WorkQueue(weights.__getitem__, (costs or dict.fromkeys(weights, 1.0)).__getitem__)


@given(
    weights=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 8), min_size=1),
    costs=st.fixed_dictionaries({name: st.floats(0.1, 1000) for name in "abcd"}),
    taken=st.integers(1, 60),
)
def test_backlogged_queues_get_time_in_proportion_to_their_weights(weights, costs, taken):
    queue = _queue(weights, costs)
    for _ in range(60):
        for name in weights:
            queue.put(_Item(_Message(name)))

    served = Counter(queue.get_nowait().message.queue_name for _ in range(taken))

    # The bound of start-time fair queueing: no two queues that both have work are further
    # apart than one job of each.
    time_of = {name: served[name] * costs[name] / weights[name] for name in weights}
    for one in weights:
        for other in weights:
            most = costs[one] / weights[one] + costs[other] / weights[other]
            assert time_of[one] - time_of[other] <= most * 1.000001


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=30))
def test_nothing_is_lost_and_each_queue_keeps_priority_and_order(arrivals):
    queue = _queue({"a": 8, "b": 1})
    for number, (name, priority) in enumerate(arrivals):
        queue.put(_Item(_Message(name, priority, number)))

    served = [queue.get_nowait().message for _ in arrivals]

    for name in "ab":
        own = [(message.priority, message.number) for message in served if message[0] == name]
        assert own == sorted(own)
        assert len(own) == sum(arrival[0] == name for arrival in arrivals)
    assert queue.qsize() == 0


def test_a_queue_that_was_idle_neither_saved_up_nor_fell_behind():
    queue = _queue({"busy": 1, "late": 1})
    for _ in range(100):
        queue.put(_Item(_Message("busy")))
    for _ in range(50):
        queue.get_nowait()
    for _ in range(10):
        queue.put(_Item(_Message("late")))

    served = Counter(queue.get_nowait().message.queue_name for _ in range(10))

    assert served == {"busy": 5, "late": 5}


def test_an_actors_own_priority_goes_before_weights_as_in_plain_dramatiq():
    queue = _queue({"heavy": 8, "light": 1})
    queue.put(_Item(_Message("heavy"), priority=0))
    queue.put(_Item(_Message("light"), priority=-5))

    assert queue.get_nowait().message.queue_name == "light"


@pytest.mark.django_db(transaction=True)
def test_a_worker_serves_the_heavier_queue_more_and_the_lighter_one_too(
    broker: Any, start_worker: Any, settings: Any
):
    settings.QUEUEADMIN = {
        **settings.QUEUEADMIN,
        "QUEUES": {
            "heavy": Policy(weight=Weight.HIGH),
            "light": Policy(weight=Weight.LOW),
            "gate": Policy(),
        },
    }
    started: list[str] = []
    gate, is_open = threading.Event(), threading.Event()

    def hold() -> None:
        gate.set()
        assert is_open.wait(20)

    holding = dramatiq.actor(hold, queue_name="gate", broker=broker)

    def heavy() -> None:
        started.append("heavy")
        time.sleep(0.005)

    def light() -> None:
        started.append("light")
        time.sleep(0.005)

    actors = [
        dramatiq.actor(function, queue_name=function.__name__, broker=broker)
        for function in (heavy, light)
    ]
    # Short ones are fetched in large numbers, so that both queues have work in its hands.
    broker._mean_ms |= {"heavy": 1.0, "light": 1.0}
    start_worker(threads=1)
    holding.send()
    assert gate.wait(20)
    for _ in range(120):
        for actor in actors:
            actor.send()
    wait_for_both(broker)
    is_open.set()
    for actor in actors:
        broker.join(actor.queue_name, timeout=20_000)

    first = Counter(started[:54])
    assert first["light"] >= 1
    assert first["heavy"] > 3 * first["light"]
    assert Counter(started) == {"heavy": 120, "light": 120}


def wait_for_both(broker: Any) -> None:
    deadline = time.monotonic() + 20
    while not all(broker.hand(queue).outstanding >= 50 for queue in ("heavy", "light")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closed_queue_gives_its_threads_nothing_and_all_to_who_drains_it():
    queue = _queue({"a": 8, "b": 1})
    for number, (name, priority) in enumerate([("a", 2), ("b", 1), ("a", 0), ("a", 1)]):
        queue.put(_Item(_Message(name, priority, number)))
    queue.close()
    # By a fetch that was under way.
    queue.put_many([_Item(_Message("b", 0, 4))])

    with pytest.raises(Empty):
        queue.get(timeout=0.01)

    assert [item.message.number for item in queue.drain("a")] == [0, 2, 3]
    # What no consumer drains is given back by Dramatiq, which does not wait for it.
    assert [queue.get_nowait().message.number for _ in range(2)] == [4, 1]
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_close_sends_on_who_waits_for_an_item_and_who_comes_to_wait():
    queue = _queue({"a": 1})
    ended: list[str] = []

    def ask(name: str, timeout: float | None) -> None:
        with pytest.raises(Empty):
            queue.get(timeout=timeout)
        ended.append(name)

    threads = [
        threading.Thread(target=ask, args=("with a limit", 60), daemon=True),
        threading.Thread(target=ask, args=("without", None), daemon=True),
    ]
    for thread in threads:
        thread.start()
    while len(queue.not_empty._waiters) < 2:
        time.sleep(0.01)
    queue.close()
    threads.append(threading.Thread(target=ask, args=("later", 60), daemon=True))
    threads[-1].start()
    for thread in threads:
        thread.join(20)

    assert sorted(ended) == ["later", "with a limit", "without"]


def test_who_waits_gets_what_comes_and_learns_when_nothing_does():
    queue = _queue({"a": 1})
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.append(queue.get(timeout=60).message.number), daemon=True
    )
    thread.start()
    while not queue.not_empty._waiters:
        time.sleep(0.01)
    queue.put_many([_Item(_Message("a", number=7))])
    thread.join(20)

    assert found == [7]
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


def test_who_waits_for_all_to_be_done_does_not_wait_for_what_was_drained():
    queue = _queue({"a": 1})
    queue.put_many([_Item(_Message("a"))] * 3)
    waiting = threading.Thread(target=queue.join, daemon=True)
    waiting.start()

    queue.drain("a")

    waiting.join(5)
    assert not waiting.is_alive()
    assert queue.drain("a") == queue.drain("unknown") == []


def test_each_item_is_started_before_the_close_or_drained_after_it():
    queue = _queue({"a": 1})
    started: list[int] = []

    def start() -> None:
        while True:
            try:
                started.append(queue.get(timeout=0.05).message.number)
            except Empty:
                return

    threads = [threading.Thread(target=start) for _ in range(4)]
    for number in range(2000):
        queue.put(_Item(_Message("a", number=number)))
    for thread in threads:
        thread.start()
    queue.close()
    drained = queue.drain("a")
    at_the_close = queue.qsize()
    for thread in threads:
        thread.join(10)

    assert at_the_close == 0
    assert sorted(started + [item.message.number for item in drained]) == list(range(2000))
