"""A broker and workers of our own for each test, on the test's Valkey or Redis, or RabbitMQ."""

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest

from queueadmin.brokers.base import LedgerBroker
from tests.providers import MakeBroker


@pytest.fixture
def broker(make_broker: MakeBroker, settings: Any) -> Iterator[Any]:
    """An empty ledger-backed broker that is Dramatiq's global one during the test."""
    previous = dramatiq.get_broker()
    broker = make_broker()
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)


@pytest.fixture
def start_worker(
    broker: LedgerBroker, transactional_db: None
) -> Iterator[Callable[..., dramatiq.Worker]]:
    """Start workers that are stopped when the test ends."""
    workers: list[dramatiq.Worker] = []

    def start(threads: int = 2, timeout_ms: int = 100) -> dramatiq.Worker:
        worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=timeout_ms)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop(timeout=5_000)
