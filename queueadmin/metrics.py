"""Metrics for Prometheus: `path("metrics", queueadmin.metrics.metrics)`.

Nothing is kept in this process, so any web process answers alike. Counters and histograms are
sums that the workers have written: outcomes with the commit that recorded them, what a worker
measures of itself with its row of the registry. No row of these is deleted without being added
to another one in the same transaction, so the sums never fall: not when statistics are added up
to hours or removed by retention, and not when processes end. Gauges are read when asked for, by
indexes and up to a bound; jobs as a whole are never counted.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from functools import cache
from ipaddress import ip_address, ip_network

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import ledger, meters, statistics, workers
from .clock import now
from .conf import settings
from .exposition import CONTENT_TYPES, TEXT, Family, render
from .ledger import counting
from .models import Queue, RecoveryRun, RetiredCounters, Worker
from .models.statistic import BOUNDS_MS, COUNTERS, DEATHS, RUN_BUCKETS, SUMS, WAIT_BUCKETS
from .states import UNFINISHED, Outcome

logger = logging.getLogger(__name__)

_OUTCOMES = {
    "completed": Outcome.COMPLETED,
    "retried": Outcome.RETRYING,
    "dead": Outcome.DEAD,
    "cancelled": Outcome.CANCELLED,
    "returned": Outcome.RETURNED,
}
_NUMBERS = (*COUNTERS, *SUMS, *RUN_BUCKETS, *WAIT_BUCKETS, *DEATHS)
_SECONDS = [bound / 1000 for bound in BOUNDS_MS]
_BY_ACTOR = ("queue", "actor")


# A host with ATOMIC_REQUESTS would ask the database before the view is called.
@transaction.non_atomic_requests
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus: 200, 401 without the token, 403 for others, 503 without a database."""
    if (refusal := _refusal(request)) is not None:
        return refusal
    accepted = (f"{each.main_type}/{each.sub_type}" for each in request.accepted_types)
    form = next((each for each in accepted if each in CONTENT_TYPES), TEXT)
    try:
        return HttpResponse(render(collect(), form), content_type=CONTENT_TYPES[form])
    except (DatabaseError, InterfaceError) as error:
        logger.warning("No metrics: %s", error)
        return _plain("The database is away.", 503)


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Return why the caller gets nothing, None for one who may read."""
    token, networks = settings.METRICS_TOKEN, settings.METRICS_ADDRESSES
    if not token and not networks:
        return _plain(
            "Metrics are off. Set METRICS_TOKEN or METRICS_ADDRESSES in the setting QUEUEADMIN.",
            403,
        )
    if _is_among(request.META.get("REMOTE_ADDR", ""), networks):
        return None
    if not token:
        return _plain("This address may not read metrics; see METRICS_ADDRESSES.", 403)
    if constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {token}"):
        return None
    refusal = _plain("Send the token: Authorization: Bearer …", 401)
    refusal["WWW-Authenticate"] = 'Bearer realm="metrics"'
    return refusal


def _is_among(address: str, networks: Sequence[str]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False  # a socket has no address
    # A server that listens on both kinds says so of an address of the older one.
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ip_network(network) for network in networks)


def _plain(text: str, status: int) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")


def collect() -> Iterable[Family]:
    """Return all there is to say, read afresh; what has no sample is named all the same."""
    began = time.perf_counter()
    yield from [*_of_actors(), *_of_queues(), *_of_workers(), *_of_dispatching()]
    took = Family("queueadmin_scrape_seconds", "gauge", "How long it took to read these metrics.")
    took.add(time.perf_counter() - began)
    yield took


def _of_actors() -> Iterable[Family]:
    attempts = Family(
        "queueadmin_attempts",
        "counter",
        "Runs by how they ended; retrying ones are the retries.",
        (*_BY_ACTOR, "outcome"),
    )
    deaths = Family(
        "queueadmin_dead_letters", "counter", "Jobs that failed for good.", (*_BY_ACTOR, "reason")
    )
    runs = Family("queueadmin_run_seconds", "histogram", "Run time of attempts.", _BY_ACTOR)
    waits = Family(
        "queueadmin_wait_seconds",
        "histogram",
        "Time from when a job was due to the start of its last attempt.",
        _BY_ACTOR,
    )
    for (queue, actor), row in sorted(_totals().items()):
        for name, outcome in _OUTCOMES.items():
            attempts.add(row[name], queue, actor, outcome.value)
        for name in DEATHS:
            if row[name]:
                deaths.add(row[name], queue, actor, name.removeprefix("died_"))
        for family, names, total in (
            (runs, RUN_BUCKETS, "run_ms"),
            (waits, WAIT_BUCKETS, "wait_ms"),
        ):
            counts = [row[name] for name in names]
            family.add_histogram(_SECONDS, counts, row[total] / 1000, queue, actor)
    return attempts, deaths, runs, waits


def _totals() -> dict[tuple[str, str], dict[str, float]]:
    """Return all numbers by queue and actor: the sums, and the minutes not in them yet.

    One statement, so that a minute on its way from these to those is seen once.
    """
    with connection.cursor() as cursor:
        cursor.execute(_totals_sql(), [counting.SHARDS])
        rows = cursor.fetchall()
    found: dict[tuple[str, str], dict[str, float]] = {}
    for queue, actor, *sums in rows:
        row = found.get((queue, actor))
        if row is None:
            found[queue, actor] = dict(zip(_NUMBERS, sums, strict=True))
        else:
            for name, number in zip(_NUMBERS, sums, strict=True):
                row[name] += number
    return found


@cache
def _totals_sql() -> str:
    in_minutes = counting.sums([name for name in _NUMBERS if name not in DEATHS])
    return (
        f"SELECT queue, actor, {counting.sums(_NUMBERS)} FROM queueadmin_statistictotal "  # noqa: S608
        f"GROUP BY queue, actor UNION ALL SELECT queue, actor, {in_minutes}{', 0' * len(DEATHS)} "
        "FROM queueadmin_minutestatistic WHERE shard < %s GROUP BY queue, actor"
    )


def _of_queues() -> Iterable[Family]:
    most = statistics.POLLED_LIMIT
    jobs = Family(
        "queueadmin_jobs",
        "gauge",
        f"Jobs that are not finished; more than {most} of a state are not counted on.",
        ("queue", "state"),
    )
    oldest = Family(
        "queueadmin_oldest_waiting_seconds",
        "gauge",
        "Since when the job that has waited longest is due; 0 where none waits.",
        ("queue",),
    )
    paused = Family(
        "queueadmin_queue_paused",
        "gauge",
        "1 while staff or a breaker hold the queue.",
        ("queue",),
    )
    letters = Family(
        "queueadmin_dead_letters_pending",
        "gauge",
        f"Dead letters that wait for a decision; more than {most} are not counted on.",
        ("queue",),
    )
    at = now()
    names = statistics.queue_names()
    counts = statistics.unfinished(names, limit=most)
    pending, since = statistics.pending(names, limit=most), statistics.oldest(names)
    held = {
        row.name
        for row in Queue.objects.all()
        if row.is_paused(at) or row.breaker_state == Queue.Breaker.OPEN
    }
    for name in names:
        for state in UNFINISHED:
            jobs.add(counts[name, state], name, state.value)
        due = since.get(name)
        waited = max((at - due).total_seconds(), 0.0) if due is not None else 0.0
        oldest.add(waited, name)
        paused.add(name in held, name)
        letters.add(pending[name], name)
    return jobs, oldest, paused, letters


def _of_workers() -> Iterable[Family]:
    alive = list(workers.alive().values_list("threads", "running"))
    total: meters.Counts = meters.nothing()
    # Rows of processes that have died uncleanly count on until they are retired. One
    # statement, so that a row on its way from the one table to the other is seen once.
    kept = (
        Worker.objects.order_by()
        .values_list("counters")
        .union(RetiredCounters.objects.values_list("counters"), all=True)
    )
    for (counts,) in kept:
        total = meters.add(total, counts)
    processes = Family("queueadmin_workers", "gauge", "Living worker processes.")
    processes.add(len(alive))
    threads = Family("queueadmin_worker_threads", "gauge", "Threads of living worker processes.")
    threads.add(sum(number for number, _ in alive))
    busy = Family("queueadmin_worker_threads_busy", "gauge", "Those of them that run a job.")
    busy.add(sum(len(running) for _, running in alive))
    batches = Family(
        "queueadmin_recorder_batch_size", "histogram", "Outcomes that workers commit at once."
    )
    batch, lag = total["batch"], total["lag"]
    batches.add_histogram(meters.BATCH_BOUNDS, batch["buckets"], batch["sum"])
    lags = Family(
        "queueadmin_recorder_lag_seconds",
        "histogram",
        "Time from the end of a batch's first run to its commit.",
    )
    lags.add_histogram(meters.LAG_BOUNDS_SECONDS, lag["buckets"], lag["sum"])
    waits = Family(
        "queueadmin_limiter_waits",
        "counter",
        "How often a worker process waited for a queue's rate limit.",
        ("queue",),
    )
    seconds = Family(
        "queueadmin_limiter_wait_seconds",
        "counter",
        "How long worker processes waited for a queue's rate limit.",
        ("queue",),
    )
    for queue, (number, waited) in sorted(total["limited"].items()):
        waits.add(number, queue)
        seconds.add(waited, queue)
    return processes, threads, busy, batches, lags, waits, seconds


def _of_dispatching() -> Iterable[Family]:
    at = now()
    due = ledger.next_due()
    late = Family(
        "queueadmin_dispatcher_lag_seconds",
        "gauge",
        "How long the most overdue scheduled or retrying job has been due.",
    )
    late.add(max((at - due).total_seconds(), 0.0) if due is not None else 0.0)
    recovery = Family(
        "queueadmin_recovery_finished_timestamp_seconds",
        "gauge",
        "When the last recovery ended well.",
    )
    runs = RecoveryRun.objects.filter(finished_at__isnull=False, error="").order_by("-pk")
    last = runs.values_list("finished_at", flat=True).first()
    if last is not None:
        recovery.add(last.timestamp())
    return late, recovery
