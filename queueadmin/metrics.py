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
from ipaddress import ip_address, ip_network
from itertools import accumulate

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Sum, Value
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import ledger, meters, statistics, workers
from .clock import now
from .conf import settings
from .ledger.counting import SHARDS
from .models import MinuteStatistic, Queue, RecoveryRun, RetiredCounters, StatisticTotal, Worker
from .models.statistic import BOUNDS_MS, COUNTERS, DEATHS, RUN_BUCKETS, SUMS, WAIT_BUCKETS
from .states import UNFINISHED, Outcome

logger = logging.getLogger(__name__)

#: Jobs of one state and queue, and dead letters of one, that are counted; where there are more, one more is said.
MOST_JOBS = 500
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
    registry = CollectorRegistry()
    registry.register(LedgerCollector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    try:
        return HttpResponse(encode(registry), content_type=content_type)
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


class LedgerCollector(Collector):
    """Everything there is to say, read afresh for each scrape."""

    def collect(self) -> Iterable[Metric]:
        """Return all metrics; those without a sample are named all the same."""
        began = time.perf_counter()
        found = [
            *_of_actors(),
            *_of_queues(),
            *_of_workers(),
            *_of_dispatching(),
        ]
        yield from found
        yield GaugeMetricFamily(
            "queueadmin_scrape_seconds",
            "How long it took to read these metrics.",
            value=time.perf_counter() - began,
        )


def _of_actors() -> Iterable[Metric]:
    attempts = CounterMetricFamily(
        "queueadmin_attempts",
        "Runs by how they ended; retrying ones are the retries.",
        labels=(*_BY_ACTOR, "outcome"),
    )
    deaths = CounterMetricFamily(
        "queueadmin_dead_letters", "Jobs that failed for good.", labels=(*_BY_ACTOR, "reason")
    )
    runs = HistogramMetricFamily(
        "queueadmin_run_seconds", "Run time of attempts.", labels=_BY_ACTOR
    )
    waits = HistogramMetricFamily(
        "queueadmin_wait_seconds",
        "Time from when a job was due to the start of its last attempt.",
        labels=_BY_ACTOR,
    )
    for (queue, actor), row in sorted(_totals().items()):
        for name, outcome in _OUTCOMES.items():
            attempts.add_metric((queue, actor, outcome.value), row[name])
        for name in DEATHS:
            if row[name]:
                deaths.add_metric((queue, actor, name.removeprefix("died_")), row[name])
        for family, names, total in (
            (runs, RUN_BUCKETS, "run_ms"),
            (waits, WAIT_BUCKETS, "wait_ms"),
        ):
            buckets = _buckets(_SECONDS, [row[name] for name in names])
            family.add_metric((queue, actor), buckets, row[total] / 1000)
    return attempts, deaths, runs, waits


def _totals() -> dict[tuple[str, str], dict[str, float]]:
    """Return all numbers by queue and actor: the sums, and the minutes not in them yet.

    One statement, so that a minute on its way from these to those is seen once.
    """
    summed = StatisticTotal.objects.order_by().values_list(*_BY_ACTOR)
    recent = MinuteStatistic.objects.filter(shard__lt=SHARDS).order_by().values_list(*_BY_ACTOR)
    minutes = [Sum(name) for name in _NUMBERS if name not in DEATHS]
    rows = summed.annotate(*(Sum(name) for name in _NUMBERS)).union(
        recent.annotate(*minutes, **{f"{name}__sum": Value(0) for name in DEATHS}), all=True
    )
    found: dict[tuple[str, str], dict[str, float]] = {}
    for queue, actor, *sums in rows:
        row = found.setdefault((queue, actor), dict.fromkeys(_NUMBERS, 0))
        for name, number in zip(_NUMBERS, sums, strict=True):
            row[name] += number
    return found


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Return counts per bucket as Prometheus wants them: each with all below it."""
    names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))


def _of_queues() -> Iterable[Metric]:
    jobs = GaugeMetricFamily(
        "queueadmin_jobs",
        f"Jobs that are not finished; more than {MOST_JOBS} of a state are not counted on.",
        labels=("queue", "state"),
    )
    oldest = GaugeMetricFamily(
        "queueadmin_oldest_waiting_seconds",
        "Since when the job that has waited longest is due; 0 where none waits.",
        labels=("queue",),
    )
    paused = GaugeMetricFamily(
        "queueadmin_queue_paused", "1 while staff or a breaker hold the queue.", labels=("queue",)
    )
    letters = GaugeMetricFamily(
        "queueadmin_dead_letters_pending",
        f"Dead letters that wait for a decision; more than {MOST_JOBS} are not counted on.",
        labels=("queue",),
    )
    at = now()
    names = statistics.queue_names()
    counts = statistics.unfinished(names, limit=MOST_JOBS)
    pending, since = statistics.pending(names, limit=MOST_JOBS), statistics.oldest(names)
    held = {
        row.name
        for row in Queue.objects.all()
        if row.is_paused(at) or row.breaker_state == Queue.Breaker.OPEN
    }
    for name in names:
        for state in UNFINISHED:
            jobs.add_metric((name, state.value), counts[name, state])
        due = since.get(name)
        waited = max((at - due).total_seconds(), 0.0) if due is not None else 0.0
        oldest.add_metric((name,), waited)
        paused.add_metric((name,), float(name in held))
        letters.add_metric((name,), pending[name])
    return jobs, oldest, paused, letters


def _of_workers() -> Iterable[Metric]:
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
    batches = HistogramMetricFamily(
        "queueadmin_recorder_batch_size", "Outcomes that workers commit at once."
    )
    batch, lag = total["batch"], total["lag"]
    batches.add_metric((), _buckets(meters.BATCH_BOUNDS, batch["buckets"]), batch["sum"])
    lags = HistogramMetricFamily(
        "queueadmin_recorder_lag_seconds",
        "Time from the end of a batch's first run to its commit.",
    )
    lags.add_metric((), _buckets(meters.LAG_BOUNDS_SECONDS, lag["buckets"]), lag["sum"])
    waits = CounterMetricFamily(
        "queueadmin_limiter_waits",
        "How often a worker process waited for a queue's rate limit.",
        labels=("queue",),
    )
    seconds = CounterMetricFamily(
        "queueadmin_limiter_wait_seconds",
        "How long worker processes waited for a queue's rate limit.",
        labels=("queue",),
    )
    for queue, (number, waited) in sorted(total["limited"].items()):
        waits.add_metric((queue,), number)
        seconds.add_metric((queue,), waited)
    return (
        GaugeMetricFamily("queueadmin_workers", "Living worker processes.", value=len(alive)),
        GaugeMetricFamily(
            "queueadmin_worker_threads",
            "Threads of living worker processes.",
            value=sum(threads for threads, _ in alive),
        ),
        GaugeMetricFamily(
            "queueadmin_worker_threads_busy",
            "Those of them that run a job.",
            value=sum(len(running) for _, running in alive),
        ),
        batches,
        lags,
        waits,
        seconds,
    )


def _of_dispatching() -> Iterable[Metric]:
    at = now()
    due = ledger.next_due()
    late = max((at - due).total_seconds(), 0.0) if due is not None else 0.0
    yield GaugeMetricFamily(
        "queueadmin_dispatcher_lag_seconds",
        "How long the most overdue scheduled or retrying job has been due.",
        value=late,
    )
    recovery = GaugeMetricFamily(
        "queueadmin_recovery_finished_timestamp_seconds", "When the last recovery ended well."
    )
    runs = RecoveryRun.objects.filter(finished_at__isnull=False, error="").order_by("-pk")
    last = runs.values_list("finished_at", flat=True).first()
    if last is not None:
        recovery.add_metric((), last.timestamp())
    yield recovery
