"""Failure groups: one trouble behind many dead letters."""

from typing import Any, ClassVar

from django.db import transaction
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import failuregroups
from ..models import FailureGroup, GroupNote
from ..states import GroupStatus
from .base import (
    REASON_LENGTH,
    ApiViewSet,
    ChangedSerializer,
    ReasonSerializer,
    documented,
    example,
    idempotent,
    user_named,
)
from .letter_serializers import SnoozeSerializer, TextSerializer

TAG = "Failure groups"
_MOST_NOTES = 500


class GroupSerializer(serializers.ModelSerializer[FailureGroup]):
    """A failure group as lists show it."""

    status = serializers.ChoiceField(choices=GroupStatus.values)
    owner = serializers.SerializerMethodField()
    ticket_url = serializers.CharField(help_text="Empty without a ticket.")

    class Meta:
        model = FailureGroup
        fields: tuple[str, ...] = (
            "id", "fingerprint", "status", "queue", "actor", "error_class", "error_message",
            "first_seen_at", "last_seen_at", "first_release", "last_release", "deaths", "owner",
            "ticket_url", "resolved_at", "resolution", "regressed_at", "regressions",
            "snoozed_until",
        )  # fmt: skip
        read_only_fields = fields

    def get_owner(self, group: FailureGroup) -> str | None:
        return group.owner.get_username() if group.owner else None


class GroupNoteSerializer(serializers.ModelSerializer[GroupNote]):
    """What somebody found out."""

    author = serializers.CharField(source="author_name")

    class Meta:
        model = GroupNote
        fields: tuple[str, ...] = ("id", "author", "text", "written_at")
        read_only_fields = fields


class GroupDetailSerializer(GroupSerializer):
    """Everything about a failure group."""

    notes = serializers.SerializerMethodField()

    class Meta(GroupSerializer.Meta):
        fields: tuple[str, ...] = (*GroupSerializer.Meta.fields, "notes")
        read_only_fields = fields

    def get_notes(self, group: FailureGroup) -> list[dict[str, Any]]:
        return GroupNoteSerializer(group.notes.all()[:_MOST_NOTES], many=True).data  # type: ignore[return-value]


class GroupQuerySerializer(serializers.Serializer[Any]):
    """Which failure groups."""

    status = serializers.ChoiceField(choices=GroupStatus.values, required=False)
    queue = serializers.CharField(max_length=100, required=False)
    actor = serializers.CharField(max_length=200, required=False)
    error_class = serializers.CharField(max_length=200, required=False)
    fingerprint = serializers.CharField(max_length=32, required=False)


class ResolveSerializer(serializers.Serializer[Any]):
    """What ended the trouble."""

    what_was_done = serializers.CharField(max_length=REASON_LENGTH)
    seen_deaths = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=0, max_value=2**62,
        help_text="`deaths` as you saw it: when there are more by now, nothing is changed.",
    )  # fmt: skip


class GroupTriageSerializer(serializers.Serializer[Any]):
    """What to change; what is not given stays."""

    owner = serializers.CharField(
        max_length=254,
        required=False,
        allow_null=True,
        help_text="A user's name or e-mail address; null: nobody.",
    )
    ticket_url = serializers.CharField(max_length=500, required=False, allow_blank=True)

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        """Refuse nothing."""
        if not data:
            raise ValidationError("Give owner or ticket_url.")
        return data


class GroupsView(ApiViewSet):
    """Failure groups: look up, triage, resolve, reopen, snooze."""

    verbs: ClassVar = {
        "list": "view_failuregroup",
        "retrieve": "view_failuregroup",
        "partial_update": "triage_failuregroup",
        "notes": "annotate_failuregroup",
        "resolve": "resolve_failuregroup",
        "reopen": "resolve_failuregroup",
        "snooze": "triage_failuregroup",
    }
    serializer_class = GroupSerializer

    @documented(
        "List failure groups, last seen first",
        tag=TAG,
        verb="view_failuregroup",
        query=GroupQuerySerializer,
        answer=GroupSerializer(many=True),
        finds=True,
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of groups."""
        rows = FailureGroup.objects.select_related("owner")
        rows = rows.filter(**self.query(GroupQuerySerializer))
        return self.page(rows, GroupSerializer, "-last_seen_at")

    @documented(
        "Show a failure group with its notes",
        tag=TAG,
        verb="view_failuregroup",
        answer=GroupDetailSerializer,
        finds=True,
    )
    def retrieve(self, request: Request, id: str) -> Response:
        """Answer with everything about a group."""
        return Response(GroupDetailSerializer(_group(id)).data)

    @documented(
        "Give a failure group to a person, link its ticket",
        tag=TAG,
        verb="triage_failuregroup",
        body=GroupTriageSerializer,
        answer=GroupDetailSerializer,
        finds=True,
        examples=[example("take it", {"owner": "mira"}, request=True)],
    )
    def partial_update(self, request: Request, id: str) -> Response:
        """Change what is given, all or nothing."""
        wanted = self.body(GroupTriageSerializer)
        group = _group(id)
        with transaction.atomic():
            if "owner" in wanted:
                failuregroups.assign(
                    group.pk,
                    to=user_named(wanted["owner"], verb="view_failuregroup", field="owner"),
                    by=self.user,
                )
            if "ticket_url" in wanted:
                try:
                    failuregroups.link_ticket(group.pk, url=wanted["ticket_url"], by=self.user)
                except ValueError as error:
                    raise ValidationError({"ticket_url": [str(error)]}) from error
        return Response(GroupDetailSerializer(_group(id)).data)

    @documented(
        "Add a note to a failure group",
        tag=TAG,
        verb="annotate_failuregroup",
        body=TextSerializer,
        answer=GroupNoteSerializer,
        status=201,
        finds=True,
        repeats=True,
    )
    @idempotent
    def notes(self, request: Request, id: str) -> Response:
        """Add a note."""
        note = failuregroups.annotate(int(id), by=self.user, **self.body(TextSerializer))
        return Response(GroupNoteSerializer(note).data, status=status.HTTP_201_CREATED)

    @documented(
        "Resolve a failure group",
        tag=TAG,
        verb="resolve_failuregroup",
        body=ResolveSerializer,
        answer=ChangedSerializer,
        finds=True,
        examples=[example("mended", {"what_was_done": "Raised the limit to 80/s."}, request=True)],
        description="The next failure makes it regressed.",
    )
    def resolve(self, request: Request, id: str) -> Response:
        """Say that the trouble is over."""
        wanted = self.body(ResolveSerializer)
        return Response({"changed": failuregroups.resolve(_group(id).pk, by=self.user, **wanted)})

    @documented(
        "Reopen a failure group",
        tag=TAG,
        verb="resolve_failuregroup",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
    )
    def reopen(self, request: Request, id: str) -> Response:
        """Open a resolved or snoozed group again."""
        wanted = self.body(ReasonSerializer)
        return Response({"changed": failuregroups.reopen(_group(id).pk, by=self.user, **wanted)})

    @documented(
        "Snooze a failure group",
        tag=TAG,
        verb="triage_failuregroup",
        body=SnoozeSerializer,
        answer=ChangedSerializer,
        finds=True,
        examples=[example("until it is worse", {"more_failures": 100}, request=True)],
    )
    def snooze(self, request: Request, id: str) -> Response:
        """Leave an open group alone for a while."""
        wanted = self.body(SnoozeSerializer)
        group = _group(id).pk
        try:
            return Response({"changed": failuregroups.snooze(group, by=self.user, **wanted)})
        except ValueError as error:
            raise ValidationError({"until": [str(error)]}) from error


def _group(text: str) -> FailureGroup:
    return FailureGroup.objects.select_related("owner").get(pk=int(text))
