"""`GET /metrics`: who may read, what it says, and that its counters never fall."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from django.db import OperationalError, connection
from django.utils import timezone
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from queueadmin import meters, queues, registry, retention, statistics
from queueadmin.conf import problems
from queueadmin.exceptions import PermanentError
from queueadmin.models import (
    MinuteStatistic,
    RecoveryRun,
    RetiredCounters,
    StatisticTotal,
    Worker,
)
from queueadmin.policies import Policy, Rate, fixed
from queueadmin.states import DeathCause, JobState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_dead_letter, make_job

TOKEN = "a-token-of-twenty-four-characters"


@pytest.fixture(autouse=True)
def readable(settings: Any) -> None:
    settings.QUEUEADMIN = {
        "METRICS_TOKEN": TOKEN,
        "QUEUES": {"mail": Policy(attempts=2, backoff=fixed(5))},
    }


def read(client: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of one scrape."""
    answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.content
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def value(found: Any, name: str, **labels: str) -> float | None:
    return found.get((f"queueadmin_{name}", frozenset(labels.items())))


class TestAccess:
    def test_without_a_setting_metrics_are_off(self, client, settings):
        settings.QUEUEADMIN = {}
        answer = client.get("/metrics", headers={"authorization": "Bearer "})

        assert answer.status_code == 403
        assert b"METRICS_TOKEN" in answer.content

    @pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", TOKEN, f"Basic {TOKEN}"])
    def test_a_missing_or_wrong_token_is_401(self, client, given):
        headers = {} if given is None else {"authorization": given}
        answer = client.get("/metrics", headers=headers)

        assert answer.status_code == 401
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert TOKEN not in answer.content.decode()

    @pytest.mark.django_db
    @pytest.mark.parametrize(
        ("address", "status"),
        [
            ("10.1.2.3", 200),
            ("10.2.0.1", 403),
            ("::ffff:10.1.2.3", 200),
            ("::1", 200),
            ("", 403),
            ("unix", 403),
        ],
    )
    def test_allowed_addresses_need_no_token(self, client, settings, address, status):
        settings.QUEUEADMIN = {"METRICS_ADDRESSES": ["10.1.0.0/16", "::1"]}

        assert client.get("/metrics", REMOTE_ADDR=address).status_code == status

    def test_what_a_client_says_of_its_address_does_not_count(self, client, settings):
        settings.QUEUEADMIN = {"METRICS_ADDRESSES": ["10.1.0.0/16"]}
        headers = {"x-forwarded-for": "10.1.2.3"}

        assert client.get("/metrics", headers=headers).status_code == 403

    def test_nothing_is_changed_by_it(self, client):
        assert client.post("/metrics").status_code == 405

    @pytest.mark.django_db
    def test_without_a_database_it_is_503(self, client):
        with a_database_that_is_away():
            answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})

        assert (answer.status_code, answer.content) == (503, b"The database is away.\n")

    def test_settings_that_protect_nothing_are_errors_that_quote_no_token(self):
        (short,) = problems({"METRICS_TOKEN": "hunter2"})
        (wrong,) = problems({"METRICS_TOKEN": b"hunter2"})
        (address,) = problems({"METRICS_ADDRESSES": ["10.1.2.3/16"]})

        assert "16 characters" in short
        assert "hunter2" not in short + wrong
        assert "10.1.2.3/16" in address


@pytest.mark.django_db
class TestWhatItSays:
    @pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
    def test_it_is_in_the_format_that_is_asked_for(self, client, accept):
        headers = {"authorization": f"Bearer {TOKEN}", "accept": accept}
        answer = client.get("/metrics", headers=headers)

        parse = openmetrics_families if accept else text_string_to_metric_families
        assert answer["Content-Type"].startswith(accept.split(";")[0] or "text/plain")
        assert "queueadmin_run_seconds" in {
            family.name for family in parse(answer.content.decode())
        }
        assert "no-store" in answer["Cache-Control"]

    def test_outcomes_retries_and_times_by_queue_and_actor(self, client, broker):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def send(fails: bool) -> None:
            if fails:
                raise ConnectionError

        send.send(False)
        send.send(True)
        run_jobs()
        with time_machine.travel(timezone.now() + timedelta(seconds=6)):
            run_jobs()
        found = read(client)

        labels = {"queue": "mail", "actor": "send"}
        for outcome in ("completed", "retrying", "dead"):
            assert value(found, "attempts_total", **labels, outcome=outcome) == 1
        assert value(found, "attempts_total", **labels, outcome="cancelled") == 0
        assert value(found, "run_seconds_count", **labels) == 3
        assert value(found, "run_seconds_bucket", **labels, le="+Inf") == 3
        assert 0 < value(found, "run_seconds_sum", **labels) < 5
        assert value(found, "wait_seconds_count", **labels) == 2
        assert (
            value(found, "dead_letters_total", **labels, reason=DeathCause.ATTEMPTS_EXHAUSTED) == 1
        )

    def test_every_reason_to_die_is_counted(self, client, broker):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def refuse() -> None:
            raise PermanentError

        @dramatiq.actor(queue_name="mail", broker=broker, max_age=1)
        def late() -> None:
            pass

        refuse.send()
        with time_machine.travel(timezone.now() - timedelta(hours=1)):
            late.send()
        run_jobs()
        found = read(client)

        for actor, reason in (("refuse", "rejected"), ("late", "expired")):
            labels = {"queue": "mail", "actor": actor, "reason": reason}
            assert value(found, "dead_letters_total", **labels) == 1

    def test_queues_with_what_waits_and_since_when(self, client):
        due = timezone.now() - timedelta(minutes=7)
        make_job(queue="mail", due_at=due)
        make_job(
            queue="mail", state=JobState.RETRYING, due_at=timezone.now() - timedelta(seconds=40)
        )
        make_dead_letter(job={"queue": "mail"})
        queues.pause("mail", by=None, reason="outage")
        found = read(client)

        assert value(found, "jobs", queue="mail", state="waiting") == 1
        assert value(found, "jobs", queue="mail", state="retrying") == 1
        assert value(found, "jobs", queue="mail", state="dead") is None
        assert 420 <= value(found, "oldest_waiting_seconds", queue="mail") < 480
        assert value(found, "queue_paused", queue="mail") == 1
        assert value(found, "dead_letters_pending", queue="mail") == 1
        assert 40 <= value(found, "dispatcher_lag_seconds") < 60

    def test_a_queue_that_was_never_used_stands_at_0(self, client):
        found = read(client)

        assert value(found, "jobs", queue="mail", state="waiting") == 0
        assert value(found, "oldest_waiting_seconds", queue="mail") == 0
        assert value(found, "dispatcher_lag_seconds") == 0
        assert value(found, "workers") == 0

    def test_a_long_queue_is_not_counted_to_its_end(self, client, monkeypatch):
        monkeypatch.setattr("queueadmin.statistics.POLLED_LIMIT", 2)
        for _ in range(5):
            make_job(queue="mail")

        assert value(read(client), "jobs", queue="mail", state="waiting") == 3

    def test_foreign_names_cannot_forge_a_line(self, client):
        name = 'x"} 1\nqueueadmin_workers 99\n'
        StatisticTotal.objects.create(queue=name, actor="a", shard=0, completed=1)
        found = read(client)

        assert value(found, "attempts_total", queue=name, actor="a", outcome="completed") == 1
        assert value(found, "workers") == 0

    def test_when_recovery_last_ended_well(self, client):
        at = timezone.now()
        RecoveryRun.objects.create(started_at=at, finished_at=at)
        RecoveryRun.objects.create(started_at=at, finished_at=at, error="the broker was away")

        assert value(read(client), "recovery_finished_timestamp_seconds") == pytest.approx(
            at.timestamp(), abs=0.001
        )

    def test_it_asks_a_fixed_number_of_queries(self, client, django_assert_num_queries):
        with django_assert_num_queries(11):
            read(client)
        for number in range(3):
            make_job(queue=f"queue{number}")
            StatisticTotal.objects.create(queue=f"queue{number}", actor="a", shard=number)
        with django_assert_num_queries(11):
            read(client)


class TestCountersNeverFall:
    @pytest.mark.django_db
    def test_when_minutes_become_hours_and_old_hours_and_jobs_go(self, client, broker):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def send() -> None:
            pass

        send.send()
        run_jobs()
        before = read(client)
        with time_machine.travel(timezone.now() + timedelta(days=100)):
            retention.apply_retention()
            after = read(client)

        assert not MinuteStatistic.objects.exists()
        labels = {"queue": "mail", "actor": "send"}
        assert value(before, "attempts_total", **labels, outcome="completed") == 1
        for key, number in before.items():
            if key[0].endswith(("_total", "_bucket", "_sum", "_count")):
                assert after[key] == number

    @pytest.mark.django_db
    def test_when_minutes_are_added_to_the_sums_and_some_come_late(self, client):
        minute = (timezone.now() - timedelta(minutes=5)).replace(second=0, microsecond=0)
        at = {"minute": minute, "queue": "mail", "actor": "send"}
        for shard in (1, 2):
            MinuteStatistic.objects.create(**at, shard=shard, completed=2, run_3=2, run_ms=20)
        before = read(client)
        assert statistics.fold(None) == 2
        assert statistics.fold(None) == 0
        after = read(client)
        MinuteStatistic.objects.create(**at, shard=1, completed=1, run_3=1, run_ms=10)
        late = read(client)
        assert statistics.fold(None) == 1

        labels = {"queue": "mail", "actor": "send"}
        for found, completed in ((before, 4), (after, 4), (late, 5), (read(client), 5)):
            assert value(found, "attempts_total", **labels, outcome="completed") == completed
            assert value(found, "run_seconds_count", **labels) == completed
            assert value(found, "run_seconds_sum", **labels) == pytest.approx(completed / 100)
        # The pages read the same from one row as from several.
        (row,) = MinuteStatistic.objects.all()
        assert (row.completed, row.run_3, row.run_ms) == (5, 5, 50)

    @pytest.mark.django_db
    def test_a_minute_that_is_not_over_is_left_to_the_recorders(self, client):
        MinuteStatistic.objects.create(
            minute=timezone.now().replace(second=0, microsecond=0),
            queue="mail",
            actor="send",
            shard=1,
            completed=1,
        )

        assert statistics.fold(None) == 0
        labels = {"queue": "mail", "actor": "send", "outcome": "completed"}
        assert value(read(client), "attempts_total", **labels) == 1

    @pytest.mark.django_db(transaction=True)
    def test_whoever_folds_at_the_same_time_each_minute_counts_once(self, client):
        for number in range(50):
            minute = timezone.now() - timedelta(minutes=5 + number)
            MinuteStatistic.objects.create(
                minute=minute.replace(second=0, microsecond=0),
                queue="mail",
                actor="send",
                shard=number % 4,
                completed=1,
            )

        def fold(_: int) -> int:
            try:
                return statistics.fold(None)
            finally:
                connection.close()

        with ThreadPoolExecutor(3) as threads:
            folded = list(threads.map(fold, range(3)))

        assert sum(folded) == 50
        assert StatisticTotal.objects.get().completed == 50
        labels = {"queue": "mail", "actor": "send", "outcome": "completed"}
        assert value(read(client), "attempts_total", **labels) == 50

    @pytest.mark.django_db
    def test_when_a_process_ends_or_dies(self, client):
        at = timezone.now()
        counts = meters.add(meters.nothing(), {})
        counts["batch"]["buckets"][2] = 5
        counts["batch"]["sum"] = 40
        counts["limited"] = {"mail": [3, 1.5]}
        for number, seen_at in enumerate((at, at - timedelta(days=2))):
            Worker.objects.create(
                id=f"host:{number}:x",
                host="host",
                pid=number,
                started_at=at,
                seen_at=seen_at,
                threads=8,
                counters=counts,
            )
        before = read(client)
        assert registry.tidy(None) == 1
        after = read(client)
        assert registry.tidy(None) == 0

        assert RetiredCounters.objects.get().counters == counts
        assert value(before, "recorder_batch_size_count") == 10
        assert value(before, "recorder_batch_size_sum") == 80
        assert value(before, "limiter_waits_total", queue="mail") == 6
        assert value(before, "limiter_wait_seconds_total", queue="mail") == 3
        assert after.keys() == before.keys()
        for key, number in before.items():
            if key[0].endswith(("_total", "_bucket", "_sum", "_count")):
                assert after[key] == number
        assert value(after, "workers") == 1
        assert value(after, "worker_threads") == 8

    def test_a_worker_reports_its_batches_and_leaves_them_behind(
        self, client, broker, transactional_db
    ):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def send() -> None:
            pass

        worker = started(broker)
        for _ in range(5):
            send.send()
        broker.join("mail", timeout=10_000)
        worker.stop()
        found = read(client)

        assert not Worker.objects.exists()
        assert 1 <= value(found, "recorder_batch_size_count") <= 5
        assert value(found, "recorder_batch_size_sum") == 5
        assert 0 < value(found, "recorder_lag_seconds_sum") < 30

    def test_a_wait_for_a_rate_is_counted(self, client, broker, transactional_db, settings):
        settings.QUEUEADMIN = {
            **settings.QUEUEADMIN,
            "QUEUES": {"slow": Policy(rate=Rate(1, 400))},
        }

        @dramatiq.actor(queue_name="slow", broker=broker)
        def send() -> None:
            pass

        worker = started(broker)
        for _ in range(3):
            send.send()
        broker.join("slow", timeout=10_000)
        worker.stop()
        found = read(client)

        assert value(found, "limiter_waits_total", queue="slow") >= 1
        assert 0.1 < value(found, "limiter_wait_seconds_total", queue="slow") < 10

    def test_names_that_no_actor_has_are_one_series(
        self, client, broker, transactional_db, settings
    ):
        settings.QUEUEADMIN = {**settings.QUEUEADMIN, "UNKNOWN_ACTOR_GRACE": 0}

        @dramatiq.actor(queue_name="mail", broker=broker)
        def known() -> None:
            pass

        for number in range(3):
            broker.enqueue(
                dramatiq.Message(
                    queue_name="mail", actor_name=f"x{number}", args=(), kwargs={}, options={}
                )
            )
        worker = started(broker)
        broker.join("mail", timeout=10_000)
        worker.stop()
        found = read(client)

        assert {row.actor for row in StatisticTotal.objects.all()} == {"(unknown)"}
        labels = {"queue": "mail", "actor": "(unknown)", "reason": "unknown_actor"}
        assert value(found, "dead_letters_total", **labels) == 3
        assert {row.actor for row in MinuteStatistic.objects.all()} == {"(unknown)"}


def test_a_sum_of_counts_takes_each_once():
    first, second = meters.Meters(), meters.Meters()
    first.batch(1, 0.0005)
    first.batch(500, 60)
    first.limited("mail", 0.5)
    second.batch(2, -1)  # a clock that was set back
    second.limited("mail", 0.25)
    second.limited("sms", 1)
    total = meters.add(first.counts(), second.counts())

    assert total["batch"] == {"buckets": [1, 1, 0, 0, 0, 0, 1], "sum": 503}
    assert total["lag"]["buckets"] == [2, *[0] * 9, 1]
    assert total["limited"] == {"mail": [2, 0.75], "sms": [1, 1]}
    assert meters.add(meters.nothing(), {}) == meters.nothing()


@contextmanager
def a_database_that_is_away() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise OperationalError('connection to "db.internal", user "shop" refused')

    with connection.execute_wrapper(refuse):
        yield


def started(broker: Any) -> dramatiq.Worker:
    """Return a worker that the test stops itself."""
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    return worker
