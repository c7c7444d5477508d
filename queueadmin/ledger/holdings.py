"""The accounts of a broker that keeps none: what is held, who lives, what may start.

One row per dispatch that somebody holds. The row decides: whoever inserts it has the message,
and every other copy of it, however often the broker delivers it again, is dropped. A row with
an empty worker says that nobody may take that dispatch any more.

Every change here is one statement that a unique key decides, or a transaction under the lock
of one queue. Times are those of the database: hosts of a fleet do not agree.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection, transaction

from .. import clock
from ..models import Grant, Heartbeat, Holding
from ..policies import Rate
from . import sql
from .dispatching import Parcel

_COLUMNS = (("job", "text"), ("dispatch", "integer"), ("parcel", "text"))
_NAMES = ", ".join(name for name, _ in _COLUMNS)
_INSERT = (
    f"INSERT INTO queueadmin_holding ({_NAMES}, queue, worker, has_slot, taken_ms) "
    f"SELECT {_NAMES}, "
)
# A row that says "nobody" is needed until its job has another number, which takes moments.
_NOBODY_MS = 3_600_000
# First key of the advisory locks, so that they are nobody else's.
_LOCK = 0x71756561


class Copy(NamedTuple):
    """A message of the ledger's that the broker has handed over."""

    job: str
    dispatch: int
    parcel: str

    @property
    def key(self) -> tuple[str, int]:
        """What two copies of one message have in common."""
        return self.job, self.dispatch


Key = tuple[str, int]


def take(queue: str, copies: Sequence[Copy], *, worker: str, has_slot: bool = False) -> set[Key]:
    """Take messages for a worker; return the keys of those that are its own from now on.

    The others are copies of what somebody holds, or of a dispatch that does not count any more.

    The job is looked at by a second statement, which sees what was committed before the rows
    were ours. Whoever raises the dispatch of a job that waits inserts or holds the row of the
    old number first, so from then on nobody can.
    """
    if not copies:
        return set()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"{_INSERT} %s, %s, %s, %s FROM {sql.rows(_COLUMNS, 'o')} "
            "WHERE true ORDER BY job, dispatch "
            "ON CONFLICT (job, dispatch) DO NOTHING RETURNING job, dispatch",
            [queue, worker, has_slot, clock.now_ms(), sql.encode(map(tuple, copies))],
        )
        taken = set(cursor.fetchall())
        if taken:
            cursor.execute(
                f"DELETE FROM queueadmin_holding WHERE {_among()} AND NOT EXISTS "  # noqa: S608
                "(SELECT 1 FROM queueadmin_job j WHERE j.id = queueadmin_holding.job "
                "AND j.dispatch = queueadmin_holding.dispatch "
                f"AND {sql.unindexed('j.state', 'queueadmin_holding.job')} = 'waiting' "
                "AND j.queue = queueadmin_holding.queue) RETURNING job, dispatch",
                [sql.encode(sorted(taken))],
            )
            taken -= set(cursor.fetchall())
    return taken


def drop(worker: str, keys: Iterable[Key]) -> set[Key]:
    """Let a worker go of messages; return the keys of those that it held."""
    wanted = sorted(keys)
    if not wanted:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM queueadmin_holding WHERE {_among()} AND worker = %s "  # noqa: S608
            "RETURNING job, dispatch",
            [sql.encode(wanted), worker],
        )
        return set(cursor.fetchall())


def forbid(parcels: Iterable[Parcel]) -> set[str]:
    """Make sure that nobody takes these dispatches any more; return the ids of those.

    What somebody holds is left alone. Where a claim is made at the same moment, the unique
    key makes one of the two wait for the other, and lose.
    """
    found: set[str] = set()
    by_queue: dict[str, list[Copy]] = defaultdict(list)
    for parcel in parcels:
        by_queue[parcel.queue].append(Copy(parcel.job, parcel.dispatch, parcel.id))
    for queue, copies in sorted(by_queue.items()):
        with connection.cursor() as cursor:
            cursor.execute(
                f"{_INSERT} %s, '', %s, %s FROM {sql.rows(_COLUMNS, 'o')} "
                "WHERE true ORDER BY job, dispatch "
                "ON CONFLICT (job, dispatch) DO UPDATE SET taken_ms = excluded.taken_ms "
                "WHERE queueadmin_holding.worker = '' RETURNING parcel",
                [queue, False, clock.now_ms(), sql.encode(map(tuple, sorted(set(copies))))],
            )
            found.update(row[0] for row in cursor.fetchall())
    return found


def held(worker: str, queue: str | None = None) -> dict[str, list[str]]:
    """Return the ids of messages in a worker's hands, per queue."""
    rows = Holding.objects.filter(worker=worker)
    if queue is not None:
        rows = rows.filter(queue=queue)
    found: dict[str, list[str]] = defaultdict(list)
    for name, parcel in rows.order_by("id").values_list("queue", "parcel"):
        found[name].append(parcel)
    return dict(found)


def number_held(queue: str) -> int:
    """Return how many messages of the queue are in workers' hands."""
    return Holding.objects.filter(queue=queue).exclude(worker="").count()


def unheld(before: datetime, queues: Iterable[str] | None = None) -> dict[str, int]:
    """Count, per queue, jobs that wait, were due before a moment, and are in nobody's hands.

    Each of them should have its message in the broker.
    """
    wanted = None if queues is None else sorted(queues)
    if wanted == []:
        return {}
    chosen = "" if wanted is None else f"AND j.queue IN ({', '.join(['%s'] * len(wanted))}) "
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT j.queue, count(*) FROM queueadmin_job j WHERE j.state = 'waiting' "  # noqa: S608
            f"{chosen}AND j.due_at < %s AND NOT EXISTS (SELECT 1 FROM queueadmin_holding h "
            "WHERE h.job = j.id AND h.dispatch = j.dispatch AND h.worker <> '') GROUP BY j.queue",
            [*(wanted or ()), sql.timestamp(before)],
        )
        return {queue: int(number) for queue, number in cursor.fetchall()}


def in_no_hands(parcels: Iterable[Parcel]) -> tuple[set[Key], set[Key]]:
    """Return the keys of those that nobody holds: jobs that wait, and jobs that run."""
    waiting: set[Key] = set()
    running: set[Key] = set()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT o.job, o.dispatch, j.state FROM {sql.rows(_COLUMNS[:2], 'o')} "  # noqa: S608
            "JOIN queueadmin_job j ON j.id = o.job AND j.dispatch = o.dispatch "
            "LEFT JOIN queueadmin_holding h "
            "ON h.job = o.job AND h.dispatch = o.dispatch AND h.worker <> '' "
            "WHERE h.id IS NULL",
            [sql.encode([parcel[:2] for parcel in parcels])],
        )
        for job, dispatch, state in cursor.fetchall():
            (running if state == "active" else waiting).add((job, dispatch))
    return waiting, running


def tidy() -> int:
    """Remove rows of nobody's that are no longer needed; return how many."""
    old = Holding.objects.filter(worker="", taken_ms__lt=clock.now_ms() - _NOBODY_MS)
    return old.delete()[0]


# --- Limits ---------------------------------------------------------------------------
class Limits(NamedTuple):
    """What holds for a limited queue; at least one of the two is set."""

    queue: str
    concurrency: int | None
    rate: Rate | None

    @property
    def most(self) -> int:
        """How many may start at once if nothing runs and nothing has started."""
        return min(self.concurrency or 2**31, self.rate.limit if self.rate else 2**31)


class Room(NamedTuple):
    """How many may start now, and when the rate may allow more (0: it is not the rate)."""

    starts: int
    wait_ms: int


def room(limits: Limits) -> Room:
    """Return what the limits of a queue leave; exact only under its lock."""
    left, wait_ms = 2**31, 0
    if limits.concurrency:
        slots = Holding.objects.filter(queue=limits.queue, has_slot=True)
        left = limits.concurrency - slots.count()
    if limits.rate is not None:
        now, window = _now_us(), _window_us(limits.rate)
        grants = Grant.objects.filter(queue=limits.queue, at_us__gt=now - window).order_by("at_us")
        granted = list(grants.values_list("at_us", "starts"))
        free = limits.rate.limit - sum(starts for _, starts in granted)
        left = min(left, free)
        if free <= 0:
            wait_ms = max(1, -((now - granted[0][0] - window) // 1000))
    return Room(max(left, 0), wait_ms)


def take_limited(
    limits: Limits, copies: Sequence[Copy], *, worker: str, freed: Sequence[Key] = ()
) -> tuple[set[Key], Sequence[Copy], Room]:
    """Free slots of the worker's, then take what the limits allow.

    Slots and starts are counted and taken under a lock of the queue, so of two workers that
    want the last slot one sees that the other has it.

    Returns:
        The keys taken, the copies for which there was no room, and what room is left.
    """
    with transaction.atomic():
        _lock(limits.queue)
        if freed:
            free_slots(worker, freed)
        before = room(limits)
        taken = take(
            limits.queue,
            copies[: before.starts],
            worker=worker,
            has_slot=bool(limits.concurrency),
        )
        if limits.rate is not None and taken:
            now, window = _now_us(), _window_us(limits.rate)
            Grant.objects.filter(queue=limits.queue, at_us__lte=now - window).delete()
            Grant.objects.create(queue=limits.queue, at_us=now, starts=len(taken))
    left = before._replace(starts=before.starts - len(taken))
    return taken, copies[before.starts :], left


def free_slots(worker: str, keys: Iterable[Key]) -> None:
    """Free the slots of messages that have run and are not settled yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE queueadmin_holding SET has_slot = %s WHERE {_among()} AND worker = %s",  # noqa: S608
            [False, sql.encode(sorted(keys)), worker],
        )


def _window_us(rate: Rate) -> int:
    # An actor starts some milliseconds after its grant; where a late one met the early ones
    # of the next window, the provider behind it would see too many.
    return round((rate.window_ms + min(rate.window_ms * 0.05, 50)) * 1000)


def _lock(queue: str) -> None:
    # On SQLite the transaction itself is the lock: it is opened as the only writer.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCK, queue])


# --- Workers --------------------------------------------------------------------------
def beat(worker: str) -> None:
    """Note that a worker lives."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(worker=worker, seen_ms=_now_ms())],
        update_conflicts=True,
        update_fields=["seen_ms"],
        unique_fields=["worker"],
    )


def silence(worker: str) -> None:
    """Count a worker as silent from now on."""
    Heartbeat.objects.filter(worker=worker).update(seen_ms=0)


def silent(timeout_ms: int) -> list[str]:
    """Return workers that were silent for longer, or hold something and never said a word."""
    known = Heartbeat.objects.all()
    old = known.filter(seen_ms__lt=_now_ms() - timeout_ms).values_list("worker", flat=True)
    strange = (
        Holding.objects.exclude(worker="")
        .exclude(worker__in=known.values("worker"))
        .order_by()
        .values_list("worker", flat=True)
        .distinct()
    )
    return sorted({*old, *strange})


def forget(worker: str, keys: Iterable[Key]) -> None:
    """Remove a worker, and what it held of these."""
    with transaction.atomic():
        drop(worker, keys)
        Heartbeat.objects.filter(worker=worker).delete()


# --- The database's clock ---------------------------------------------------------------
def _now_us() -> int:
    if connection.vendor != "postgresql":
        return time.time_ns() // 1000
    with connection.cursor() as cursor:
        cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(cursor.fetchone()[0])


def _now_ms() -> int:
    return _now_us() // 1000


def _among() -> str:
    """Return the condition that a row is one of the keys in the parameter."""
    rows = sql.rows(_COLUMNS[:2], "o")
    return f"(job, dispatch) IN (SELECT job, dispatch FROM {rows})"  # noqa: S608  # constants
