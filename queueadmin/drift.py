"""Early warning: queues and actors that fail more, or run longer, than is usual at this hour.

Read from the statistics that the ledger writes anyway; `queueadmin.usual` is the arithmetic.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from django.db.models import QuerySet, Sum
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from . import usual
from .clock import now
from .conditions import Condition, Reading
from .models import Alert, HourStatistic, MinuteStatistic
from .models.statistic import RUN_BUCKETS
from .states import AlertKind
from .usual import Finding, Sample

#: What "now" means: short enough to warn, long enough to count.
PRESENT = timedelta(minutes=30)
DAYS = 28
# Hours of so many days past may still be in minutes.
_DAYS_IN_MINUTES = 3
_COUNTED = ("completed", "retried", "dead", *RUN_BUCKETS)

#: Queue, and actor or nothing for the queue as a whole.
Series = tuple[str, str]
_Sums = dict[Series, list[int]]


def readings() -> Iterator[Reading]:
    """Find what drifts. A queue as a whole is named only where none of its actors stands out."""
    present = _present()
    past = _past(set(present))
    for kind, judge, words in _JUDGES:
        found = {
            series: finding
            for series, sample in present.items()
            if (finding := judge(sample, past.get(series, []))) is not None
        }
        blamed = {queue for (queue, actor), one in found.items() if actor and one.is_certain}
        for (queue, actor), finding in found.items():
            is_explained = not actor and queue in blamed
            what = f"{actor} ({queue})" if actor else queue
            yield Reading(
                kind=kind,
                subject=what,
                queue=queue,
                text=words(what, finding),
                opens=finding.is_certain and not is_explained,
            )


#: Statistics are per minute, so nothing is learned by asking more often.
CONDITION = Condition(
    (AlertKind.FAILURES, AlertKind.RUN_TIME), readings, every=timedelta(minutes=1)
)


def open_alerts() -> "QuerySet[Alert]":
    """Return the open alerts of this kind."""
    return Alert.objects.filter(closed_at=None, kind__in=CONDITION.kinds)


def usual_by_queue() -> dict[str, str]:
    """Say what is usual for this hour for each queue, where enough past hours say so.

    One query of the hours; the last days, which are still in minutes, are left out.
    """
    rows = (
        HourStatistic.objects.filter(hour__in=_hours())
        .order_by()
        .values_list("hour", "queue")
        .annotate(*(Sum(name) for name in _COUNTED))
    )
    past: dict[str, list[Sample]] = defaultdict(list)
    for _hour, queue, *sums in rows:
        past[queue].append(_sample(sums))
    return {queue: words for queue, samples in past.items() if (words := _say_usual(samples))}


def _say_usual(past: Sequence[Sample]) -> str:
    rates, times = usual.ranges(past)
    words = []
    if rates is not None:
        words.append(
            _("%(share)s %% fail") % {"share": _range(*(_percent(share) for share in rates))}
        )
    if times is not None:
        words.append(
            _("half of the runs take under %(time)s")
            % {"time": _range(*(_span(milliseconds) for milliseconds in times))}
        )
    return ", ".join(words)


def _hours() -> dict[datetime, int]:
    """Return the same hour of each of the past days, by the site's clock on the wall."""
    middle = localtime(now() - PRESENT / 2)
    # Wall-clock arithmetic: over a change of summer time 9 o'clock stays 9 o'clock.
    return {
        (middle - timedelta(days=day))
        .astimezone(UTC)
        .replace(minute=0, second=0, microsecond=0): day
        for day in range(1, DAYS + 1)
    }


def _present() -> dict[Series, Sample]:
    since = (now() - PRESENT).replace(second=0, microsecond=0)
    return {
        series: _sample(sums)
        for series, sums in _summed(MinuteStatistic.objects.filter(minute__gte=since)).items()
    }


def _past(wanted: set[Series]) -> dict[Series, list[Sample]]:
    """Return what the wanted did in the same hour of each of the past days."""
    hours = _hours()
    found: dict[tuple[Series, int], list[int]] = {}
    for hour, day in hours.items():
        if day <= _DAYS_IN_MINUTES:
            minutes = MinuteStatistic.objects.filter(
                minute__gte=hour, minute__lt=hour + timedelta(hours=1)
            )
            _add(found, day, _summed(minutes))
    rows = HourStatistic.objects.filter(hour__in=hours).order_by()
    by_hour: dict[datetime, list[tuple[Series, list[int]]]] = defaultdict(list)
    for hour, queue, actor, *sums in rows.values_list("hour", "queue", "actor", *_COUNTED):
        by_hour[hour].append(((queue, actor), sums))
    for hour, rows_of_hour in by_hour.items():
        _add(found, hours[hour], _with_queues(rows_of_hour))
    past: dict[Series, list[Sample]] = defaultdict(list)
    for (series, day), sums in found.items():
        if series in wanted:
            past[series].append(_sample(sums, is_same_weekday=day % 7 == 0))
    return past


def _summed(minutes: "QuerySet[MinuteStatistic]") -> _Sums:
    rows = (
        minutes.order_by().values_list("queue", "actor").annotate(*(Sum(name) for name in _COUNTED))
    )
    return _with_queues(((queue, actor), sums) for queue, actor, *sums in rows)


def _with_queues(rows: Iterable[tuple[Series, list[int]]]) -> _Sums:
    """Return the rows, and for each queue their sum."""
    found: _Sums = {}
    for (queue, actor), sums in rows:
        found[queue, actor] = sums
        whole = found.get((queue, ""))
        found[queue, ""] = [a + b for a, b in zip(whole, sums, strict=True)] if whole else sums
    return found


def _add(found: dict[tuple[Series, int], list[int]], day: int, sums: _Sums) -> None:
    for series, numbers in sums.items():
        there = found.get((series, day))
        found[series, day] = (
            [a + b for a, b in zip(there, numbers, strict=True)] if there else numbers
        )


def _sample(sums: Sequence[int], *, is_same_weekday: bool = False) -> Sample:
    completed, retried, dead, *runs = map(int, sums)
    return Sample(
        attempts=completed + retried + dead,
        failed=retried + dead,
        runs=runs,
        is_same_weekday=is_same_weekday,
    )


def _say_failures(what: str, finding: Finding) -> str:
    return _("%(what)s: failures %(now)s %% — usual for this hour %(usual)s %%") % {
        "what": what,
        "now": _percent(finding.value),
        "usual": _range(_percent(finding.low), _percent(finding.high)),
    }


def _say_run_times(what: str, finding: Finding) -> str:
    return _("%(what)s: half of the runs take over %(now)s — usual for this hour %(usual)s") % {
        "what": what,
        "now": _span(finding.value),
        "usual": _range(_span(finding.low), _span(finding.high)),
    }


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low}–{high}"


def _percent(share: float) -> str:
    number = 100 * share
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")


def _span(milliseconds: float) -> str:
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1_000:.1f} s"


_JUDGES: tuple[
    tuple[
        AlertKind,
        Callable[[Sample, Sequence[Sample]], Finding | None],
        Callable[[str, Finding], str],
    ],
    ...,
] = (
    (AlertKind.FAILURES, usual.failures, _say_failures),
    (AlertKind.RUN_TIME, usual.run_times, _say_run_times),
)
