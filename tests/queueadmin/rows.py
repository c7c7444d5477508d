"""Rows of the ledger as the engine would write them."""

import json
import uuid
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from queueadmin.models import Attempt, DeadLetter, FailureGroup, Job
from queueadmin.states import DeathCause, JobState, Outcome

TRACEBACK = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/dramatiq/worker.py", line 561, in process_message
    res = actor(*message.args, **message.kwargs)
  File "/srv/app/notifications/actors.py", line 31, in send_confirmation
    channel.send(text)
  File "/srv/app/notifications/channels/whatsapp.py", line 77, in send
    raise RecipientRejected(code=131026)
notifications.exceptions.RecipientRejected: (#131026) Message undeliverable
"""

TRIAGE = ("view_deadletter", "view_job", "requeue_deadletter", "assign_deadletter",
          "annotate_deadletter", "close_deadletter", "view_requeueoperation")  # fmt: skip


def make_user(name: str, *permissions: str, **fields: Any) -> User:
    """Add a member of staff with permissions of queueadmin."""
    user: User = get_user_model().objects.create_user(name, is_staff=True, **fields)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="queueadmin", codename__in=permissions)
    )
    return user


def make_job(**fields: Any) -> Job:
    """Add a job, waiting unless said otherwise."""
    ago = timezone.now() - timedelta(minutes=3)
    payload = {"args": [12], "kwargs": {"token": "hunter2", "order": 12}, "options": {}}
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "queue": "whatsapp-messages",
        "actor": "send_order_confirmation",
        "state": JobState.WAITING,
        "max_attempts": 5,
        "message": json.dumps(payload).encode(),
        "enqueued_at": ago,
        "due_at": ago,
    }
    return Job.objects.create(**(values | fields))


def make_dead_letter(*, job: dict[str, Any] | None = None, **fields: Any) -> DeadLetter:
    """Add a dead job with its one attempt and its dead letter."""
    now = timezone.now()
    error = {"error_class": "RecipientRejected", "error_message": "(#131026) Message undeliverable"}
    died = {"state": JobState.DEAD, "attempts": 1, "started_at": now, "finished_at": now}
    dead = make_job(**(died | error | (job or {})))
    Attempt.objects.create(
        job=dead,
        dispatch=1,
        number=1,
        outcome=Outcome.DEAD,
        started_at=now,
        duration_ms=41,
        worker="web1:4121",
        traceback=TRACEBACK,
        **error,
    )
    values: dict[str, Any] = {
        "job": dead,
        "died_by": DeathCause.REJECTED,
        "queue": dead.queue,
        "actor": dead.actor,
        "attempts": 1,
        "died_at": now,
        "traceback": TRACEBACK,
        **error,
    }
    return DeadLetter.objects.create(**(values | fields))


def make_group(**fields: Any) -> FailureGroup:
    """Add a failure group without dead letters."""
    at = timezone.now()
    values: dict[str, Any] = {
        "fingerprint": uuid.uuid4().hex[:16],
        "queue": "whatsapp-messages",
        "actor": "send_order_confirmation",
        "error_class": "Timeout",
        "error_message": "graph api",
        "first_seen_at": at,
        "last_seen_at": at,
        "deaths": 1,
    }
    return FailureGroup.objects.create(**(values | fields))
