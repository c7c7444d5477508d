"""Dead letters."""

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth import get_user_model
from django.db import transaction
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import deadletters, retention
from ..conf import settings
from ..models import DeadLetter, Note
from ..models.dead_letter import Urgency
from ..states import DeadLetterStatus, DeathCause
from .base import (
    ApiViewSet,
    ReasonSerializer,
    RequiredReasonSerializer,
    ResultSerializer,
    documented,
    example,
    idempotent,
    one,
    user_named,
)
from .problems import Conflict

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

TAG = "Dead letters"
URGENCIES = {urgency.name.lower(): urgency for urgency in Urgency}
_NAMES = {urgency.value: name for name, urgency in URGENCIES.items()}
_MOST_NOTES = 500


class DeadLetterSerializer(serializers.ModelSerializer[DeadLetter]):
    """A dead letter as lists show it."""

    id = serializers.IntegerField()
    job = serializers.CharField(source="job_id", help_text="The job's id.")
    status = serializers.ChoiceField(choices=DeadLetterStatus.values)
    died_by = serializers.ChoiceField(choices=DeathCause.values)
    priority = serializers.ChoiceField(
        choices=list(URGENCIES), source="urgency_name", help_text="How soon staff should look."
    )
    assignee = serializers.CharField(
        source="assignee_name", allow_null=True, help_text="Name of the user it is assigned to."
    )

    class Meta:
        model = DeadLetter
        fields: tuple[str, ...] = (
            "id", "job", "status", "died_by", "queue", "actor", "error_class", "error_message",
            "fingerprint", "release", "worker", "attempts", "deaths", "priority", "assignee",
            "died_at", "requeued_at", "recovered_at", "closed_at", "closing_reason",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, letter: DeadLetter) -> Any:
        """Name what the row has as numbers and keys."""
        letter.urgency_name = _NAMES.get(letter.urgency, "normal")  # type: ignore[attr-defined]
        name = letter.assignee.get_username() if letter.assignee else None
        letter.assignee_name = name  # type: ignore[attr-defined]
        return super().to_representation(letter)


class NoteSerializer(serializers.ModelSerializer[Note]):
    """What somebody found out."""

    author = serializers.CharField(source="author_name", read_only=True)

    class Meta:
        model = Note
        fields: tuple[str, ...] = ("id", "author", "text", "written_at")
        read_only_fields = ("id", "written_at")


class DeadLetterDetailSerializer(DeadLetterSerializer):
    """Everything about a dead letter; its job has the payload."""

    notes = serializers.SerializerMethodField()

    class Meta(DeadLetterSerializer.Meta):
        fields: tuple[str, ...] = (*DeadLetterSerializer.Meta.fields, "traceback", "notes")
        read_only_fields = fields

    def get_notes(self, letter: DeadLetter) -> list[dict[str, Any]]:
        return NoteSerializer(letter.notes.all()[:_MOST_NOTES], many=True).data  # type: ignore[return-value]


class DeadLetterQuerySerializer(serializers.Serializer[Any]):
    """Which dead letters."""

    status = serializers.ChoiceField(choices=DeadLetterStatus.values, required=False)
    queue = serializers.CharField(max_length=100, required=False)
    actor = serializers.CharField(max_length=200, required=False)
    error_class = serializers.CharField(max_length=200, required=False)
    fingerprint = serializers.CharField(max_length=32, required=False)
    assignee = serializers.CharField(
        max_length=150, required=False, help_text='A user\'s name; "none" for nobody.'
    )
    since = serializers.DateTimeField(required=False, help_text="Died then or later.")
    until = serializers.DateTimeField(required=False, help_text="Died before.")


class FilterSerializer(serializers.Serializer[Any]):
    """Pending dead letters that have all of these; at least one must be given."""

    queue = serializers.CharField(max_length=100, required=False)
    actor = serializers.CharField(max_length=200, required=False)
    error_class = serializers.CharField(max_length=200, required=False)
    fingerprint = serializers.CharField(max_length=32, required=False)

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse a filter that would mean everything."""
        if unknown := set(self.initial_data or {}) - set(self.fields):
            raise ValidationError({name: ["There is no such field."] for name in sorted(unknown)})
        if not data:
            raise ValidationError("Give at least one field, or all pending ones would be meant.")
        return data


class SelectionSerializer(ReasonSerializer):
    """Dead letters by their ids or by a filter."""

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        required=False,
        allow_empty=False,
    )
    filter = serializers.DictField(
        child=serializers.CharField(max_length=200), required=False,
        help_text="`queue`, `actor`, `error_class`, `fingerprint`: pending dead letters that "
        "have all of them.",
    )  # fmt: skip

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse both and neither; find what the filter means."""
        if ("ids" in data) == ("filter" in data):
            raise ValidationError("Give either ids or filter.")
        if "filter" in data:
            inner = FilterSerializer(data=data["filter"])
            if not inner.is_valid():
                raise ValidationError({"filter": inner.errors})
            data["filter"] = inner.validated_data
        elif len(data["ids"]) > settings.BULK_LIMIT:
            raise ValidationError({"ids": [f"At most {settings.BULK_LIMIT:,} at a time."]})
        return data


def selected(wanted: dict[str, Any]) -> list[int]:
    """Return the keys that a checked selection means; one more than may be done at once."""
    if "ids" in wanted:
        return list(wanted["ids"])
    found = DeadLetter.objects.pending().filter(**wanted["filter"]).order_by("pk")
    return list(found.values_list("pk", flat=True)[: settings.BULK_LIMIT + 1])


class RequeueSerializer(SelectionSerializer):
    """Which dead letters to requeue."""

    dry_run = serializers.BooleanField(
        required=False, default=False, help_text="Only say what would be done."
    )


class TriageSerializer(serializers.Serializer[Any]):
    """What to change; what is not given stays."""

    assignee = serializers.CharField(
        max_length=254,
        required=False,
        allow_null=True,
        help_text="A user's name or e-mail address; null: nobody.",
    )
    priority = serializers.ChoiceField(choices=list(URGENCIES), required=False)
    note = serializers.CharField(max_length=10_000, required=False, help_text="Added to the notes.")

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse nothing."""
        if not data:
            raise ValidationError("Give assignee, priority or note.")
        return data


class RequeueOneSerializer(ReasonSerializer):
    """Why it is repeated."""

    confirm = serializers.CharField(
        max_length=200, required=False, default="", allow_blank=True,
        help_text="Name of the actor, where that says that it is not safe to repeat.",
    )  # fmt: skip


class TextSerializer(serializers.Serializer[Any]):
    """A note."""

    text = serializers.CharField(max_length=10_000)


LETTER = {
    "id": 812,
    "job": "0b3f9a52-8f0a-4c46-9d5c-3c2f3b1a7e10",
    "status": "pending",
    "died_by": "attempts_exhausted",
    "queue": "whatsapp-messages",
    "actor": "order_confirmation",
    "error_class": "RateLimited",
    "error_message": "(#80007) Rate limit hit",
    "fingerprint": "5d2c9a1f0b7e4c33",
    "release": "5.2",
    "worker": "web1:4121",
    "attempts": 5,
    "deaths": 1,
    "priority": "normal",
    "assignee": None,
    "died_at": "2026-11-24T10:02:35Z",
    "requeued_at": None,
    "recovered_at": None,
    "closed_at": None,
    "closing_reason": "",
}
SELECTION = example(
    "by a filter",
    {"filter": {"queue": "whatsapp-messages", "error_class": "RateLimited"}, "dry_run": True},
    request=True,
)


def requeue_one(pk: int, *, by: "User", reason: str, confirm: str = "") -> None:
    """Requeue one dead letter, or raise why not.

    Raises:
        NotPermitted: `by` may not requeue.
        NotFound: there is no such dead letter.
        Conflict: it is not pending, or its job cannot run again.
    """
    result = deadletters.requeue([pk], by=by, reason=reason, confirmed=confirm)
    if deadletters.Skip.UNSAFE.value in result.skipped:
        raise Conflict(
            "Nothing was done: its actor says that it is not safe to repeat. Send the actor's name "
            "as confirm, once you know what a repeat does."
        )
    if held := result.held_by.get(pk):
        raise Conflict(f"Nothing was done: the job {held} holds its unique key.")
    one(result, gone=deadletters.Skip.GONE.value)


class DeadLettersView(ApiViewSet):
    """Dead letters: look up, triage, requeue, close, remove."""

    verbs: ClassVar = {
        "list": "view_deadletter",
        "retrieve": "view_deadletter",
        "partial_update": "view_deadletter",  # each field asks for its own beside it
        "destroy": "clean_job",
        "notes": "annotate_deadletter",
        "requeue": "requeue_deadletter",
        "requeue_many": "requeue_deadletter",
        "mark_failed": "close_deadletter",
    }
    serializer_class = DeadLetterSerializer

    @documented(
        "List dead letters, newest first",
        tag=TAG,
        verb="view_deadletter",
        query=DeadLetterQuerySerializer,
        answer=DeadLetterSerializer(many=True),
        finds=True,
        examples=[example("a dead letter", LETTER)],
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of dead letters."""
        wanted = self.query(DeadLetterQuerySerializer)
        rows: QuerySet[DeadLetter] = DeadLetter.objects.for_list()
        names = {"since": "died_at__gte", "until": "died_at__lt"}
        if (assignee := wanted.pop("assignee", None)) is not None:
            rows = _of(rows, assignee)
        rows = rows.filter(**{names.get(name, name): value for name, value in wanted.items()})
        return self.page(rows, DeadLetterSerializer, "-died_at")

    @documented(
        "Show a dead letter with its stack and notes",
        tag=TAG,
        verb="view_deadletter",
        answer=DeadLetterDetailSerializer,
        finds=True,
    )
    def retrieve(self, request: Request, id: str) -> Response:
        """Answer with everything about a dead letter."""
        return Response(DeadLetterDetailSerializer(_letter(id)).data)

    @documented(
        "Assign a dead letter, set its priority, add a note",
        tag=TAG,
        verb="view_deadletter",
        body=TriageSerializer,
        answer=DeadLetterDetailSerializer,
        finds=True,
        conflicts=True,
        examples=[
            example(
                "take it",
                {"assignee": "mira", "priority": "urgent", "note": "On it."},
                request=True,
            )
        ],
        description="All or nothing. `assignee` and `priority` take "
        "`queueadmin.assign_deadletter`, `note` takes `queueadmin.annotate_deadletter`.",
    )
    def partial_update(self, request: Request, id: str) -> Response:
        """Change what is given."""
        wanted = self.body(TriageSerializer)
        letter = _letter(id)
        with transaction.atomic():
            if "assignee" in wanted:
                to = user_named(wanted["assignee"], verb="view_deadletter", field="assignee")
                _applied(deadletters.assign([letter.pk], to=to, by=self.user))
            if "priority" in wanted:
                urgency = URGENCIES[wanted["priority"]]
                _applied(deadletters.set_urgency([letter.pk], urgency=urgency, by=self.user))
            if "note" in wanted:
                deadletters.annotate(letter.pk, text=wanted["note"], by=self.user)
        return Response(DeadLetterDetailSerializer(_letter(id)).data)

    @documented(
        "Remove a closed dead letter with its job",
        tag=TAG,
        verb="clean_job",
        status=204,
        finds=True,
        conflicts=True,
        description="One that is open is refused: requeue it, or mark it permanently failed.",
    )
    def destroy(self, request: Request, id: str) -> Response:
        """Remove a dead letter and its job."""
        retention.remove(_letter(id).job_id, by=self.user)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @documented(
        "Add a note to a dead letter",
        tag=TAG,
        verb="annotate_deadletter",
        body=TextSerializer,
        answer=NoteSerializer,
        status=201,
        finds=True,
        repeats=True,
        examples=[example("a note", {"text": "The provider had an outage."}, request=True)],
    )
    @idempotent
    def notes(self, request: Request, id: str) -> Response:
        """Add a note."""
        note = deadletters.annotate(_key(id), by=self.user, **self.body(TextSerializer))
        return Response(NoteSerializer(note).data, status=status.HTTP_201_CREATED)

    @documented(
        "Give a dead letter's job a new round of attempts",
        tag=TAG,
        verb="requeue_deadletter",
        body=RequeueOneSerializer,
        answer=DeadLetterSerializer,
        finds=True,
        conflicts=True,
        repeats=True,
        examples=[example("why", {"reason": "The provider is back."}, request=True)],
    )
    @idempotent
    def requeue(self, request: Request, id: str) -> Response:
        """Requeue one."""
        requeue_one(_key(id), by=self.user, **self.body(RequeueOneSerializer))
        return Response(DeadLetterSerializer(_letter(id)).data)

    @documented(
        "Requeue many dead letters",
        name="dead_letters_requeue_many",
        tag=TAG,
        verb="requeue_deadletter",
        body=RequeueSerializer,
        answer=ResultSerializer,
        repeats=True,
        examples=[
            SELECTION,
            example(
                "what would be done",
                {
                    "requested": 140,
                    "done": 138,
                    "skipped": {"already requeued": 2},
                    "dry_run": True,
                },
            ),
        ],
        description="At most `BULK_LIMIT` at a time, all at once. For a canary, a rate and a stop "
        "at failures start a requeue operation.",
    )
    @idempotent
    def requeue_many(self, request: Request) -> Response:
        """Requeue those selected, or say what that would do."""
        wanted = self.body(RequeueSerializer)
        ids = selected(wanted)
        if wanted["dry_run"]:
            result = deadletters.preview(ids, "requeue")
        else:
            result = deadletters.requeue(ids, by=self.user, reason=wanted["reason"])
        return Response({
            "requested": result.requested,
            "done": result.done,
            "skipped": result.skipped,
            "dry_run": wanted["dry_run"],
        })  # fmt: skip

    @documented(
        "Mark a dead letter permanently failed",
        tag=TAG,
        verb="close_deadletter",
        body=RequiredReasonSerializer,
        answer=DeadLetterSerializer,
        finds=True,
        conflicts=True,
        examples=[example("why", {"reason": "The order was refunded."}, request=True)],
    )
    def mark_failed(self, request: Request, id: str) -> Response:
        """Close one; its job will not run again."""
        reason = self.body(RequiredReasonSerializer)["reason"]
        one(
            deadletters.close([_key(id)], by=self.user, reason=reason),
            gone=deadletters.Skip.GONE.value,
        )
        return Response(DeadLetterSerializer(_letter(id)).data)


def _key(text: str) -> int:
    """Return the key in an address, which the address keeps within the database's numbers."""
    return int(text)


def _letter(text: str) -> DeadLetter:
    return DeadLetter.objects.select_related("assignee").get(pk=_key(text))


def _of(rows: "QuerySet[DeadLetter]", assignee: str) -> "QuerySet[DeadLetter]":
    if assignee == "none":
        return rows.filter(assignee=None)
    name = get_user_model().USERNAME_FIELD
    return rows.filter(**{f"assignee__{name}": assignee})


def _applied(result: deadletters.BulkResult) -> None:
    """Raise unless a verb was done, or there was nothing to change."""
    if deadletters.Skip.UNCHANGED.value not in result.skipped:
        one(result, gone=deadletters.Skip.GONE.value)
