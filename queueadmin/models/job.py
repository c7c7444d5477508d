"""One row per job: the truth about it, whatever happens to the broker."""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Concat
from django.db.models.lookups import In
from django.utils.translation import gettext_lazy as _

from .. import payloads
from ..exceptions import Undecryptable
from ..states import FINISHED, RUNNABLE, TIMED, JobState, Priority
from .fields import JobIdField


class JobQuerySet(models.QuerySet["Job"]):
    """Rules that select jobs; none of them writes."""

    def for_list(self) -> "JobQuerySet":
        """Leave out what only a detail page needs; payloads are never decoded in lists."""
        return self.defer("message", "result")

    def failed(self) -> "JobQuerySet":
        """Jobs whose last attempt failed: retrying or dead."""
        return self.filter(state__in=(JobState.RETRYING, JobState.DEAD))

    def in_any_state(self) -> "JobQuerySet":
        """All of them, said so that the index of states and queues can answer for a queue.

        Without it the few jobs of a quiet queue are looked for among all jobs by their time.
        """
        return self.filter(state__in=JobState.values)

    def among(self, ids: Collection[str], *states: JobState) -> "JobQuerySet":
        """Those of `ids` that are in one of `states`, looked up by their ids whatever is known.

        A database that was last analysed while few jobs were in a state would go through all that
        are in it now, for each thousand of ids once; see `queueadmin.ledger.sql.unindexed`.
        """
        state = Concat(F("state"), Value(""))
        return self.filter(In(state, [each.value for each in states]), pk__in=ids)

    def unfinished(self) -> "JobQuerySet":
        """Jobs that will still run."""
        return self.exclude(state__in=FINISHED)

    def cancelling(self) -> "JobQuerySet":
        """Jobs that shall not start, or stop, and of which it is not certain yet."""
        return self.filter(cancel_requested_at__isnull=False, state__in=RUNNABLE)

    def about(self, subject: models.Model) -> "JobQuerySet":
        """Jobs enqueued with `subject` as their business object."""
        return self.filter(subject=subject_key(subject))


def subject_key(subject: models.Model) -> str:
    """Return the reference under which a business object's jobs are found."""
    return f"{subject._meta.label_lower}:{subject.pk}"


class Job(models.Model):
    """A job and where it is. Only `queueadmin.ledger` changes its state."""

    id = JobIdField(_("id"), primary_key=True, editable=False)
    queue = models.CharField(_("queue"), max_length=100)
    actor = models.CharField(_("actor"), max_length=200)
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority.LABELS, default=Priority.NORMAL
    )
    state = models.CharField(_("state"), max_length=10, choices=JobState)
    #: Number of the current dispatch; an outcome for another number is stale.
    dispatch = models.PositiveIntegerField(_("dispatch"), default=1)
    #: Executions of the current round that count.
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    max_attempts = models.PositiveIntegerField(_("of at most"), null=True, blank=True)
    #: How often staff gave it a new round of attempts.
    requeues = models.PositiveSmallIntegerField(_("requeues"), default=0)
    #: How many processes have died while they ran it, in the current round.
    crashes = models.PositiveSmallIntegerField(_("crashes"), default=0, db_default=0)
    #: Another copy of it may be about to run: whoever takes it claims it in the ledger first.
    is_suspect = models.BooleanField(_("suspect"), default=False, db_default=False)
    #: The encoded message, byte for byte; everything to run the job again.
    message = models.BinaryField(_("message"))
    #: Result as JSON, when the actor stores results.
    result = models.TextField(_("result"), null=True, blank=True)  # noqa: DJ001  # null: none stored
    #: Reference of the business object, "app.model:pk"; see `JobQuerySet.about`.
    subject = models.CharField(_("subject"), max_length=150, blank=True, default="")
    #: The job whose run enqueued this one.
    parent = JobIdField(_("parent"), blank=True, default="")
    #: Of the jobs of one group with a completion callback.
    group = models.CharField(
        _("group"), max_length=64, blank=True, default="", db_column="group_key"
    )
    #: How far a run that says so has come; see `queueadmin.progress`.
    progress_done = models.BigIntegerField(_("done"), null=True, blank=True)
    progress_total = models.BigIntegerField(_("of"), null=True, blank=True)
    progress_text = models.CharField(
        _("progress"), max_length=200, blank=True, default="", db_default=""
    )
    #: Of jobs with this key and actor one holds it; see `queueadmin.ledger.unique`.
    unique_key = models.CharField(_("unique key"), max_length=150, blank=True, default="")
    #: How long it holds the key; None means while it is unfinished.
    unique_until = models.DateTimeField(_("unique until"), null=True, blank=True)
    worker = models.CharField(_("worker"), max_length=150, blank=True, default="")
    error_class = models.CharField(_("error"), max_length=200, blank=True, default="")
    error_message = models.TextField(_("error text"), blank=True, default="")
    enqueued_at = models.DateTimeField(_("enqueued"))
    #: When it is due, while scheduled or retrying; when it became due, while waiting.
    due_at = models.DateTimeField(_("due"))
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    #: Whether the message is encrypted.
    # A default of the database's too: the release before this one inserts without it.
    is_sealed = models.BooleanField(_("encrypted"), default=False, db_default=False)
    #: When the personal data in message, result and error texts were erased.
    erased_at = models.DateTimeField(_("erased"), null=True, blank=True)
    #: Known to have reached the broker; False costs one look by the dispatcher.
    in_broker = models.BooleanField(_("in broker"), default=False)
    #: Since when it waits for a worker that knows its actor, or has its key.
    parked_at = models.DateTimeField(_("parked"), null=True, blank=True)
    #: Since when it shall not start any more, or stop; kept when it was too late.
    cancel_requested_at = models.DateTimeField(_("cancel requested"), null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        default_permissions = ("view",)
        permissions = [
            ("enqueue_job", "Can enqueue jobs by hand"),
            ("cancel_job", "Can cancel jobs"),
            ("retry_job", "Can run jobs now"),
            ("reschedule_job", "Can reschedule jobs"),
            ("reveal_payload", "Can see masked payload fields"),
            ("erase_payload", "Can erase personal data from payloads"),
            ("clean_job", "Can remove finished jobs"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=JobState.values), name="queueadmin_job_state_valid"
            ),
        ]
        indexes = [
            models.Index(fields=["-enqueued_at", "id"], name="queueadmin_job_recent"),
            models.Index(fields=["state", "queue", "-enqueued_at"], name="queueadmin_job_listed"),
            # The newest of a state that few jobs are in, for instance what waits in a queue
            # that was paused long ago. A job leaves it as it completes.
            models.Index(
                fields=["state", "-enqueued_at", "id"],
                condition=~Q(state=JobState.COMPLETED.value),
                name="queueadmin_job_unfinished",
            ),
            # The dispatcher's two questions: what is due, what may have missed the broker.
            models.Index(
                fields=["due_at"],
                condition=Q(state__in=[state.value for state in TIMED]),
                name="queueadmin_job_due",
            ),
            models.Index(
                fields=["due_at"],
                condition=Q(state=JobState.WAITING.value, in_broker=False),
                name="queueadmin_job_unconfirmed",
            ),
            # What workers ask twice a second: whom of theirs shall they stop?
            models.Index(
                fields=["cancel_requested_at"],
                condition=Q(
                    cancel_requested_at__isnull=False,
                    state__in=[state.value for state in RUNNABLE],
                ),
                name="queueadmin_job_cancelling",
            ),
            models.Index(
                fields=["subject", "-enqueued_at"],
                condition=~Q(subject=""),
                name="queueadmin_job_subject",
            ),
            models.Index(fields=["group"], condition=~Q(group=""), name="queueadmin_job_group"),
            models.Index(fields=["parent"], condition=~Q(parent=""), name="queueadmin_job_parent"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} #{self.short_id}"

    @property
    def short_id(self) -> str:
        """The id's beginning, enough for people to tell jobs apart."""
        return str(self.id)[:8]

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancel was asked for and is not certain yet."""
        return self.cancel_requested_at is not None and self.state in RUNNABLE

    @property
    def is_finished(self) -> bool:
        """Whether it will not run again unless somebody requeues it."""
        return self.state in FINISHED

    @property
    def is_last_attempt(self) -> bool:
        """Whether no further attempt follows the last one made."""
        return self.max_attempts is not None and self.attempts >= self.max_attempts

    @cached_property
    def payload(self) -> dict[str, Any] | None:
        """Arguments and options of the message, or None where it cannot be read.

        They are decrypted and not masked: for programs. People are shown
        `queueadmin.payloads.masked`.
        """
        try:
            found = payloads.decoded(bytes(self.message))
        except Undecryptable:
            return None
        return dict(found) if found is not None else None

    def upcoming(self, waits_ms: list[int]) -> list[datetime]:
        """Return when the coming attempts are due if each fails at once.

        Args:
            waits_ms: the policy's waits between attempts, in milliseconds.
        """
        if self.state not in TIMED:
            return []
        times = [self.due_at]
        for wait in waits_ms[self.attempts :]:
            times.append(times[-1] + timedelta(milliseconds=wait))
        return times
