"""What calls on dead letters take and answer."""

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from ..conf import settings
from ..models import DeadLetter, Note
from ..models.dead_letter import Urgency
from ..states import DeadLetterStatus, DeathCause
from .base import ReasonSerializer

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

    ticket_url = serializers.CharField(help_text="Empty without a ticket.")

    class Meta:
        model = DeadLetter
        fields: tuple[str, ...] = (
            "id", "job", "status", "died_by", "queue", "actor", "error_class", "error_message",
            "fingerprint", "release", "worker", "attempts", "deaths", "priority", "assignee",
            "due_at", "ticket_url", "snoozed_at", "snoozed_until",
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
    due_at = serializers.DateTimeField(required=False, allow_null=True)
    ticket_url = serializers.CharField(
        max_length=500, required=False, allow_blank=True, help_text="Empty removes it."
    )
    note = serializers.CharField(
        max_length=10_000,
        required=False,
        help_text="Added to the notes; `@name` tells that person.",
    )

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse nothing."""
        if not data:
            raise ValidationError("Give assignee, priority, due_at, ticket_url or note.")
        return data


class RequeueOneSerializer(ReasonSerializer):
    """Why it is repeated."""

    confirm = serializers.CharField(
        max_length=200, required=False, default="", allow_blank=True,
        help_text="Name of the actor, where that says that it is not safe to repeat.",
    )  # fmt: skip


class SnoozeSerializer(ReasonSerializer):
    """What ends the snooze; whatever comes first."""

    until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    more_failures = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, max_value=10**9
    )
    until_release = serializers.BooleanField(
        required=False, default=False, help_text="Another release than the last one it failed in."
    )


class TextSerializer(serializers.Serializer[Any]):
    """A note."""

    text = serializers.CharField(max_length=10_000)
