"""Statistics of everything, and recovery runs."""

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from .. import recovery, statistics
from ..models import RecoveryRun
from ..states import DeadLetterStatus
from ..statistics import Flow
from .base import ApiViewSet, documented, example
from .problems import Conflict
from .queues import QUEUE, FlowSerializer, counted, flow

TAG = "Statistics and recovery"
_SHOWN_RUNS = 50


class QueueStatisticsSerializer(serializers.Serializer[Any]):
    """What a queue has to do, and did in the last hour."""

    name = serializers.CharField()
    scheduled = serializers.IntegerField()
    waiting = serializers.IntegerField()
    active = serializers.IntegerField()
    retrying = serializers.IntegerField()
    dead = serializers.IntegerField()
    more = serializers.ListField(child=serializers.CharField())
    last_hour = FlowSerializer()


class LettersOfQueueSerializer(serializers.Serializer[Any]):
    """Dead letters of a queue by status."""

    queue = serializers.CharField()
    pending = serializers.IntegerField()
    requeued = serializers.IntegerField()
    recovered = serializers.IntegerField()
    permanently_failed = serializers.IntegerField()
    more = serializers.ListField(child=serializers.CharField())


class StatisticsSerializer(serializers.Serializer[Any]):
    """All queues and all dead letters."""

    queues = QueueStatisticsSerializer(many=True)
    dead_letters = LettersOfQueueSerializer(many=True)


class RunSerializer(serializers.ModelSerializer[RecoveryRun]):
    """A comparison of ledger and broker."""

    found = serializers.DictField(
        child=serializers.IntegerField(), help_text="What was repaired, by category."
    )
    duration_ms = serializers.SerializerMethodField()
    durations_ms = serializers.DictField(
        child=serializers.FloatField(), help_text="How long each category took."
    )

    class Meta:
        model = RecoveryRun
        fields: tuple[str, ...] = (
            "id",
            "started_at",
            "finished_at",
            "duration_ms",
            "found",
            "durations_ms",
            "error",
        )
        read_only_fields = fields

    def get_duration_ms(self, run: RecoveryRun) -> float | None:
        if run.finished_at is None:
            return None
        return round((run.finished_at - run.started_at).total_seconds() * 1_000, 1)


class RecoverySerializer(serializers.Serializer[Any]):
    """How recovery goes: the totals and the last runs."""

    total_runs = serializers.IntegerField()
    failed_runs = serializers.IntegerField()
    last_run_at = serializers.DateTimeField(allow_null=True)
    runs = RunSerializer(many=True, help_text=f"The last {_SHOWN_RUNS}, newest first.")


class RecoverSerializer(serializers.Serializer[Any]):
    """How to run it."""

    dry_run = serializers.BooleanField(
        required=False, default=False, help_text="Only count what would be done."
    )


_NAMES = (*(state.value for state in statistics.SHOWN_STATES), "name", "more", "last_hour")
RUN = {
    "id": 91,
    "started_at": "2026-11-24T10:05:00Z",
    "finished_at": "2026-11-24T10:05:00.140Z",
    "duration_ms": 140.0,
    "found": {
        "overdue": 0,
        "dead workers' jobs": 4,
        "lost in the broker": 0,
        "finished, still in the broker": 0,
    },
    "durations_ms": {
        "overdue": 3.1,
        "dead workers' jobs": 118.2,
        "lost in the broker": 11.4,
        "finished, still in the broker": 2.6,
    },
    "error": "",
}


class StatisticsView(ApiViewSet):
    """Statistics of everything."""

    verbs: ClassVar = {"show": "view_queue"}
    pagination_class = None
    serializer_class = StatisticsSerializer

    @documented(
        "Show all queues with a summary of their dead letters",
        tag=TAG,
        verb="view_queue",
        answer=StatisticsSerializer,
        description=f"Counting stops at {statistics.POLLED_LIMIT} jobs per queue and state and at as "
        "many dead letters per queue and status; `more` names those of which there are more. "
        "`queues/` counts further.",
        examples=[
            example(
                "one queue",
                {
                    "queues": [{name: QUEUE[name] for name in _NAMES}],
                    "dead_letters": [
                        {
                            "queue": "whatsapp-messages",
                            "pending": 10,
                            "requeued": 0,
                            "recovered": 3,
                            "permanently_failed": 2,
                            "more": [],
                        }
                    ],
                },
            )
        ],
    )
    def show(self, request: Request) -> Response:
        """Answer with the numbers of everything."""
        most = statistics.POLLED_LIMIT
        pairs = statistics.queues_of_jobs()
        names = statistics.queue_names(pairs)
        counts, flows = statistics.counts(names, most=most, pairs=pairs), statistics.last_hour()
        return Response({
            "queues": [
                {"name": name, **counted(counts[name], most=most), "last_hour": flow(flows.get(name, Flow()))}
                for name in names
            ],
            "dead_letters": [
                {
                    "queue": queue,
                    **{
                        status.value: min(found.get(status, 0), most)
                        for status in DeadLetterStatus
                    },
                    "more": [
                        status.value
                        for status in DeadLetterStatus
                        if found.get(status, 0) > most
                    ],
                }
                for queue, found in statistics.letters(most=most).items()
            ],
        })  # fmt: skip


class RecoveryView(ApiViewSet):
    """Recovery runs."""

    verbs: ClassVar = {"show": "view_recoveryrun", "create": "run_recovery"}
    pagination_class = None
    serializer_class = RecoverySerializer

    @documented(
        "Show how recovery goes",
        tag=TAG,
        verb="view_recoveryrun",
        answer=RecoverySerializer,
        examples=[
            example(
                "all well",
                {
                    "total_runs": 91,
                    "failed_runs": 0,
                    "last_run_at": RUN["started_at"],
                    "runs": [RUN],
                },
            )
        ],
    )
    def show(self, request: Request) -> Response:
        """Answer with the totals and the last runs."""
        runs = list(RecoveryRun.objects.order_by("-id")[:_SHOWN_RUNS])
        found = {
            "total_runs": RecoveryRun.objects.count(),
            "failed_runs": RecoveryRun.objects.exclude(error="").count(),
            "last_run_at": runs[0].started_at if runs else None,
            "runs": runs,
        }
        return Response(RecoverySerializer(found).data)

    @documented(
        "Compare ledger and broker now, and repair",
        tag=TAG,
        verb="run_recovery",
        body=RecoverSerializer,
        answer=RunSerializer,
        conflicts=True,
        also=(503,),
        examples=[example("only count", {"dry_run": True}, request=True), example("a run", RUN)],
    )
    def create(self, request: Request) -> Response:
        """Run a recovery."""
        wanted = self.body(RecoverSerializer)
        run = recovery.recover(by=self.user, dry_run=wanted["dry_run"])
        if run is None:
            raise Conflict("Another recovery is under way; wait for its end.")
        return Response(RunSerializer(run).data)
