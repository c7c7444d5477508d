"""Dead letters."""

from typing import TYPE_CHECKING, ClassVar

from django.contrib.auth import get_user_model
from django.db import transaction
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import deadletters, retention, triage
from ..models import DeadLetter
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
from .letter_serializers import (
    URGENCIES,
    DeadLetterDetailSerializer,
    DeadLetterQuerySerializer,
    DeadLetterSerializer,
    NoteSerializer,
    RequeueOneSerializer,
    RequeueSerializer,
    SnoozeSerializer,
    TextSerializer,
    TriageSerializer,
    selected,
)
from .problems import Conflict

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

TAG = "Dead letters"
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
    "due_at": None,
    "ticket_url": "",
    "snoozed_at": None,
    "snoozed_until": None,
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
        "snooze": "assign_deadletter",
        "wake": "assign_deadletter",
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
        "Assign a dead letter, set its priority and due date, link its ticket, add a note",
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
        description="All or nothing. `note` takes `queueadmin.annotate_deadletter`, the others "
        "`queueadmin.assign_deadletter`.",
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
            if "due_at" in wanted:
                _applied(triage.set_due([letter.pk], at=wanted["due_at"], by=self.user))
            if "ticket_url" in wanted:
                self._link(letter.pk, wanted["ticket_url"])
            if "note" in wanted:
                deadletters.annotate(letter.pk, text=wanted["note"], by=self.user)
        return Response(DeadLetterDetailSerializer(_letter(id)).data)

    def _link(self, pk: int, url: str) -> None:
        try:
            _applied(triage.link_ticket([pk], url=url, by=self.user))
        except ValueError as error:
            raise ValidationError({"ticket_url": [str(error)]}) from error

    @documented(
        "Leave a pending dead letter alone for a while",
        tag=TAG,
        verb="assign_deadletter",
        body=SnoozeSerializer,
        answer=DeadLetterSerializer,
        finds=True,
        conflicts=True,
        examples=[example("for a day", {"until": "2026-11-25T10:00:00Z"}, request=True)],
        description="What comes first wakes it; without any, until somebody does.",
    )
    def snooze(self, request: Request, id: str) -> Response:
        """Snooze one."""
        try:
            result = triage.snooze([_key(id)], by=self.user, **self.body(SnoozeSerializer))
        except ValueError as error:
            raise ValidationError({"until": [str(error)]}) from error
        one(result, gone=deadletters.Skip.GONE.value)
        return Response(DeadLetterSerializer(_letter(id)).data)

    @documented(
        "End the snooze of a dead letter",
        tag=TAG,
        verb="assign_deadletter",
        body=ReasonSerializer,
        answer=DeadLetterSerializer,
        finds=True,
        conflicts=True,
    )
    def wake(self, request: Request, id: str) -> Response:
        """Wake one."""
        reason = self.body(ReasonSerializer)["reason"]
        _applied(triage.wake([_key(id)], by=self.user, reason=reason))
        return Response(DeadLetterSerializer(_letter(id)).data)

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
