"""The limiter grants no more than it may, whoever asks in whatever order, by the server's clock."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from benchmarks.fleet import most_in_window
from queueadmin.brokers.redis import RedisTransport
from queueadmin.controls import Control
from queueadmin.ledger import Parcel
from queueadmin.policies import Rate


@pytest.fixture
def workers(redis_url: str) -> Any:
    """Return two connections, as two worker processes have them."""
    both = [RedisTransport(redis_url, "limiter") for _ in range(2)]
    yield both
    for transport in both:
        transport.close()


def parcels(count: int) -> list[Parcel]:
    return [Parcel(f"job-{number}", 1, "q", number % 3, b"{}") for number in range(count)]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    limit=st.integers(1, 12),
    window_ms=st.integers(5, 60),
    asked=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 25), st.integers(0, 12)),
        min_size=1,
        max_size=15,
    ),
)
def test_no_window_holds_more_grants_than_the_rate(workers, limit, window_ms, asked):
    workers[0]._client.flushdb()
    workers[0].push(parcels(200))
    control = Control(rate=Rate(limit, window_ms))
    log: dict[bytes, float] = {}
    taken: list[str] = []
    late: set[str] = set()

    for worker, pause_ms, room in asked:
        time.sleep(pause_ms / 1000)  # the arrival pattern under test
        begun = time.monotonic()
        found, wait_ms = workers[worker].fetch_limited("q", room, control, [])
        taken += [parcel_id for parcel_id, _ in found]
        # What the server noted, before a later call may drop it.
        log.update(workers[0]._client.zrange("limiter:q.grants", 0, -1, withscores=True))
        if time.monotonic() - begun > window_ms / 1000:
            # On a busy machine: the server forgets all of them after twice the window.
            late.update(parcel_id for parcel_id, _ in found)
        assert len(found) <= min(room, limit)
        assert 0 <= wait_ms <= window_ms * 1.05 + 1

    assert len(set(taken)) == len(taken)
    noted = {member.decode().partition(":")[2] for member in log}
    assert set(taken) - late <= noted <= set(taken)
    assert most_in_window(list(log.values()), window_ms * 1000) <= limit


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(limit=st.integers(1, 8), window_ms=st.integers(5, 30))
def test_waiting_as_long_as_told_is_enough(redis_url, limit, window_ms):
    transport = RedisTransport(redis_url, "limiter")
    transport._client.flushdb()
    transport.push(parcels(limit * 3))
    control = Control(rate=Rate(limit, window_ms))

    started, has_waited = 0, False
    while started < limit * 3:
        found, wait_ms = transport.fetch_limited("q", 100, control, [])
        # However slow this process is: who has waited as long as told gets something.
        assert found or not has_waited
        started += len(found)
        has_waited = not found
        time.sleep(wait_ms / 1000 if has_waited else 0)  # as a consumer does
    transport.close()


class SlotMachine(RuleBasedStateMachine):
    """Two workers on one queue whose concurrency changes at run time, beside a model."""

    workers: list[RedisTransport] = []

    @initialize()
    def empty(self) -> None:
        self.workers[0]._client.flushdb()
        self.waiting = 0
        self.pushed = 0
        #: Messages that run, and those that have run and are not settled, by worker.
        self.running: list[set[str]] = [set(), set()]
        self.ran: list[set[str]] = [set(), set()]

    @rule(count=st.integers(1, 8))
    def push(self, count: int) -> None:
        numbers = range(self.pushed, self.pushed + count)
        self.workers[0].push([Parcel(f"job-{n}", 1, "q", n % 3, b"{}") for n in numbers])
        self.pushed += count
        self.waiting += count

    @rule(worker=st.integers(0, 1), room=st.integers(0, 9), concurrency=st.integers(1, 6))
    def fetch(self, worker: int, room: int, concurrency: int) -> None:
        control = Control(concurrency=concurrency)
        busy = sum(map(len, self.running))

        found, _ = self.workers[worker].fetch_limited("q", room, control, [])

        taken = {parcel_id for parcel_id, _ in found}
        assert len(taken) == min(room, max(concurrency - busy, 0), self.waiting)
        assert not taken & (self.running[0] | self.running[1] | self.ran[0] | self.ran[1])
        self.running[worker] |= taken
        self.waiting -= len(taken)

    @rule(worker=st.integers(0, 1), concurrency=st.integers(1, 6))
    def finish_and_fetch_the_next(self, worker: int, concurrency: int) -> None:
        if not self.running[worker]:
            return
        done = min(self.running[worker])
        self.running[worker].remove(done)
        self.ran[worker].add(done)
        busy = sum(map(len, self.running))

        found, _ = self.workers[worker].fetch_limited(
            "q", 1, Control(concurrency=concurrency), [done]
        )

        assert len(found) == min(1, max(concurrency - busy, 0), self.waiting)
        self.running[worker] |= {parcel_id for parcel_id, _ in found}
        self.waiting -= len(found)

    @rule(worker=st.integers(0, 1))
    def settle(self, worker: int) -> None:
        """The outcome is committed, whether or not the slot was freed before."""
        done = self.ran[worker] or set(sorted(self.running[worker])[:1])
        self.workers[worker].settle({"q": sorted(done)} if done else {}, [])
        self.ran[worker] -= done
        self.running[worker] -= done

    @rule(worker=st.integers(0, 1))
    def give_back(self, worker: int) -> None:
        back = sorted(self.running[worker])
        self.workers[worker].give_back("q", [(parcel_id, 1) for parcel_id in back])
        self.waiting += len(back)
        self.running[worker] = set()

    @rule(worker=st.integers(0, 1))
    def die(self, worker: int) -> None:
        """Another process takes over what a dead one held; its slots are free again."""
        transport = self.workers[worker]
        transport.forget(transport.worker_id, transport.held_by(transport.worker_id))
        self.running[worker], self.ran[worker] = set(), set()

    @invariant()
    def slots_are_what_runs(self) -> None:
        slots = self.workers[0]._client.hkeys("limiter:q.slots")
        assert {slot.decode() for slot in slots} == self.running[0] | self.running[1]


def test_slots_never_exceed_the_concurrency_and_none_is_lost(workers):
    SlotMachine.workers = workers
    run_state_machine_as_test(
        SlotMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
