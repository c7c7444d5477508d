"""Fills the ledger with millions of rows, as a year of work would leave it."""

import json

from django.db import connection

#: Rows of a full and of a quick run: jobs, and how many of them are dead.
FULL, QUICK = (5_000_000, 1_000_000), (500_000, 100_000)

_STEP = 500_000
_QUEUES = 15
_CAUSES = 300


def fill(jobs: int, dead: int) -> None:
    """Add jobs, the newest of them dead, with attempts, dead letters, groups and statistics.

    The others are completed, but for 50,000 waiting, 10,000 scheduled and 5,000 retrying ones
    (a tenth of that below a million).
    """
    if connection.vendor != "postgresql":
        raise SystemExit("This benchmark makes its rows in PostgreSQL: set DATABASE_URL.")
    part = 10 if jobs < 1_000_000 else 1
    waiting, scheduled, retrying = 50_000 // part, 10_000 // part, 5_000 // part
    with connection.cursor() as cursor:
        for start in range(0, jobs, _STEP):
            last = min(start + _STEP, jobs)
            cursor.execute(_JOBS, {
                "first": start + 1, "last": last, "message": _message(),
                "dead": dead, "retrying": dead + retrying,
                "scheduled": dead + retrying + scheduled,
                "waiting": dead + retrying + scheduled + waiting,
            })  # fmt: skip
        cursor.execute(_ATTEMPTS)
        cursor.execute(_LETTERS)
        cursor.execute(_GROUPS)
        cursor.execute(_with_columns(_STATISTICS))
        cursor.execute("VACUUM ANALYZE")


def add_completed(first: int, last: int) -> None:
    """Add completed jobs with these numbers, each with its attempt."""
    numbers = {"dead": 0, "retrying": 0, "scheduled": 0, "waiting": 0, "message": _message()}
    with connection.cursor() as cursor:
        for start in range(first, last, _STEP):
            end = min(start + _STEP, last)
            cursor.execute(_JOBS, {**numbers, "first": start + 1, "last": end})
            cursor.execute(_COMPLETED_ATTEMPTS, {"first": start + 1, "last": end})
        cursor.execute("VACUUM ANALYZE")


def _message() -> bytes:
    fields = {
        "queue_name": "queue-00",
        "actor_name": "send_message",
        "args": [12],
        "kwargs": {"order": 12, "padding": "x" * 200},
        "options": {},
        "message_id": "m",
        "message_timestamp": 0,
    }
    return json.dumps(fields).encode()


_JOBS = f"""
INSERT INTO queueadmin_job (
  id, queue, actor, priority, state, dispatch, attempts, max_attempts, requeues, crashes,
  is_suspect, message, result, subject, parent, group_key, progress_text, unique_key, worker,
  error_class, error_message, enqueued_at, due_at, started_at, finished_at, is_sealed, in_broker)
SELECT
  md5(i::text), 'queue-' || lpad(mod(i, {_QUEUES})::text, 2, '0'), 'actor_' || mod(i, 40), 1,
  CASE WHEN i <= %(dead)s THEN 'dead' WHEN i <= %(retrying)s THEN 'retrying'
       WHEN i <= %(scheduled)s THEN 'scheduled' WHEN i <= %(waiting)s THEN 'waiting'
       ELSE 'completed' END,
  1, 1, 3, 0, 0, false, %(message)s, NULL, 'orders.order:' || mod(i, 100000), '', '', '', '', 'web1:1',
  CASE WHEN i <= %(retrying)s THEN 'Error' || mod(i, {_CAUSES}) ELSE '' END,
  CASE WHEN i <= %(retrying)s THEN 'The provider answered 503 after ' || i || ' ms' ELSE '' END,
  now() - i * interval '1.5 second',
  CASE WHEN i > %(retrying)s AND i <= %(scheduled)s THEN now() + i * interval '1 second'
       ELSE now() - i * interval '1.5 second' END,
  now() - i * interval '1.5 second', now() - i * interval '1.5 second', false, true
FROM generate_series(%(first)s, %(last)s) AS n (i)
"""  # noqa: S608  # numbers of ours
_ATTEMPTS = """
INSERT INTO queueadmin_attempt (
  job_id, dispatch, number, outcome, started_at, duration_ms, worker, release, error_class,
  error_message, traceback)
SELECT id, 1, 1, state, started_at, 41, 'web1:1', '5.2', error_class, error_message,
  repeat('  File "/srv/app/notifications/actors.py", line 31, in send' || chr(10), 20)
FROM queueadmin_job WHERE state IN ('dead', 'retrying') ORDER BY enqueued_at
"""
_COMPLETED_ATTEMPTS = """
INSERT INTO queueadmin_attempt (
  job_id, dispatch, number, outcome, started_at, duration_ms, worker, release, error_class,
  error_message, traceback)
SELECT md5(i::text), 1, 1, 'completed', now() - i * interval '1.5 second', 41, 'web1:1', '5.2',
  '', '', ''
FROM generate_series(%(first)s, %(last)s) AS n (i)
"""
_LETTERS = f"""
INSERT INTO queueadmin_deadletter (
  job_id, status, died_by, queue, actor, error_class, error_message, traceback, fingerprint,
  release, worker, attempts, deaths, urgency, died_at, closing_reason, recovered_at)
SELECT id, CASE WHEN n % 5 = 0 THEN 'recovered' ELSE 'pending' END, 'attempts_exhausted', queue,
  actor, error_class, error_message,
  repeat('  File "/srv/app/notifications/actors.py", line 31, in send' || chr(10), 20),
  'cause-' || n % {_CAUSES}, '5.2', 'web1:1', 3, 1, n % 4, finished_at, '',
  CASE WHEN n % 5 = 0 THEN finished_at END
FROM (SELECT *, row_number() OVER (ORDER BY enqueued_at) AS n
      FROM queueadmin_job WHERE state = 'dead') AS dead
"""  # noqa: S608
_GROUPS = """
INSERT INTO queueadmin_failuregroup (
  fingerprint, status, queue, actor, error_class, error_message, first_seen_at, last_seen_at,
  first_release, last_release, deaths, ticket_url, resolution, regressions, snoozed_release)
SELECT fingerprint, 'open', min(queue), min(actor), min(error_class), min(error_message),
  min(died_at), max(died_at), '5.1', '5.2', count(*), '', '', 0, ''
FROM queueadmin_deadletter GROUP BY fingerprint
"""
_STATISTICS = f"""
INSERT INTO queueadmin_minutestatistic (minute, shard, queue, actor, {{columns}})
SELECT date_trunc('minute', now()) - m * interval '1 minute', 0,
  'queue-' || lpad((a % {_QUEUES})::text, 2, '0'), 'actor_' || a, {{values}}
FROM generate_series(0, 2879) AS m, generate_series(0, 39) AS a
"""  # noqa: S608


def _with_columns(statement: str) -> str:
    from queueadmin.models.statistic import COUNTERS, RUN_BUCKETS, SUMS, WAIT_BUCKETS

    names = (*COUNTERS, *SUMS, *RUN_BUCKETS, *WAIT_BUCKETS)
    return statement.format(columns=", ".join(names), values=", ".join("3" for _ in names))
