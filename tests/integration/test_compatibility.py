"""Existing Dramatiq programs run unchanged on Dramatiq's own broker and on ours."""

import time
from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker as PlainRedisBroker
from dramatiq.middleware import CurrentMessage, GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
from dramatiq.results import ResultFailure, Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from queueadmin.brokers import RedisBroker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["plain", "ours"])
def broker(request: pytest.FixtureRequest, redis_url: str) -> Iterator[dramatiq.Broker]:
    previous = dramatiq.get_broker()
    client = Redis.from_url(redis_url)
    groups = GroupCallbacks(RateLimiterBackend(client=client))
    broker: dramatiq.Broker
    if request.param == "plain":
        broker = PlainRedisBroker(client=client)
        broker.add_middleware(Results(backend=RedisBackend(client=client), store_results=True))
        broker.add_middleware(CurrentMessage())
        broker.add_middleware(groups)
    else:
        broker = RedisBroker(url=redis_url, middleware=[groups])
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)
    broker.close()
    client.close()


@pytest.fixture
def worker(broker: dramatiq.Broker) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=50)
    yield worker
    worker.stop(timeout=5_000)


def test_actors_return_results(worker):
    @dramatiq.actor
    def add(x, y):
        return x + y

    messages = [add.send(number, 1) for number in range(5)]
    worker.start()

    assert [m.get_result(block=True) for m in messages] == [1, 2, 3, 4, 5]


def test_a_failure_reaches_the_caller(worker):
    @dramatiq.actor(max_retries=0)
    def fail():
        raise ValueError("broken")

    message = fail.send()
    worker.start()

    with pytest.raises(ResultFailure, match="ValueError: broken"):
        message.get_result(block=True)


def test_pipelines_feed_each_result_into_the_next_actor(worker):
    @dramatiq.actor
    def add(x, y):
        return x + y

    pipeline = (add.message(1, 2) | add.message(10) | add.message(100)).run()
    worker.start()

    assert pipeline.get_result(block=True) == 113
    assert list(pipeline.get_results(block=True)) == [3, 13, 113]


def test_a_pipeline_with_a_delay_waits_first(worker):
    @dramatiq.actor
    def add(x, y):
        return x + y

    started = time.monotonic()
    pipeline = (add.message(1, 2) | add.message(10)).run(delay=300)
    worker.start()

    assert pipeline.get_result(block=True) == 13
    assert time.monotonic() - started > 0.2


def test_groups_run_all_and_call_back_once(worker):
    called = []

    @dramatiq.actor
    def square(x):
        return x * x

    @dramatiq.actor
    def finished():
        called.append(1)

    group = dramatiq.group([square.message(x) for x in range(4)])
    group.add_completion_callback(finished.message())
    group.run()
    worker.start()

    assert sorted(group.get_results(block=True)) == [0, 1, 4, 9]
    deadline = time.monotonic() + 20
    while not called and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert called == [1]


def test_callbacks_of_success_and_failure_are_enqueued(worker):
    seen = []

    @dramatiq.actor
    def on_success(message, result):
        seen.append(("ok", message["actor_name"], result))

    @dramatiq.actor
    def on_failure(message, error):
        seen.append(("bad", message["actor_name"], error["type"]))

    @dramatiq.actor(max_retries=0)
    def work(fails):
        if fails:
            raise KeyError("x")
        return 5

    for fails in (False, True):
        work.send_with_options(args=(fails,), on_success=on_success, on_failure=on_failure)
    worker.start()

    deadline = time.monotonic() + 20
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(seen) == [("bad", "work", "KeyError"), ("ok", "work", 5)]


def test_an_actor_sees_its_message_and_how_often_it_was_retried(worker):
    retries = []

    @dramatiq.actor(max_retries=2, min_backoff=1, max_backoff=1)
    def work():
        message = CurrentMessage.get_current_message()
        retries.append(message.options.get("retries", 0))
        if len(retries) < 3:
            raise ValueError("again")
        return "done"

    message = work.send()
    worker.start()

    assert message.get_result(block=True, timeout=20_000) == "done"
    assert retries == [0, 1, 2]


def test_async_actors_run(broker, worker):
    from dramatiq.middleware import AsyncIO

    broker.add_middleware(AsyncIO())

    @dramatiq.actor
    async def work(x):
        return x + 1

    message = work.send(1)
    worker.start()

    assert message.get_result(block=True) == 2


def test_join_waits_for_the_queue_and_the_worker(broker, worker):
    done = []

    @dramatiq.actor
    def work(x):
        time.sleep(0.01)
        done.append(x)

    for number in range(20):
        work.send(number)
    worker.start()

    broker.join("default", timeout=10_000)
    worker.join()
    assert sorted(done) == list(range(20))
