"""Queues: numbers, pause, resume, limits, clean, and jobs by hand."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from .. import jobs, queues, retention, statistics
from ..clock import now
from ..conf import settings
from ..exceptions import InvalidMessage
from ..models import Queue
from ..policies import Rate
from ..states import FINISHED, JobState
from ..statistics import Flow, QueueNumbers
from .base import (
    REASON_LENGTH,
    ApiViewSet,
    ChangedSerializer,
    ReasonSerializer,
    documented,
    example,
    idempotent,
)
from .jobs import EnqueuedSerializer, NewJobSerializer

TAG = "Queues"


class RateSerializer(serializers.Serializer[Any]):
    """So many starts in so long."""

    limit = serializers.IntegerField(min_value=1, max_value=1_000_000)
    window_ms = serializers.IntegerField(min_value=1, max_value=24 * 3_600_000)


class LimitsSerializer(serializers.Serializer[Any]):
    """Limits that hold, and where each comes from: settings, console or neither."""

    concurrency = serializers.IntegerField(allow_null=True)
    concurrency_from = serializers.CharField()
    rate = RateSerializer(allow_null=True)
    rate_from = serializers.CharField()


class FlowSerializer(serializers.Serializer[Any]):
    """What happened in the last hour; times in milliseconds, null without any."""

    completed = serializers.IntegerField()
    retried = serializers.IntegerField()
    dead = serializers.IntegerField()
    failed_percent = serializers.FloatField(allow_null=True)
    run_ms_p50 = serializers.FloatField(allow_null=True)
    run_ms_p95 = serializers.FloatField(allow_null=True)
    wait_ms_p50 = serializers.FloatField(allow_null=True)
    wait_ms_p95 = serializers.FloatField(allow_null=True)


class QueueSerializer(serializers.Serializer[Any]):
    """A queue's numbers and controls."""

    name = serializers.CharField()
    scheduled = serializers.IntegerField()
    waiting = serializers.IntegerField()
    active = serializers.IntegerField()
    retrying = serializers.IntegerField()
    dead = serializers.IntegerField()
    more = serializers.ListField(
        child=serializers.CharField(),
        help_text=f"States of which there are more than counted: counting stops at "
        f"{statistics.COUNT_LIMIT:,}, for dead at {statistics.DEAD_LIMIT:,}.",
    )
    waiting_since = serializers.DateTimeField(
        allow_null=True, help_text="Since when the job that has waited longest is due."
    )
    is_paused = serializers.BooleanField()
    paused_until = serializers.DateTimeField(allow_null=True)
    pause_reason = serializers.CharField()
    breaker = serializers.CharField(help_text="closed, open or probing.")
    limits = LimitsSerializer()
    last_hour = FlowSerializer()


class PauseSerializer(ReasonSerializer):
    """Why, and for how long."""

    until = serializers.DateTimeField(
        required=False, default=None, allow_null=True, help_text="null: until somebody resumes it."
    )


class NewLimitsSerializer(ReasonSerializer):
    """Limits in place of the policy's; null goes back to the policy's."""

    concurrency = serializers.IntegerField(min_value=1, max_value=100_000, allow_null=True)
    rate = RateSerializer(allow_null=True)


class CleanSerializer(serializers.Serializer[Any]):
    """What to remove."""

    state = serializers.ChoiceField(choices=[state.value for state in FINISHED])
    older_than_s = serializers.IntegerField(
        min_value=0, max_value=10 * 366 * 86_400, help_text="Seconds since it ended."
    )
    dry_run = serializers.BooleanField(required=False, default=False)
    reason = serializers.CharField(
        max_length=REASON_LENGTH, required=False, default="", allow_blank=True
    )


class CleanedSerializer(serializers.Serializer[Any]):
    """What a cleaning found and removed."""

    matched = serializers.IntegerField(help_text="Jobs in this state and of that age.")
    removed = serializers.IntegerField()
    held = serializers.IntegerField(help_text="They stay: their dead letters are open.")
    left = serializers.IntegerField(help_text="For another call; one removes `BULK_LIMIT`.")
    dry_run = serializers.BooleanField()


QUEUE = {
    "name": "whatsapp-messages",
    "scheduled": 12,
    "waiting": 5,
    "active": 2,
    "retrying": 3,
    "dead": 15,
    "more": [],
    "waiting_since": "2026-11-24T10:00:00Z",
    "is_paused": False,
    "paused_until": None,
    "pause_reason": "",
    "breaker": "closed",
    "limits": {
        "concurrency": 10,
        "concurrency_from": "settings",
        "rate": {"limit": 50, "window_ms": 1000},
        "rate_from": "settings",
    },
    "last_hour": {
        "completed": 1000,
        "retried": 7,
        "dead": 3,
        "failed_percent": 0.99,
        "run_ms_p50": 180.0,
        "run_ms_p95": 420.0,
        "wait_ms_p50": 4.0,
        "wait_ms_p95": 35.0,
    },
}


class QueuesView(ApiViewSet):
    """Queues: numbers and controls."""

    verbs: ClassVar = {
        "list": "view_queue",
        "retrieve": "view_queue",
        "pause": "pause_queue",
        "resume": "pause_queue",
        "limit": "limit_queue",
        "clean": "clean_job",
        "enqueue": "enqueue_job",
    }
    pagination_class = None
    serializer_class = QueueSerializer

    @documented(
        "Show the numbers of all queues",
        tag=TAG,
        verb="view_queue",
        answer=QueueSerializer(many=True),
        examples=[example("a queue", QUEUE)],
    )
    def list(self, request: Request) -> Response:
        """Answer with every queue."""
        return Response(QueueSerializer(numbers(statistics.queue_names()), many=True).data)

    @documented(
        "Show the numbers of a queue",
        tag=TAG,
        verb="view_queue",
        answer=QueueSerializer,
        finds=True,
        examples=[example("a queue", QUEUE)],
    )
    def retrieve(self, request: Request, queue: str) -> Response:
        """Answer with one queue."""
        return Response(QueueSerializer(numbers([_known(queue)])[0]).data)

    @documented(
        "Pause a queue",
        tag=TAG,
        verb="pause_queue",
        body=PauseSerializer,
        answer=ChangedSerializer,
        finds=True,
        examples=[example("why", {"reason": "The provider is down."}, request=True)],
        description="No job of it starts anywhere within a second; what runs goes on.",
    )
    def pause(self, request: Request, queue: str) -> Response:
        """Pause a queue."""
        wanted = self.body(PauseSerializer)
        if wanted["until"] is not None and wanted["until"] <= now():
            raise serializers.ValidationError({"until": ["This time has passed."]})
        return Response({"changed": queues.pause(_known(queue), by=self.user, **wanted)})

    @documented(
        "Resume a queue",
        tag=TAG,
        verb="pause_queue",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def resume(self, request: Request, queue: str) -> Response:
        """Let a queue's jobs start again."""
        wanted = self.body(ReasonSerializer)
        return Response({"changed": queues.resume(_known(queue), by=self.user, **wanted)})

    @documented(
        "Replace the limits of a queue",
        tag=TAG,
        verb="limit_queue",
        body=NewLimitsSerializer,
        answer=QueueSerializer,
        finds=True,
        examples=[
            example(
                "50 per second",
                {"concurrency": None, "rate": {"limit": 50, "window_ms": 1000}},
                request=True,
            )
        ],
    )
    def limit(self, request: Request, queue: str) -> Response:
        """Set the limits at run time."""
        wanted = self.body(NewLimitsSerializer)
        rate = Rate(**wanted["rate"]) if wanted["rate"] else None
        queues.limit(
            _known(queue),
            by=self.user,
            concurrency=wanted["concurrency"],
            rate=rate,
            reason=wanted["reason"],
        )
        return Response(QueueSerializer(numbers([queue])[0]).data)

    @documented(
        "Remove jobs of a queue that ended long ago",
        tag=TAG,
        verb="clean_job",
        body=CleanSerializer,
        answer=CleanedSerializer,
        finds=True,
        examples=[
            example("older than a day", {"state": "completed", "older_than_s": 86400}, request=True)
        ],
    )
    def clean(self, request: Request, queue: str) -> Response:
        """Remove finished jobs, or count them."""
        wanted = self.body(CleanSerializer)
        cleaned = retention.clean(
            [wanted["state"]],
            timedelta(seconds=wanted["older_than_s"]),
            _known(queue),
            by=self.user,
            reason=wanted["reason"],
            dry_run=wanted["dry_run"],
        )
        return Response({
            "matched": cleaned.matched,
            "removed": cleaned.removed,
            "held": cleaned.held,
            "left": cleaned.left,
            "dry_run": wanted["dry_run"],
        })  # fmt: skip

    @documented(
        "Enqueue a job by hand",
        tag=TAG,
        verb="enqueue_job",
        body=NewJobSerializer,
        answer=EnqueuedSerializer,
        status=201,
        finds=True,
        repeats=True,
        examples=[
            example(
                "in an hour",
                {"actor": "order_confirmation", "args": [4711], "at": "2026-11-24T11:00:00Z"},
                request=True,
            ),
            example("a new job", {"id": "0b3f9a52-8f0a-4c46-9d5c-3c2f3b1a7e10", "is_new": True}),
        ],
        description="Of an actor of this queue; the arguments are checked by its signature.",
    )
    @idempotent
    def enqueue(self, request: Request, queue: str) -> Response:
        """Enqueue a job."""
        wanted = self.body(NewJobSerializer)
        try:
            found = jobs.enqueue(
                wanted["actor"],
                wanted["args"],
                wanted["kwargs"],
                by=self.user,
                queue=_known(queue),
                at=wanted["at"],
                priority=wanted["priority"],
                unique_key=wanted["unique_key"],
                reason=wanted["reason"],
            )
        except InvalidMessage:
            raise
        except ValueError as error:
            raise serializers.ValidationError({"at": [str(error)]}) from error
        return Response(
            {"id": found.job_id, "is_new": found.is_new}, status=status.HTTP_201_CREATED
        )


def numbers(names: "list[str]") -> "list[dict[str, Any]]":
    """Return what `QueueSerializer` shows of each queue, in five queries."""
    rows = {row.name: row for row in Queue.objects.filter(name__in=names)}
    return [
        _shown(found, rows.get(found.name) or Queue(name=found.name))
        for found in statistics.overview(names, steps=0)
    ]


def counted(
    counts: Mapping[JobState, int], *, most: int = statistics.COUNT_LIMIT
) -> dict[str, Any]:
    """Return the counts by state, and of which there are more."""
    limits = {state: min(statistics.limit_of(state), most) for state in statistics.SHOWN_STATES}
    return {
        **{state.value: min(counts.get(state, 0), limit) for state, limit in limits.items()},
        "more": [state.value for state, limit in limits.items() if counts.get(state, 0) > limit],
    }


def flow(found: Flow) -> dict[str, Any]:
    """Return what `FlowSerializer` shows."""

    def ms(value: timedelta | None) -> float | None:
        return None if value is None else round(value / timedelta(milliseconds=1), 3)

    return {
        "completed": found.completed,
        "retried": found.retried,
        "dead": found.dead,
        "failed_percent": found.failed_percent,
        "run_ms_p50": ms(found.run_at(0.5)),
        "run_ms_p95": ms(found.run_at(0.95)),
        "wait_ms_p50": ms(found.wait_at(0.5)),
        "wait_ms_p95": ms(found.wait_at(0.95)),
    }


def _shown(found: QueueNumbers, row: Queue) -> dict[str, Any]:
    is_paused = row.is_paused(now())
    limits = queues.limits_of(row)
    return {
        "name": found.name,
        **counted(found.counts),
        "waiting_since": found.oldest_due_at,
        "is_paused": is_paused,
        "paused_until": row.paused_until if is_paused else None,
        "pause_reason": row.pause_reason if is_paused else "",
        "breaker": row.breaker_state,
        "limits": {
            "concurrency": limits.concurrency,
            "concurrency_from": limits.concurrency_from,
            "rate": limits.rate,
            "rate_from": limits.rate_from,
        },
        "last_hour": flow(found.flow),
    }


def _known(queue: str) -> str:
    """Return the name of a queue.

    Raises:
        NotFound: nobody has declared, controlled or used it.
    """
    if queue not in settings.QUEUES and queue not in statistics.queue_names():
        raise NotFound(f"There is no queue {queue!r:.100}.")
    return queue
