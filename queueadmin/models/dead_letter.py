"""A permanent failure and what staff do about it."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..states import DeadLetterStatus, DeathCause
from .job import Job


class Urgency(models.IntegerChoices):
    """How soon staff should look at a dead letter."""

    LOW = 0, _("low")
    NORMAL = 1, _("normal")
    HIGH = 2, _("high")
    URGENT = 3, _("urgent")


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Rules that select dead letters; none of them writes."""

    def open(self) -> "DeadLetterQuerySet":
        """Dead letters that still need somebody, or whose repeat has not ended."""
        return self.filter(status__in=DeadLetter.OPEN)

    def pending(self) -> "DeadLetterQuerySet":
        """Dead letters that wait for a decision."""
        return self.filter(status=DeadLetterStatus.PENDING)

    def awake(self) -> "DeadLetterQuerySet":
        """Pending ones that nobody has snoozed."""
        return self.pending().filter(snoozed_at=None)

    def snoozed(self) -> "DeadLetterQuerySet":
        """Pending ones that are left alone for now."""
        return self.pending().filter(snoozed_at__isnull=False)

    def for_list(self) -> "DeadLetterQuerySet":
        """Join what a list shows and leave out what it does not."""
        return self.select_related("assignee").defer("traceback", "raw")


class DeadLetter(models.Model):
    """The record of a job's permanent failure; one per job, however often it dies."""

    OPEN = (DeadLetterStatus.PENDING, DeadLetterStatus.REQUEUED)

    id = models.BigAutoField(primary_key=True)
    # PROTECT: a job is kept while its dead letter is.
    job = models.OneToOneField(
        Job, models.PROTECT, related_name="dead_letter", verbose_name=_("job")
    )
    status = models.CharField(
        _("status"), max_length=20, choices=DeadLetterStatus, default=DeadLetterStatus.PENDING
    )
    died_by = models.CharField(_("died by"), max_length=20, choices=DeathCause)
    queue = models.CharField(_("queue"), max_length=100)
    actor = models.CharField(_("job"), max_length=200)
    error_class = models.CharField(_("error"), max_length=200, blank=True, default="")
    error_message = models.TextField(_("error text"), blank=True, default="")
    traceback = models.TextField(_("stack"), blank=True, default="")
    fingerprint = models.CharField(_("fingerprint"), max_length=32, blank=True, default="")
    #: Where it happened: version of the code, and worker process.
    release = models.CharField(_("release"), max_length=100, blank=True, default="")
    worker = models.CharField(_("worker"), max_length=150, blank=True, default="")
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    #: How often the job died; more than 1 after a requeue that failed again.
    deaths = models.PositiveIntegerField(_("deaths"), default=1)
    #: The message as it came, where it could not be read.
    raw = models.BinaryField(_("raw message"), null=True, blank=True)
    urgency = models.SmallIntegerField(_("priority"), choices=Urgency, default=Urgency.NORMAL)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("owner"),
    )
    died_at = models.DateTimeField(_("died"))
    requeued_at = models.DateTimeField(_("requeued"), null=True, blank=True)
    requeued_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("requeued by"),
    )
    recovered_at = models.DateTimeField(_("recovered"), null=True, blank=True)
    closed_at = models.DateTimeField(_("closed"), null=True, blank=True)
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("closed by"),
    )
    #: Why it was marked permanently failed.
    closing_reason = models.TextField(_("reason"), blank=True, default="")
    #: When somebody wants it settled.
    due_at = models.DateTimeField(_("due"), null=True, blank=True)
    ticket_url = models.URLField(_("ticket"), max_length=500, blank=True, default="", db_default="")
    #: Since when it is left alone; a snooze of a pending one hides it from who looks for work.
    snoozed_at = models.DateTimeField(_("snoozed"), null=True, blank=True)
    #: What ends the snooze, the first of them; all missing means until somebody ends it.
    snoozed_until = models.DateTimeField(_("snoozed until"), null=True, blank=True)
    snoozed_deaths = models.PositiveBigIntegerField(
        _("until failures of its group"), null=True, blank=True
    )
    snoozed_release = models.CharField(
        _("until another release than"), max_length=100, blank=True, default="", db_default=""
    )
    #: Opened, and not yet looked at by the assignment rules.
    awaits_rules = models.BooleanField(_("awaits rules"), default=False, db_default=False)

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        default_permissions = ("view",)
        permissions = [
            ("requeue_deadletter", "Can requeue dead letters"),
            ("assign_deadletter", "Can assign dead letters and set their priority"),
            ("annotate_deadletter", "Can write notes on dead letters"),
            ("close_deadletter", "Can mark dead letters permanently failed"),
            ("edit_deadletter", "Can edit arguments and requeue"),
            ("edit_many_deadletter", "Can edit one argument of many jobs and requeue them"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=DeadLetterStatus.values),
                name="queueadmin_deadletter_status_valid",
            ),
            models.CheckConstraint(
                condition=Q(died_by__in=DeathCause.values),
                name="queueadmin_deadletter_cause_valid",
            ),
        ]
        indexes = [
            models.Index(fields=["status", "-died_at"], name="queueadmin_dl_by_status"),
            models.Index(fields=["queue", "status", "-died_at"], name="queueadmin_dl_by_queue"),
            models.Index(fields=["fingerprint", "-died_at"], name="queueadmin_dl_by_cause"),
            models.Index(fields=["assignee", "status"], name="queueadmin_dl_by_owner"),
            # What two duties ask for; few rows are ever in them.
            models.Index(
                fields=["id"], condition=Q(awaits_rules=True), name="queueadmin_dl_awaits_rules"
            ),
            models.Index(
                fields=["snoozed_at"],
                condition=Q(snoozed_at__isnull=False),
                name="queueadmin_dl_snoozed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.actor} #{self.job_id[:8]}"

    @property
    def is_open(self) -> bool:
        """Whether it still needs somebody or runs again."""
        return self.status in self.OPEN

    @property
    def is_snoozed(self) -> bool:
        """Whether it is left alone for now."""
        return self.status == DeadLetterStatus.PENDING and self.snoozed_at is not None

    @property
    def can_requeue(self) -> bool:
        """Whether its job may be given a new round of attempts."""
        return self.status == DeadLetterStatus.PENDING


class Note(models.Model):
    """What somebody found out about a dead letter; kept when the writer's account goes."""

    id = models.BigAutoField(primary_key=True)
    dead_letter = models.ForeignKey(
        DeadLetter, models.CASCADE, related_name="notes", verbose_name=_("dead letter")
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("author"),
    )
    author_name = models.CharField(_("author"), max_length=150)
    text = models.TextField(_("note"))
    mentioned = models.ManyToManyField(
        settings.AUTH_USER_MODEL, related_name="+", blank=True, verbose_name=_("mentioned")
    )
    written_at = models.DateTimeField(_("written"))

    class Meta:
        verbose_name = _("note")
        verbose_name_plural = _("notes")
        default_permissions = ("view",)
        ordering = ("written_at", "id")

    def __str__(self) -> str:
        return f"{self.author_name}: {self.text[:50]}"
