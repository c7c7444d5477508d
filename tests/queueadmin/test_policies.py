"""The arithmetic of backoff, and every queue's row of the policy table."""

from itertools import pairwise

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from config.queues import QUEUES
from queueadmin.policies import (
    MAX_DELAY_MS,
    Backoff,
    Policy,
    Rate,
    Weight,
    explicit,
    exponential,
    fixed,
)


def test_exponential_doubles_each_wait():
    assert Policy(attempts=5, backoff=exponential(5)).schedule_ms() == [5000, 10000, 20000, 40000]


def test_fixed_keeps_the_wait():
    assert Policy(attempts=4, backoff=fixed(10)).schedule_ms() == [10000, 10000, 10000]


def test_explicit_list_is_used_in_order_and_its_last_wait_repeats():
    policy = Policy(attempts=5, backoff=explicit([5, 15, 45]))

    assert policy.schedule_ms() == [5000, 15000, 45000, 45000]


@given(first=st.integers(0, 10**9), factor=st.integers(1, 10), failures=st.integers(1, 10**6))
def test_a_wait_never_shrinks_and_never_leaves_the_calendar(first, factor, failures):
    backoff = Backoff((first,), factor)

    assert 0 <= backoff.delay_ms(failures) <= backoff.delay_ms(failures + 1) <= MAX_DELAY_MS


@given(jitter=st.floats(0, 1), failures=st.integers(1, 30))
def test_jitter_only_shortens_and_by_no_more_than_its_share(jitter, failures):
    exact = exponential(5).delay_ms(failures)

    delay = exponential(5, jitter=jitter).delay_ms(failures)

    assert exact * (1 - jitter) - 1 <= delay <= exact


@pytest.mark.parametrize(
    "make",
    [
        lambda: Policy(attempts=0),
        lambda: Policy(time_limit=0),
        lambda: Policy(concurrency=0),
        lambda: Rate(0, 1000),
        lambda: Backoff(()),
        lambda: Backoff((-1,)),
        lambda: fixed(1, jitter=1.5),
    ],
)
def test_a_value_out_of_range_is_refused(make):
    with pytest.raises(ImproperlyConfigured):
        make()


def test_failures_count_from_one():
    with pytest.raises(ValueError, match="counts from 1"):
        fixed(1).delay_ms(0)


# Queue, concurrency, time limit in s, attempts, waits in s, rate, weight: the table of the
# system's specification, written out once more so that a slip in the settings shows.
_TABLE = [
    ("order-processing", 5, 120, [5, 10], "100 / min", Weight.HIGH),
    ("order-routing", 3, 60, [5, 10], None, Weight.HIGH),
    ("vendor-fallback", 2, 60, [3, 6], "20 / min", Weight.HIGH),
    ("order-expiry", 3, 60, [5], "50 / min", Weight.MEDIUM),
    ("whatsapp-messages", 10, 30, [5, 10, 20, 40], "50 / s", Weight.MEDIUM_HIGH),
    ("email-notifications", 5, 30, [2, 4], "10 / s", Weight.MEDIUM),
    ("sms-notifications", 5, 30, [2, 4], "10 / s", Weight.MEDIUM),
    ("payment-reminders", 5, 30, [5, 10], None, Weight.MEDIUM),
    ("booking-reminders", 5, 30, [5, 10], None, Weight.MEDIUM),
    ("credit-score-calculation", 3, 90, [5, 10], None, Weight.MEDIUM_HIGH),
    ("credit-reconciliation", 2, 120, [5, 10], "30 / min", Weight.MEDIUM),
    ("image-processing", 2, 300, [5, 10], None, Weight.MEDIUM),
    ("report-generation", 1, 600, [5, 10], None, Weight.LOW),
    ("daily-reports", 1, 600, [10], "10 / min", Weight.LOW),
    ("data-cleanup", 1, 600, [5, 10], None, Weight.LOW),
]


@pytest.mark.parametrize(("queue", "concurrency", "limit", "waits", "rate", "weight"), _TABLE)
def test_queue_follows_its_row_of_the_table(queue, concurrency, limit, waits, rate, weight):
    policy = QUEUES[queue]

    assert policy.concurrency == concurrency
    assert policy.time_limit == limit
    assert policy.schedule_ms() == [wait * 1000 for wait in waits]
    assert policy.attempts == len(waits) + 1
    assert (str(policy.rate) if policy.rate else None) == rate
    assert policy.weight == weight


def test_the_table_names_every_queue():
    # The messages of the console about the others are its own addition.
    assert {*(row[0] for row in _TABLE), "alerts"} == set(QUEUES)


@given(
    delays=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    factor=st.integers(1, 4),
    attempts=st.integers(1, 12),
)
def test_a_schedule_lists_the_waits_and_then_multiplies_the_last(delays, factor, attempts):
    policy = Policy(attempts=attempts, backoff=Backoff(tuple(delays), factor, jitter=1.0))

    schedule = policy.schedule_ms()

    assert len(schedule) == attempts - 1
    assert schedule[: len(delays)] == delays[: attempts - 1]
    for before, after in pairwise(schedule[len(delays) - 1 :]):
        assert after == min(before * factor, MAX_DELAY_MS)


@given(limit=st.integers(-5, 10**6), window_ms=st.integers(-5, 10**8))
def test_a_rate_is_positive_or_refused_and_says_what_it_is(limit, window_ms):
    if limit < 1 or window_ms < 1:
        with pytest.raises(ImproperlyConfigured, match="positive"):
            Rate(limit, window_ms)
        return

    assert str(Rate(limit, window_ms)).startswith(f"{limit} / ")


@given(
    attempts=st.none() | st.integers(-3, 50),
    time_limit=st.floats(-10, 10**6, allow_nan=False),
    concurrency=st.none() | st.integers(-3, 50),
)
def test_a_policy_is_in_range_or_refused(attempts, time_limit, concurrency):
    is_valid = (attempts is None or attempts > 0) and time_limit > 0
    is_valid = is_valid and (concurrency is None or concurrency > 0)
    try:
        policy = Policy(attempts=attempts, time_limit=time_limit, concurrency=concurrency)
    except ImproperlyConfigured:
        assert not is_valid
    else:
        assert is_valid
        assert len(policy.schedule_ms()) == (attempts or 1) - 1
