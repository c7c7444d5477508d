"""Requeue operations: many dead letters, a few at a time, under guard."""

from typing import Any, ClassVar

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from .. import operations
from ..models import RequeueOperation
from ..replacing import Replacement
from ..states import OperationStatus
from .base import ApiViewSet, ChangedSerializer, ReasonSerializer, documented, example, idempotent
from .letter_serializers import SelectionSerializer, selected

TAG = "Requeue operations"


class ProgressSerializer(serializers.Serializer[Any]):
    """How far it is; the numbers add up to the total."""

    waiting = serializers.IntegerField()
    sent = serializers.IntegerField(help_text="Requeued, not known yet how it ends.")
    recovered = serializers.IntegerField()
    failed = serializers.IntegerField()
    skipped = serializers.IntegerField()


class _OperationsSerializer(serializers.ListSerializer[Any]):
    """Several operations, whose progress is one query."""

    def to_representation(self, data: Any) -> Any:
        """Put the progress beside each row."""
        found = operations.progress(data)
        for operation in data:
            operation.progress = found[operation.pk]
        return super().to_representation(data)


class OperationSerializer(serializers.ModelSerializer[RequeueOperation]):
    """A requeue operation with its progress."""

    status = serializers.ChoiceField(choices=OperationStatus.values)
    owner = serializers.CharField(source="owner_name")
    group = serializers.IntegerField(source="group_id", allow_null=True)
    progress = ProgressSerializer()

    class Meta:
        model = RequeueOperation
        list_serializer_class = _OperationsSerializer
        fields: tuple[str, ...] = (
            "id", "name", "reason", "status", "owner", "group", "rate", "canary",
            "stop_at_percent", "total", "progress", "argument", "argument_before",
            "argument_after", "note", "created_at", "start_at", "started_at", "finished_at",
        )  # fmt: skip
        read_only_fields = fields


class ReplacementSerializer(serializers.Serializer[Any]):
    """What of one argument becomes what."""

    argument = serializers.CharField(max_length=200)
    before = serializers.CharField(
        max_length=10_000, allow_blank=True, trim_whitespace=False,
        help_text="Only jobs with exactly this value are changed: text as it is where the actor "
        "takes text, else JSON.",
    )  # fmt: skip
    after = serializers.CharField(max_length=10_000, allow_blank=True, trim_whitespace=False)


class NewOperationSerializer(SelectionSerializer):
    """What to requeue, and how carefully."""

    name = serializers.CharField(max_length=100)
    rate = serializers.FloatField(
        required=False, default=20.0, min_value=0.001, max_value=operations.MAX_RATE,
        help_text="Jobs per second.",
    )  # fmt: skip
    canary = serializers.IntegerField(
        required=False, default=10, min_value=0, max_value=10_000,
        help_text="Jobs that run first; the rest waits for how they end.",
    )  # fmt: skip
    stop_at_percent = serializers.IntegerField(
        required=False, default=20, min_value=1, max_value=100,
        help_text="Share of failures at which it stops by itself.",
    )  # fmt: skip
    start_at = serializers.DateTimeField(required=False, default=None, allow_null=True)
    change = ReplacementSerializer(
        required=False,
        help_text="Takes `queueadmin.edit_many_deadletter` and `queueadmin.edit_deadletter`, too.",
    )


OPERATION = {
    "id": 7,
    "name": "After the outage",
    "reason": "The provider is back.",
    "status": "canary",
    "owner": "mira",
    "group": None,
    "rate": 20.0,
    "canary": 10,
    "stop_at_percent": 20,
    "total": 140,
    "progress": {"waiting": 130, "sent": 10, "recovered": 0, "failed": 0, "skipped": 0},
    "argument": "",
    "argument_before": "",
    "argument_after": "",
    "note": "",
    "created_at": "2026-11-24T10:10:00Z",
    "start_at": "2026-11-24T10:10:00Z",
    "started_at": "2026-11-24T10:10:01Z",
    "finished_at": None,
}


class OperationsView(ApiViewSet):
    """Requeue operations: start, watch, pause, resume, abort."""

    verbs: ClassVar = {
        "list": "view_requeueoperation",
        "retrieve": "view_requeueoperation",
        "create": "requeue_deadletter",
        "pause": "requeue_deadletter",
        "resume": "requeue_deadletter",
        "abort": "requeue_deadletter",
    }
    serializer_class = OperationSerializer

    @documented(
        "List requeue operations, newest first",
        tag=TAG,
        verb="view_requeueoperation",
        answer=OperationSerializer(many=True),
        finds=True,
        also=(400,),
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of operations."""
        return self.page(RequeueOperation.objects.all(), OperationSerializer, "-id")

    @documented(
        "Show a requeue operation",
        tag=TAG,
        verb="view_requeueoperation",
        answer=OperationSerializer,
        finds=True,
    )
    def retrieve(self, request: Request, id: str) -> Response:
        """Answer with one operation and how far it is."""
        return Response(_shown(int(id)))

    @documented(
        "Start a requeue operation",
        tag=TAG,
        verb="requeue_deadletter",
        body=NewOperationSerializer,
        answer=OperationSerializer,
        status=201,
        repeats=True,
        examples=[
            example(
                "one cause",
                {
                    "name": "After the outage",
                    "filter": {"error_class": "RateLimited"},
                    "canary": 10,
                },
                request=True,
            ),
            example("it begins", OPERATION),
        ],
        description="The list is frozen, a canary runs first, it stops by itself when too many "
        "fail again, and dispatchers carry it on across restarts.",
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Freeze the list and begin."""
        wanted = self.body(NewOperationSerializer)
        try:
            operation = operations.create(
                selected(wanted),
                by=self.user,
                replacement=Replacement(**wanted["change"]) if "change" in wanted else None,
                **{
                    name: wanted[name]
                    for name in ("name", "reason", "rate", "canary", "stop_at_percent", "start_at")
                },
            )
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        return Response(_shown(operation.pk), status=status.HTTP_201_CREATED)

    def _steered(self, verb: Any, id: str) -> Response:
        pk = RequeueOperation.objects.only("pk").get(pk=int(id)).pk
        return Response({"changed": verb(pk, by=self.user, **self.body(ReasonSerializer))})

    @documented(
        "Pause a requeue operation",
        tag=TAG,
        verb="requeue_deadletter",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def pause(self, request: Request, id: str) -> Response:
        """Release no more until somebody resumes it."""
        return self._steered(operations.pause, id)

    @documented(
        "Resume a requeue operation that was paused or has stopped",
        tag=TAG,
        verb="requeue_deadletter",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def resume(self, request: Request, id: str) -> Response:
        """Go on."""
        return self._steered(operations.resume, id)

    @documented(
        "Abort a requeue operation",
        tag=TAG,
        verb="requeue_deadletter",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def abort(self, request: Request, id: str) -> Response:
        """End it; what was requeued goes on."""
        return self._steered(operations.abort, id)


def _shown(pk: int) -> Any:
    operation: Any = RequeueOperation.objects.get(pk=pk)
    operation.progress = operations.progress([operation])[pk]
    return OperationSerializer(operation).data
