"""A broker and workers of our own for each test, on the test's Valkey or Redis."""

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest

from queueadmin.brokers import RedisBroker


@pytest.fixture
def broker(redis_url: str, settings: Any) -> Iterator[RedisBroker]:
    """An empty ledger-backed broker that is Dramatiq's global one during the test."""
    previous = dramatiq.get_broker()
    broker = RedisBroker(url=redis_url, namespace="test")
    # No other process has anything to say when a test empties the server.
    broker.transport.settling_ms = 0
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)
    broker.close()


@pytest.fixture
def start_worker(
    broker: RedisBroker, transactional_db: None
) -> Iterator[Callable[..., dramatiq.Worker]]:
    """Start workers that are stopped when the test ends."""
    workers: list[dramatiq.Worker] = []

    def start(threads: int = 2) -> dramatiq.Worker:
        worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop(timeout=5_000)
