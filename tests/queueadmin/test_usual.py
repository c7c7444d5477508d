"""What is usual: no alarm on the usual nor on tiny samples, an alarm on a real change."""

import random
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueadmin import usual
from queueadmin.models.statistic import BOUNDS_MS
from queueadmin.usual import Finding, Sample

COUNTS = st.integers(0, 5_000)
RATES = st.floats(0, 1)
samples = st.builds(
    lambda attempts, share, same: Sample(attempts, round(attempts * share), (), same),
    COUNTS,
    RATES,
    st.booleans(),
)


def binomial(chance: random.Random, attempts: int, rate: float) -> int:
    return sum(chance.random() < rate for _number in range(attempts))


def days(chance: random.Random, attempts: int, rate: float, number: int = 28) -> list[Sample]:
    return [
        Sample(attempts, binomial(chance, attempts, rate), (), day % 7 == 0)
        for day in range(1, number + 1)
    ]


def runs(chance: random.Random, number: int, middle_ms: float, spread: float = 0.5) -> list[int]:
    """Lengths as they come: most near the middle, a long tail."""
    buckets = [0] * (len(BOUNDS_MS) + 1)
    for _number in range(number):
        buckets[bisect_left(BOUNDS_MS, middle_ms * chance.lognormvariate(0, spread))] += 1
    return buckets


def of_runs(buckets: list[int]) -> Sample:
    return Sample(sum(buckets), 0, buckets)


def is_alarm(finding: Finding | None) -> bool:
    return finding is not None and finding.is_certain


@given(attempts=st.integers(1, 100_000), share=RATES)
def test_the_plausible_rates_include_the_observed_one(attempts: int, share: float) -> None:
    failed = round(attempts * share)

    low, high = usual.wilson(failed, attempts)

    assert 0 <= low <= failed / attempts + 1e-9
    assert failed / attempts - 1e-9 <= high <= 1


@given(attempts=st.integers(1, 10_000), share=RATES, factor=st.integers(2, 10))
def test_more_of_the_same_makes_fewer_rates_plausible(
    attempts: int, share: float, factor: int
) -> None:
    failed = round(attempts * share)
    few, many = usual.wilson(failed, attempts), usual.wilson(failed * factor, attempts * factor)

    assert few[0] <= many[0] + 1e-9
    assert many[1] <= few[1] + 1e-9


def test_the_bounds_are_those_of_the_literature() -> None:
    # 5 of 100 at 95 %, as in every table of Wilson's intervals.
    assert usual.wilson(5, 100, z=1.96) == pytest.approx((0.0215, 0.1118), abs=1e-4)


@given(values=st.lists(st.floats(0, 100), min_size=5, max_size=40), bad=st.floats(1e3, 1e9))
def test_a_few_bad_days_do_not_raise_what_is_usual_without_bound(
    values: list[float], bad: float
) -> None:
    few = len(values) // 4

    assert usual.highest([*values, *[bad] * few]) <= 1_000


@given(present=samples, past=st.lists(samples, max_size=40))
def test_what_is_told_lies_above_what_was_usual(present: Sample, past: list[Sample]) -> None:
    finding = usual.failures(present, past)

    if finding is not None:
        assert finding.value == present.rate
        assert finding.low <= finding.high
        assert finding.value > usual._highest_rate([d for d in past if d.attempts >= 5])


@given(
    attempts=st.integers(0, 10_000),
    share=RATES,
    past=st.lists(samples, max_size=40),
)
def test_a_tiny_sample_is_never_an_alarm(attempts: int, share: float, past: list[Sample]) -> None:
    few_attempts = Sample(min(attempts, 19), round(min(attempts, 19) * share))
    few_failures = Sample(attempts, min(round(attempts * share), 4))

    assert not is_alarm(usual.failures(few_attempts, past))
    assert not is_alarm(usual.failures(few_failures, past))


@given(present=samples, past=st.lists(samples, max_size=4))
def test_without_a_past_nothing_is_unusual(present: Sample, past: list[Sample]) -> None:
    assert usual.failures(present, past) is None
    assert usual.run_times(present, past) is None


@pytest.mark.parametrize("attempts", [5, 12, 40, 300])
@pytest.mark.parametrize("rate", [0.0, 0.005, 0.05, 0.3])
def test_the_usual_is_hardly_ever_an_alarm(attempts: int, rate: float) -> None:
    chance = random.Random(attempts * 1_000 + rate)
    alarms = sum(
        is_alarm(
            usual.failures(
                Sample(attempts * 4, binomial(chance, attempts * 4, rate)),
                days(chance, attempts, rate),
            )
        )
        for _number in range(40)
    )

    assert alarms == 0


def test_a_rise_is_an_alarm_long_before_everything_fails() -> None:
    chance = random.Random(7)
    past = days(chance, 200, 0.01)

    assert is_alarm(usual.failures(Sample(200, 24), past))
    finding = usual.failures(Sample(200, 24), past)
    assert finding is not None
    assert finding.value == pytest.approx(0.12)
    assert finding.high < 0.03


def test_each_hour_is_compared_with_itself() -> None:
    """At night imports fail often; by day the same share is an alarm."""
    chance = random.Random(8)
    night, day = days(chance, 150, 0.2), days(chance, 150, 0.01)
    now = Sample(150, 30)

    assert not is_alarm(usual.failures(now, night))
    assert is_alarm(usual.failures(now, day))


def test_what_happens_every_week_is_no_alarm() -> None:
    chance = random.Random(9)
    past = [
        Sample(200, binomial(chance, 200, 0.25 if sunday else 0.01), (), sunday)
        for sunday in [day % 7 == 0 for day in range(1, 29)]
    ]

    assert not is_alarm(usual.failures(Sample(200, 50), past))


def test_an_outage_of_last_week_is_not_usual_this_week() -> None:
    chance = random.Random(10)
    past = days(chance, 200, 0.01)
    past[3] = past[4] = Sample(200, 200)

    assert is_alarm(usual.failures(Sample(200, 40), past))


@pytest.mark.parametrize("middle_ms", [5, 80, 2_000])
def test_run_times_that_vary_as_usual_are_no_alarm(middle_ms: float) -> None:
    chance = random.Random(middle_ms)
    alarms = 0
    for _number in range(30):
        past = [of_runs(runs(chance, 30, middle_ms)) for _day in range(20)]
        alarms += is_alarm(usual.run_times(of_runs(runs(chance, 60, middle_ms)), past))

    assert alarms == 0


def test_runs_that_take_four_times_as_long_are_an_alarm() -> None:
    chance = random.Random(11)
    past = [of_runs(runs(chance, 30, 80)) for _day in range(20)]

    finding = usual.run_times(of_runs(runs(chance, 60, 320)), past)

    assert finding is not None
    assert finding.is_certain
    assert 200 < finding.value < 500
    assert finding.high < 130


def test_one_very_long_run_is_no_alarm() -> None:
    chance = random.Random(12)
    past = [of_runs(runs(chance, 30, 80)) for _day in range(20)]
    now = runs(chance, 40, 80)
    now[-1] += 1

    assert usual.run_times(of_runs(now), past) is None


def test_short_runs_may_vary_as_they_like() -> None:
    chance = random.Random(13)
    past = [of_runs(runs(chance, 30, 1)) for _day in range(20)]

    assert usual.run_times(of_runs(runs(chance, 60, 10)), past) is None
