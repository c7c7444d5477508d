"""Worker processes, schedules, and the audit trail."""

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from .. import recurring, workers
from ..conf import settings
from ..models import AuditEntry, Worker
from .base import ApiViewSet, ChangedSerializer, ReasonSerializer, documented, idempotent

WORKERS = "Workers"
SCHEDULES = "Schedules"
AUDIT = "Audit"


class WorkerSerializer(serializers.ModelSerializer[Worker]):
    """A worker process."""

    queues = serializers.ListField(child=serializers.CharField())
    wish = serializers.ChoiceField(
        choices=Worker.Wish.values, help_text="What staff want of it; empty: that it runs."
    )
    running = serializers.JSONField(help_text="Job, queue, actor, attempt and start per thread.")
    versions = serializers.DictField(child=serializers.CharField())

    class Meta:
        model = Worker
        fields: tuple[str, ...] = (
            "id", "host", "pid", "started_at", "seen_at", "threads", "queues", "release",
            "versions", "memory_bytes", "recorded", "running", "wish",
        )  # fmt: skip
        read_only_fields = fields


class WorkersView(ApiViewSet):
    """Worker processes: look up, quiet, resume, stop."""

    verbs: ClassVar = {
        "list": "view_worker",
        "quiet": "control_worker",
        "resume": "control_worker",
        "stop": "control_worker",
    }
    pagination_class = None
    serializer_class = WorkerSerializer

    @documented(
        "List the worker processes that are alive",
        tag=WORKERS,
        verb="view_worker",
        answer=WorkerSerializer(many=True),
    )
    def list(self, request: Request) -> Response:
        """Answer with every living process."""
        return Response(WorkerSerializer(workers.alive(), many=True).data)

    def _wished(self, verb: Any, id: str) -> Response:
        worker = Worker.objects.only("pk").get(pk=id).pk
        return Response({"changed": verb(worker, by=self.user, **self.body(ReasonSerializer))})

    @documented(
        "Let a worker finish what it runs and start nothing more",
        tag=WORKERS,
        verb="control_worker",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def quiet(self, request: Request, id: str) -> Response:
        """Quiet a process."""
        return self._wished(workers.quiet, id)

    @documented(
        "Let a quiet worker start jobs again",
        tag=WORKERS,
        verb="control_worker",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def resume(self, request: Request, id: str) -> Response:
        """Resume a process."""
        return self._wished(workers.resume, id)

    @documented(
        "Let a worker finish what it runs and end",
        tag=WORKERS,
        verb="control_worker",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
        description="Its supervisor starts a fresh one in its place.",
    )
    def stop(self, request: Request, id: str) -> Response:
        """Stop a process."""
        return self._wished(workers.stop, id)


class ScheduleSerializer(serializers.Serializer[Any]):
    """What recurs."""

    name = serializers.CharField()
    actor = serializers.CharField(source="schedule.actor")
    when = serializers.CharField(source="words")
    next_at = serializers.DateTimeField(allow_null=True)
    last_at = serializers.DateTimeField(allow_null=True)
    last_job = serializers.SerializerMethodField(help_text="Id of the last job, while it is kept.")
    is_paused = serializers.BooleanField()
    is_late = serializers.BooleanField(help_text="As when no scheduler runs.")

    def get_last_job(self, row: recurring.Recurrence) -> str | None:
        return row.last_job.pk if row.last_job is not None else None


class RanSerializer(serializers.Serializer[Any]):
    """The job of an occasion."""

    job = serializers.CharField(help_text="Its id.")


class SchedulesView(ApiViewSet):
    """Schedules: look up, run now, pause, resume."""

    verbs: ClassVar = {
        "list": "view_schedulecontrol",
        "run": "run_schedule",
        "pause": "pause_schedule",
        "resume": "pause_schedule",
    }
    pagination_class = None
    serializer_class = ScheduleSerializer

    @documented(
        "List schedules",
        tag=SCHEDULES,
        verb="view_schedulecontrol",
        answer=ScheduleSerializer(many=True),
    )
    def list(self, request: Request) -> Response:
        """Answer with every schedule of the settings."""
        return Response(ScheduleSerializer(recurring.listed(), many=True).data)

    @documented(
        "Enqueue a schedule's job now",
        tag=SCHEDULES,
        verb="run_schedule",
        body=ReasonSerializer,
        answer=RanSerializer,
        finds=True,
        conflicts=True,
        repeats=True,
    )
    @idempotent
    def run(self, request: Request, name: str) -> Response:
        """Run a schedule now, also while it is paused."""
        wanted = self.body(ReasonSerializer)
        return Response({"job": recurring.run_now(_known(name), by=self.user, **wanted)})

    @documented(
        "Pause a schedule",
        tag=SCHEDULES,
        verb="pause_schedule",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def pause(self, request: Request, name: str) -> Response:
        """Leave out a schedule's occasions from now on."""
        wanted = self.body(ReasonSerializer)
        return Response({"changed": recurring.pause(_known(name), by=self.user, **wanted)})

    @documented(
        "Resume a schedule",
        tag=SCHEDULES,
        verb="pause_schedule",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def resume(self, request: Request, name: str) -> Response:
        """Let a schedule run again from its next occasion on."""
        wanted = self.body(ReasonSerializer)
        return Response({"changed": recurring.resume(_known(name), by=self.user, **wanted)})


class AuditSerializer(serializers.ModelSerializer[AuditEntry]):
    """Who did what to which record, and why."""

    user = serializers.CharField(source="user_name")
    detail = serializers.JSONField()

    class Meta:
        model = AuditEntry
        fields: tuple[str, ...] = (
            "id",
            "at",
            "user",
            "verb",
            "target_type",
            "target_id",
            "reason",
            "detail",
        )
        read_only_fields = fields


class AuditQuerySerializer(serializers.Serializer[Any]):
    """Which acts."""

    target_type = serializers.CharField(max_length=50, required=False, help_text='As "job".')
    target_id = serializers.CharField(max_length=100, required=False)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


class AuditView(ApiViewSet):
    """The audit trail."""

    verbs: ClassVar = {"list": "view_auditentry"}
    serializer_class = AuditSerializer

    @documented(
        "List who did what, newest first",
        tag=AUDIT,
        verb="view_auditentry",
        query=AuditQuerySerializer,
        answer=AuditSerializer(many=True),
        finds=True,
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of acts."""
        names = {"since": "at__gte", "until": "at__lt"}
        wanted = self.query(AuditQuerySerializer)
        rows = AuditEntry.objects.filter(
            **{names.get(name, name): value for name, value in wanted.items()}
        )
        return self.page(rows, AuditSerializer, "-at")


def _known(name: str) -> str:
    if name not in settings.SCHEDULES:
        raise NotFound(f"There is no schedule {name!r:.100}.")
    return name
