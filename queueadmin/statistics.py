"""Numbers about queues, read from what the ledger counted, never from all its jobs."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Min, Sum
from dramatiq import get_broker

from .clock import now
from .conf import settings
from .ledger import counting, sql
from .models import HourStatistic, MinuteStatistic, Queue
from .models.statistic import BOUNDS_MS, COUNTERS, RUN_BUCKETS, SUMS, WAIT_BUCKETS
from .states import UNFINISHED, DeadLetterStatus, JobState

#: Jobs of one state and queue that are counted; beyond it "more than" is said. Dead ones pile
#: up in every queue at once, and have pages of their own.
COUNT_LIMIT = 10_000
DEAD_LIMIT = 1_000
#: Jobs of one state and queue, and dead letters of one status, that the metrics and the API's
#: statistics count: what machines ask for all the time must cost little whatever the backlog.
POLLED_LIMIT = 500
#: Waiting jobs, first come first, among which the longest due is looked for.
_OLDEST_OF = 50
_MOST_QUEUES = 1_000
#: A minute this long past is over: its outcomes are recorded, but for those of an outage.
_OVER_AFTER = timedelta(minutes=1)
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
_PLACES = (("place", "integer"), ("queue", "text"))
_NUMBERS = (*COUNTERS, *SUMS, *RUN_BUCKETS, *WAIT_BUCKETS)
# What a Flow is made of.
_FLOW = ("completed", "retried", "dead", *RUN_BUCKETS, *WAIT_BUCKETS)


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


def queue_names(pairs: Iterable[tuple[str, JobState]] | None = None) -> list[str]:
    """Return every queue known from the settings, the actors, or staff, or with something to do.

    The last are jobs that nobody consumes perhaps, so they must not be missed.

    Args:
        pairs: what `queues_of_jobs` has just returned, for callers that need it, too.
    """
    names = set(settings.QUEUES) | set(get_broker().get_declared_queues())
    names |= set(Queue.objects.values_list("name", flat=True)[:_MOST_QUEUES])
    return sorted(
        names | {queue for queue, _state in (queues_of_jobs() if pairs is None else pairs)}
    )


def queues_of_jobs() -> set[tuple[str, JobState]]:
    """Return which queues have jobs in which of SHOWN_STATES, with one look at the index each."""
    statement = (
        "WITH RECURSIVE found (state, queue) AS ("  # noqa: S608  # constants only
        "SELECT state, (SELECT MIN(queue) FROM queueadmin_job AS job "
        "WHERE job.state = wanted.state) "
        f"FROM {sql.rows((('state', 'text'),), 'wanted')} UNION ALL "
        "SELECT found.state, (SELECT MIN(queue) FROM queueadmin_job AS job "
        "WHERE job.state = found.state AND job.queue > found.queue) "
        "FROM found WHERE found.queue IS NOT NULL) "
        "SELECT queue, state FROM found WHERE queue IS NOT NULL "
        f"LIMIT {_MOST_QUEUES * len(SHOWN_STATES)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [sql.encode([state.value] for state in SHOWN_STATES)])
        return {(queue, JobState(state)) for queue, state in cursor.fetchall()}


def limit_of(state: JobState) -> int:
    """Return how many jobs of a state are counted per queue."""
    return min(DEAD_LIMIT, COUNT_LIMIT) if state == JobState.DEAD else COUNT_LIMIT


def counts(
    queues: Sequence[str],
    *,
    most: int = COUNT_LIMIT,
    pairs: Container[tuple[str, JobState]] | None = None,
) -> dict[str, dict[JobState, int]]:
    """Return how many jobs of each queue are in each state of SHOWN_STATES.

    One query over the index of states and queues that stops counting beyond `limit_of`, or
    beyond `most` where that is less.

    Args:
        queues: their names.
        most: see above.
        pairs: what `queues_of_jobs` has just returned; nothing else is counted.
    """
    found: dict[str, dict[JobState, int]] = {name: {} for name in queues}
    groups = [
        (
            [
                (name, state.value)
                for name in queues
                for state in states
                if pairs is None or (name, state) in pairs
            ],
            min(limit_of(states[0]), most),
        )
        for states in ([JobState.DEAD], [state for state in SHOWN_STATES if state != JobState.DEAD])
    ]
    for (name, state), count in _counted("queueadmin_job", "state", groups).items():
        found[name][JobState(state)] = count
    return found


def _counted(
    table: str, column: str, groups: Iterable[tuple[Sequence[tuple[str, str]], int]]
) -> dict[tuple[str, str], int]:
    """Count the rows of each queue with each value of a column, each group up to one too many.

    One question for each row of a list of values is planned once; a part of the statement for
    each would be planned as often, which took longer than the counting.
    """
    parts, parameters = [], list[Any]()
    for pairs, most in groups:
        if pairs:
            parts.append(
                "SELECT asked.name, asked.value, "  # noqa: S608  # names of ours
                f"(SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE queue = asked.name "
                f"AND {column} = asked.value LIMIT %s) AS limited) "
                f"FROM {sql.rows((('name', 'text'), ('value', 'text')), 'asked')}"
            )
            parameters += [most + 1, sql.encode(pairs)]
    if not parts:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), parameters)
        return {(queue, value): count for queue, value, count in cursor.fetchall()}


def letters(*, most: int) -> dict[str, dict[DeadLetterStatus, int]]:
    """Return how many dead letters of each queue are in each status, up to one over `most`.

    The queues are those of the index, one look for each; counting stops beyond the limit.
    """
    found: dict[str, dict[DeadLetterStatus, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE found (queue) AS (SELECT MIN(queue) FROM queueadmin_deadletter "
            "UNION ALL SELECT (SELECT MIN(queue) FROM queueadmin_deadletter "
            "WHERE queue > found.queue) FROM found WHERE found.queue IS NOT NULL) "
            "SELECT queue FROM found WHERE queue IS NOT NULL LIMIT %s",
            [_MOST_QUEUES],
        )
        queues = [row[0] for row in cursor.fetchall()]
    pairs = [(queue, status.value) for queue in queues for status in DeadLetterStatus]
    groups = [(pairs, most)]
    for (queue, status), count in _counted("queueadmin_deadletter", "status", groups).items():
        found.setdefault(queue, {})[DeadLetterStatus(status)] = count
    return found


def oldest(queues: Sequence[str]) -> dict[str, datetime]:
    """Return since when the longest waiting job of each queue is due.

    It is looked for among the jobs that were enqueued first; only a queue with hundreds
    of jobs that were scheduled long before hides an older one behind them.
    """
    if not queues:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT place, (SELECT MIN(due_at) FROM (SELECT due_at FROM queueadmin_job AS job "  # noqa: S608
            "WHERE job.state = 'waiting' AND job.queue = wanted.queue "
            f"ORDER BY enqueued_at LIMIT {_OLDEST_OF}) AS some_of) "
            f"FROM {sql.rows(_PLACES, 'wanted')}",
            [sql.encode(enumerate(queues))],
        )
        rows = cursor.fetchall()
    return {queues[place]: sql.moment(due) for place, due in rows if due is not None}


def pending(queues: Sequence[str], *, limit: int = COUNT_LIMIT) -> dict[str, int]:
    """Return how many dead letters of each queue wait for a decision, up to one over `limit`."""
    status = DeadLetterStatus.PENDING.value
    groups = [([(name, status) for name in queues], limit)]
    found = _counted("queueadmin_deadletter", "status", groups)
    return {name: found[name, status] for name in queues}


def unfinished(queues: Sequence[str], *, limit: int) -> dict[tuple[str, str], int]:
    """Return how many jobs of each queue and unfinished state there are, up to one over `limit`."""
    pairs = [(name, state.value) for name in queues for state in UNFINISHED]
    return _counted("queueadmin_job", "state", [(pairs, limit)])


def flows(since: datetime) -> dict[str, Flow]:
    """Return what each queue did since a moment."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT queue, {counting.sums(_FLOW)} FROM queueadmin_minutestatistic "  # noqa: S608
            "WHERE minute >= %s GROUP BY queue",
            [sql.timestamp(since)],
        )
        return {name: _flow(numbers) for name, *numbers in cursor.fetchall()}


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
    """Return the numbers of each queue over the last minutes, in five queries.

    Args:
        queues: their names.
        minutes: how far back.
        steps: of each line; 0 for none, which saves a query.
    """
    names = list(queues)
    since = _minutes_ago(minutes)
    in_state, due = counts(names), oldest(names)
    flow = flows(since)
    line = lines(since, step=timedelta(minutes=minutes) / steps, steps=steps) if steps else {}
    return [
        QueueNumbers(
            name, in_state[name], due.get(name), flow.get(name, Flow()), line.get(name, [])
        )
        for name in names
    ]


def last_hour() -> dict[str, Flow]:
    """Return what each queue did in the last hour."""
    return flows(_minutes_ago(60))


def _minutes_ago(minutes: int) -> datetime:
    """Return the beginning of the first of the last minutes, the present one included."""
    return (now() - timedelta(minutes=minutes - 1)).replace(second=0, microsecond=0)


def fold(broker: object) -> int:
    """Add minutes that are over to the sums since the beginning; a duty of the dispatcher."""
    return counting.fold((now() - _OVER_AFTER).replace(second=0, microsecond=0))


def roll_up() -> int:
    """Add old minutes up to hours and delete them, and very old hours; return how many.

    One transaction per hour of statistics, repeatable at any point: an hour's minutes are
    added and deleted together. Minutes that come after their hour was made, two days late,
    are not counted.
    """
    total = 0
    before = (now() - KEEP_MINUTES).replace(minute=0, second=0, microsecond=0)
    # What is deleted below must be in the sums since the beginning.
    counting.fold(before)
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
    found: Mapping[str, float] = dict(zip(_FLOW, sums, strict=True))
    return Flow(
        int(found["completed"]),
        int(found["retried"]),
        int(found["dead"]),
        [int(found[name]) for name in RUN_BUCKETS],
        [int(found[name]) for name in WAIT_BUCKETS],
    )
