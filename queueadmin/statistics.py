"""Numbers about queues, read from what the ledger counted, never from all its jobs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Min, Sum
from dramatiq import get_broker

from .clock import now
from .conf import settings
from .models import HourStatistic, MinuteStatistic, Queue
from .models.statistic import BOUNDS_MS, COUNTERS, RUN_BUCKETS, SUMS, WAIT_BUCKETS
from .states import JobState

#: Jobs of one state and queue that are counted; beyond it "more than" is said. Dead ones pile
#: up in every queue at once, and have pages of their own.
COUNT_LIMIT = 10_000
DEAD_LIMIT = 1_000
#: Waiting jobs, first come first, among which the longest due is looked for.
_OLDEST_OF = 200
_MOST_QUEUES = 1_000
#: Minutes are kept this long, then they are added up to hours.
KEEP_MINUTES = timedelta(hours=48)
KEEP_HOURS = timedelta(days=60)
SHOWN_STATES = (
    JobState.WAITING,
    JobState.ACTIVE,
    JobState.SCHEDULED,
    JobState.RETRYING,
    JobState.DEAD,
)
_NUMBERS = (*COUNTERS, *SUMS, *RUN_BUCKETS, *WAIT_BUCKETS)


@dataclass(frozen=True, slots=True)
class Flow:
    """What a queue did in a length of time."""

    completed: int = 0
    retried: int = 0
    dead: int = 0
    run: Sequence[int] = ()
    wait: Sequence[int] = ()

    @property
    def attempts(self) -> int:
        """Attempts that ended by themselves."""
        return self.completed + self.retried + self.dead

    @property
    def failed_percent(self) -> float | None:
        """Share of attempts that failed; None without attempts."""
        failed = self.retried + self.dead
        return 100 * failed / self.attempts if self.attempts else None

    def run_at(self, share: float) -> timedelta | None:
        """Return the run time that `share` of the runs did not exceed."""
        return percentile(self.run, share)

    def wait_at(self, share: float) -> timedelta | None:
        """Return the waiting time that `share` of the jobs did not exceed."""
        return percentile(self.wait, share)


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a sparkline."""

    at: datetime
    completed: int = 0
    failed: int = 0


@dataclass(slots=True)
class QueueNumbers:
    """Everything the overview says of one queue."""

    name: str
    counts: dict[JobState, int] = field(default_factory=dict)
    oldest_due_at: datetime | None = None
    flow: Flow = Flow()
    line: list[Point] = field(default_factory=list)


def percentile(buckets: Sequence[int], share: float) -> timedelta | None:
    """Return the time that `share` (0 to 1) of what was counted did not exceed.

    Inside a bucket the times are taken as evenly spread. What is longer than the last
    bound counts as the last bound.
    """
    total = sum(buckets)
    if not total:
        return None
    wanted, seen, lower = share * total, 0, 0.0
    for count, upper in zip(buckets, BOUNDS_MS, strict=False):
        if count and seen + count >= wanted:
            inside = (wanted - seen) / count
            return timedelta(milliseconds=lower + (upper - lower) * inside)
        seen += count
        lower = upper
    return timedelta(milliseconds=BOUNDS_MS[-1])


def queue_names() -> list[str]:
    """Return every queue known from the settings, the actors, or staff, or with something to do.

    The last are jobs that nobody consumes perhaps, so they must not be missed.
    """
    names = set(settings.QUEUES) | set(get_broker().get_declared_queues())
    names |= set(Queue.objects.values_list("name", flat=True)[:_MOST_QUEUES])
    return sorted(names | _queues_of_jobs())


def _queues_of_jobs() -> set[str]:
    """Return the queues of jobs in SHOWN_STATES, with one look at the index for each."""
    part = (
        "SELECT * FROM (WITH RECURSIVE found (queue) AS ("
        "SELECT MIN(queue) FROM queueadmin_job WHERE state = %s UNION ALL "
        "SELECT (SELECT MIN(queue) FROM queueadmin_job WHERE state = %s AND queue > found.queue) "
        "FROM found WHERE found.queue IS NOT NULL) "
        "SELECT queue FROM found WHERE queue IS NOT NULL LIMIT %s) AS some_{}"
    )
    parameters: list[Any] = []
    for state in SHOWN_STATES:
        parameters += [state.value, state.value, _MOST_QUEUES]
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ".join(part.format(number) for number in range(len(SHOWN_STATES))), parameters
        )
        return {row[0] for row in cursor.fetchall()}


def limit_of(state: JobState) -> int:
    """Return how many jobs of a state are counted per queue."""
    return min(DEAD_LIMIT, COUNT_LIMIT) if state == JobState.DEAD else COUNT_LIMIT


def counts(queues: Sequence[str]) -> dict[str, dict[JobState, int]]:
    """Return how many jobs of each queue are in each state of SHOWN_STATES.

    One query over the index of states and queues that stops counting beyond `limit_of`.
    """
    found: dict[str, dict[JobState, int]] = {name: {} for name in queues}
    pairs = [(index, name, state) for index, name in enumerate(queues) for state in SHOWN_STATES]
    if not pairs:
        return found
    part = (
        "SELECT {} AS place, %s AS state, COUNT(*) FROM (SELECT 1 FROM queueadmin_job "
        "WHERE state = %s AND queue = %s LIMIT %s) AS some_{}"
    )
    statement = " UNION ALL ".join(
        part.format(pair[0], number) for number, pair in enumerate(pairs)
    )
    parameters: list[Any] = []
    for _index, name, state in pairs:
        parameters += [state.value, state.value, name, limit_of(state) + 1]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        for place, state, count in cursor.fetchall():
            found[queues[place]][JobState(state)] = count
    return found


def oldest(queues: Sequence[str]) -> dict[str, datetime]:
    """Return since when the longest waiting job of each queue is due.

    It is looked for among the jobs that were enqueued first; only a queue with hundreds
    of jobs that were scheduled long before hides an older one behind them.
    """
    if not queues:
        return {}
    part = (
        "SELECT {0} AS place, MIN(due_at) FROM (SELECT due_at FROM queueadmin_job "
        "WHERE state = 'waiting' AND queue = %s ORDER BY enqueued_at LIMIT %s) AS some_{0}"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(part.format(index) for index in range(len(queues))),
            [value for name in queues for value in (name, _OLDEST_OF)],
        )
        rows = cursor.fetchall()
    return {queues[place]: _moment(due) for place, due in rows if due is not None}


def flows(since: datetime, *, by: str = "queue") -> dict[str, Flow]:
    """Return what each queue (or actor, with `by`) did since a moment."""
    rows = (
        MinuteStatistic.objects.filter(minute__gte=since)
        .order_by()
        .values_list(by)
        .annotate(*(Sum(name) for name in _NUMBERS))
    )
    return {row[0]: _flow(row[1:]) for row in rows}


def lines(since: datetime, *, step: timedelta, steps: int) -> dict[str, list[Point]]:
    """Return completed and failed attempts of each queue in equal steps from `since`."""
    rows = (
        MinuteStatistic.objects.filter(minute__gte=since)
        .order_by()
        .values_list("queue", "minute")
        .annotate(Sum("completed"), Sum("retried"), Sum("dead"))
    )
    found: dict[str, list[list[int]]] = {}
    for queue, minute, completed, retried, dead in rows:
        points = found.setdefault(queue, [[0, 0] for _ in range(steps)])
        place = min(int((minute - since) / step), steps - 1)
        points[place][0] += completed
        points[place][1] += retried + dead
    return {
        queue: [Point(since + step * place, *numbers) for place, numbers in enumerate(points)]
        for queue, points in found.items()
    }


def overview(queues: Iterable[str], *, minutes: int = 60, steps: int = 30) -> list[QueueNumbers]:
    """Return the numbers of each queue over the last minutes, in five queries."""
    names = list(queues)
    since = (now() - timedelta(minutes=minutes - 1)).replace(second=0, microsecond=0)
    in_state, due = counts(names), oldest(names)
    flow, line = flows(since), lines(since, step=timedelta(minutes=minutes) / steps, steps=steps)
    return [
        QueueNumbers(
            name, in_state[name], due.get(name), flow.get(name, Flow()), line.get(name, [])
        )
        for name in names
    ]


def roll_up() -> int:
    """Add old minutes up to hours and delete them, and very old hours; return how many.

    One transaction per hour of statistics, repeatable at any point: an hour's minutes are
    added and deleted together. Minutes that come after their hour was made, two days late,
    are not counted.
    """
    total = 0
    before = (now() - KEEP_MINUTES).replace(minute=0, second=0, microsecond=0)
    while first := MinuteStatistic.objects.filter(minute__lt=before).aggregate(at=Min("minute"))[
        "at"
    ]:
        hour = first.replace(minute=0, second=0, microsecond=0)
        rows = MinuteStatistic.objects.filter(
            minute__gte=hour, minute__lt=hour + timedelta(hours=1)
        )
        with transaction.atomic():
            # Locked, so that a second run of this waits, and then finds nothing.
            list(rows.select_for_update().order_by("pk").values_list("pk", flat=True))
            sums: Any = (
                rows.order_by()
                .values("queue", "actor")
                .annotate(**{f"total_{name}": Sum(name) for name in _NUMBERS})
            )
            HourStatistic.objects.bulk_create(
                (
                    HourStatistic(
                        hour=hour,
                        queue=row["queue"],
                        actor=row["actor"],
                        **{name: row[f"total_{name}"] for name in _NUMBERS},
                    )
                    for row in sums
                ),
                batch_size=500,
                ignore_conflicts=True,
            )
            deleted, _ = rows.delete()
        total += deleted
    deleted, _ = HourStatistic.objects.filter(hour__lt=now() - KEEP_HOURS).delete()
    return total + deleted


def _flow(sums: Sequence[float]) -> Flow:
    found: Mapping[str, float] = dict(zip(_NUMBERS, sums, strict=True))
    return Flow(
        int(found["completed"]),
        int(found["retried"]),
        int(found["dead"]),
        [int(found[name]) for name in RUN_BUCKETS],
        [int(found[name]) for name in WAIT_BUCKETS],
    )


def _moment(value: object) -> datetime:
    """Return a time of a raw query; SQLite answers with text."""
    if isinstance(value, datetime):
        return value
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)
