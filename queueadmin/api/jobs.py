"""Jobs and attempts."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from .. import jobs, listing, retention, revealing
from ..exceptions import Undecryptable
from ..models import Attempt, Job
from ..states import JobState, Outcome, Priority
from . import letters
from .base import (
    ApiViewSet,
    Pages,
    ReasonSerializer,
    documented,
    example,
    idempotent,
    one,
)
from .letter_serializers import RequeueOneSerializer
from .problems import Conflict

if TYPE_CHECKING:
    from django.db.models import QuerySet

logger = logging.getLogger(__name__)

TAG = "Jobs"
#: Attempts that a job's details show, the last ones.
_MOST_ATTEMPTS = 100
#: Only jobs that share their time with so many others make a page reach further.
_MOST_NARROWED = 2_000
_PRIORITIES = {number: name for name, number in Priority.BY_NAME.items()}


class JobProgressSerializer(serializers.Serializer[Any]):
    """How far a run has come, where its actor says so."""

    done = serializers.IntegerField(source="progress_done", allow_null=True)
    total = serializers.IntegerField(source="progress_total", allow_null=True)
    text = serializers.CharField(source="progress_text")


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job as lists show it: without its payload."""

    id = serializers.CharField()
    state = serializers.ChoiceField(choices=JobState.values)
    priority = serializers.SerializerMethodField()
    progress = JobProgressSerializer(source="*")

    class Meta:
        model = Job
        fields: tuple[str, ...] = (
            "id", "queue", "actor", "state", "priority", "attempts", "max_attempts", "requeues",
            "crashes", "subject", "parent", "group", "unique_key", "progress", "worker",
            "error_class", "error_message", "enqueued_at", "due_at", "started_at", "finished_at",
            "cancel_requested_at", "erased_at",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field({"type": "string", "enum": list(Priority.BY_NAME)})
    def get_priority(self, job: Job) -> str:
        return _PRIORITIES.get(job.priority, str(job.priority))


class AttemptSerializer(serializers.ModelSerializer[Attempt]):
    """How one execution went."""

    outcome = serializers.ChoiceField(choices=Outcome.values)
    job = serializers.CharField(source="job_id", help_text="The job's id.")

    class Meta:
        model = Attempt
        fields: tuple[str, ...] = (
            "id", "job", "dispatch", "number", "outcome", "started_at", "duration_ms", "delay_ms",
            "worker", "release", "error_class", "error_message",
        )  # fmt: skip
        read_only_fields = fields


class JobAttemptSerializer(AttemptSerializer):
    """An attempt with its stack."""

    class Meta(AttemptSerializer.Meta):
        fields: tuple[str, ...] = (*AttemptSerializer.Meta.fields, "traceback")
        read_only_fields = fields


class PayloadSerializer(serializers.Serializer[Any]):
    """What a job was asked to do; what is sensitive is masked."""

    args = serializers.JSONField()
    kwargs = serializers.JSONField()
    options = serializers.JSONField()
    result = serializers.JSONField(help_text="null where none is kept.")
    problem = serializers.CharField(help_text="Why it cannot be shown; empty where it can.")


class JobDetailSerializer(JobSerializer):
    """Everything about one job."""

    payload = serializers.SerializerMethodField()
    attempt_list = serializers.SerializerMethodField(
        help_text=f"The last {_MOST_ATTEMPTS}, oldest first."
    )
    dead_letter = serializers.SerializerMethodField(help_text="Its id; null without one.")

    class Meta(JobSerializer.Meta):
        fields: tuple[str, ...] = (
            *JobSerializer.Meta.fields,
            "payload",
            "attempt_list",
            "dead_letter",
        )
        read_only_fields = fields

    @extend_schema_field(PayloadSerializer)
    def get_payload(self, job: Job) -> dict[str, Any]:
        nothing = {"args": None, "kwargs": None, "options": None, "result": None}
        try:
            found = revealing.visible(job)
        except Undecryptable as error:
            return {**nothing, "problem": str(error)}
        except Exception:
            # Boundary: neither hostile nesting nor a host's mask may break the answer, and
            # what could not be masked is not shown.
            logger.exception("Payload not shown job=%s", job.pk)
            return {**nothing, "problem": "It cannot be shown; the log says why."}
        if found is None:
            return {**nothing, "problem": "The message cannot be read."}
        return {
            "args": found.args,
            "kwargs": found.kwargs,
            "options": found.options,
            "result": found.result,
            "problem": "",
        }

    @extend_schema_field(JobAttemptSerializer(many=True))
    def get_attempt_list(self, job: Job) -> Any:
        last = job.attempt_set.order_by("-id")[:_MOST_ATTEMPTS]
        return JobAttemptSerializer(last[::-1], many=True).data

    @extend_schema_field({"type": "integer", "nullable": True})
    def get_dead_letter(self, job: Job) -> int | None:
        letter = getattr(job, "dead_letter", None)
        return letter.pk if letter is not None else None


class JobQuerySerializer(serializers.Serializer[Any]):
    """Which jobs; "failed" means retrying or dead."""

    state = serializers.ChoiceField(choices=[*JobState.values, "failed"], required=False)
    queue = serializers.CharField(max_length=100, required=False)
    actor = serializers.CharField(max_length=200, required=False)
    since = serializers.DateTimeField(required=False, help_text="Enqueued then or later.")
    until = serializers.DateTimeField(required=False, help_text="Enqueued before.")


class AttemptQuerySerializer(serializers.Serializer[Any]):
    """Which attempts."""

    outcome = serializers.ChoiceField(choices=Outcome.values, required=False)
    job = serializers.CharField(max_length=64, required=False, help_text="Of this job.")
    queue = serializers.CharField(max_length=100, required=False)


class NewJobSerializer(serializers.Serializer[Any]):
    """A job to enqueue."""

    actor = serializers.CharField(max_length=200)
    args = serializers.ListField(child=serializers.JSONField(), required=False, default=list)
    kwargs = serializers.DictField(child=serializers.JSONField(), required=False, default=dict)
    at = serializers.DateTimeField(
        required=False, default=None, allow_null=True, help_text="When it is due; null for now."
    )
    priority = serializers.ChoiceField(choices=list(Priority.BY_NAME), required=False, default="")
    unique_key = serializers.CharField(
        max_length=150, required=False, default="", allow_blank=True,
        help_text="Of jobs with this key and actor one is unfinished at a time.",
    )  # fmt: skip
    reason = serializers.CharField(max_length=2_000, required=False, default="", allow_blank=True)


class EnqueuedSerializer(serializers.Serializer[Any]):
    """What an enqueue led to."""

    id = serializers.CharField()
    is_new = serializers.BooleanField(
        help_text="false where another job, the one with this id, holds the unique key."
    )


class RescheduleSerializer(ReasonSerializer):
    """When the job is due."""

    to = serializers.DateTimeField(help_text="What has passed means now.")


class CancelledSerializer(serializers.Serializer[Any]):
    """How certain a cancel is."""

    cancelled = serializers.BooleanField(
        help_text="false while a worker holds the job: it is interrupted, or does not start, "
        "unless it completes before."
    )


JOB = {
    "id": "0b3f9a52-8f0a-4c46-9d5c-3c2f3b1a7e10",
    "queue": "whatsapp-messages",
    "actor": "order_confirmation",
    "state": "retrying",
    "priority": "normal",
    "attempts": 2,
    "max_attempts": 5,
    "requeues": 0,
    "crashes": 0,
    "subject": "orders.order:4711",
    "parent": "",
    "group": "",
    "unique_key": "",
    "progress": {"done": None, "total": None, "text": ""},
    "worker": "web1:4121",
    "error_class": "RateLimited",
    "error_message": "(#80007) Rate limit hit",
    "enqueued_at": "2026-11-24T10:00:00Z",
    "due_at": "2026-11-24T10:00:35Z",
    "started_at": "2026-11-24T10:00:05Z",
    "finished_at": None,
    "cancel_requested_at": None,
    "erased_at": None,
}
REASON = example("because", {"reason": "asked by the shop"}, request=True)


class JobPages(Pages):
    """Pages of jobs; see `listing` for those of all completed ones."""

    # As the indices have it.
    tie_breaker = "id"

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        """Return a page; of completed jobs by the ids among which it lies."""
        given = {name for name, value in request.query_params.items() if value}
        is_whole = given <= {"state", "limit", "cursor"}
        if is_whole and request.query_params.get("state") == JobState.COMPLETED:
            queryset = self._narrowed(queryset, request)
        return super().paginate_queryset(queryset, request, view)

    def _narrowed(self, jobs: "QuerySet[Any]", request: Request) -> "QuerySet[Any]":
        cursor = self.decode_cursor(request)
        offset, is_backwards, position = cursor or (0, False, None)
        # One more than the page, by which the base class knows whether another one follows.
        count = offset + self.get_page_size(request) + 1
        if count > _MOST_NARROWED:
            return jobs
        ids = listing.newest(
            JobState.COMPLETED,
            count,
            beyond=datetime.fromisoformat(position) if position else None,
            is_backwards=is_backwards,
        )
        return jobs if ids is None else jobs.filter(pk__in=ids)


class JobsView(ApiViewSet):
    """Jobs: look up, cancel, reschedule, run now, remove."""

    pagination_class = JobPages

    verbs: ClassVar = {
        "list": "view_job",
        "retrieve": "view_job",
        "destroy": "clean_job",
        "cancel": "cancel_job",
        "reschedule": "reschedule_job",
        "retry": "retry_job",
    }
    serializer_class = JobSerializer

    @documented(
        "List jobs, newest first",
        tag=TAG,
        verb="view_job",
        query=JobQuerySerializer,
        answer=JobSerializer(many=True),
        finds=True,
        examples=[example("a job", JOB)],
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of jobs."""
        return self.page(jobs.list(**self.query(JobQuerySerializer)), JobSerializer, "-enqueued_at")

    @documented(
        "Show a job with its payload and attempts",
        tag=TAG,
        verb="view_job",
        answer=JobDetailSerializer,
        finds=True,
    )
    def retrieve(self, request: Request, id: str) -> Response:
        """Answer with everything about a job."""
        return Response(JobDetailSerializer(jobs.get(id)).data)

    @documented(
        "Remove a job that has ended",
        tag=TAG,
        verb="clean_job",
        status=204,
        finds=True,
        conflicts=True,
        description="With its attempts and its dead letter, which must be closed.",
    )
    def destroy(self, request: Request, id: str) -> Response:
        """Remove a job."""
        retention.remove(jobs.get(id).pk, by=self.user)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @documented(
        "Cancel a job",
        tag=TAG,
        verb="cancel_job",
        body=ReasonSerializer,
        answer=CancelledSerializer,
        finds=True,
        conflicts=True,
        examples=[REASON],
    )
    def cancel(self, request: Request, id: str) -> Response:
        """Cancel a job that has not ended."""
        result = jobs.cancel(id, by=self.user, **self.body(ReasonSerializer))
        one(result, gone=jobs.Skip.GONE.value)
        return Response({"cancelled": result.stopping == 0})

    @documented(
        "Make a job due at another time",
        tag=TAG,
        verb="reschedule_job",
        body=RescheduleSerializer,
        answer=JobSerializer,
        finds=True,
        conflicts=True,
        examples=[example("tomorrow", {"to": "2026-11-25T08:00:00Z"}, request=True)],
    )
    def reschedule(self, request: Request, id: str) -> Response:
        """Change when a scheduled, retrying or waiting job is due."""
        wanted = self.body(RescheduleSerializer)
        try:
            result = jobs.reschedule(id, wanted["to"], by=self.user, reason=wanted["reason"])
        except ValueError as error:
            raise serializers.ValidationError({"to": [str(error)]}) from error
        one(result, gone=jobs.Skip.GONE.value)
        return Response(JobSerializer(jobs.get(id)).data)

    @documented(
        "Run a job now",
        tag=TAG,
        verb="retry_job",
        body=RequeueOneSerializer,
        answer=JobSerializer,
        finds=True,
        conflicts=True,
        repeats=True,
        examples=[REASON],
        description="A scheduled or retrying job becomes due now; a dead one gets a new round of "
        "attempts by its dead letter, which takes `queueadmin.requeue_deadletter` too.",
    )
    @idempotent
    def retry(self, request: Request, id: str) -> Response:
        """Run a job now, or requeue its dead letter."""
        wanted = self.body(RequeueOneSerializer)
        job = jobs.get(id)
        if job.state == JobState.DEAD:
            letter = getattr(job, "dead_letter", None)
            if letter is None:
                raise Conflict("It is dead and has no dead letter.")
            letters.requeue_one(letter.pk, by=self.user, **wanted)
        else:
            result = jobs.retry(id, by=self.user, reason=wanted["reason"])
            one(result, gone=jobs.Skip.GONE.value)
        return Response(JobSerializer(jobs.get(id)).data)


class AttemptsView(ApiViewSet):
    """Attempts of all jobs."""

    verbs: ClassVar = {"list": "view_job"}
    serializer_class = AttemptSerializer

    @documented(
        "List attempts, newest first",
        tag=TAG,
        verb="view_job",
        query=AttemptQuerySerializer,
        answer=AttemptSerializer(many=True),
        finds=True,
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of attempts."""
        wanted = self.query(AttemptQuerySerializer)
        names = {"outcome": "outcome", "job": "job_id", "queue": "job__queue"}
        rows = Attempt.objects.defer("traceback").filter(
            **{names[name]: value for name, value in wanted.items()}
        )
        return self.page(rows, AttemptSerializer, "-id")
