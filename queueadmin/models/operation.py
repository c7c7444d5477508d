"""A guarded requeue: many dead letters, a few at a time, and it stops by itself."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from ..states import ItemState, OperationStatus
from .dead_letter import DeadLetter
from .failure_group import FailureGroup


class RequeueOperation(models.Model):
    """One guarded requeue with its owner and reason; carried on by the dispatcher."""

    #: The dispatcher carries these on.
    UNDER_WAY = (OperationStatus.SCHEDULED, OperationStatus.CANARY, OperationStatus.RUNNING)
    #: Nothing more happens to these.
    ENDED = (OperationStatus.FINISHED, OperationStatus.ABORTED)

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=100)
    reason = models.TextField(_("reason"), blank=True, default="")
    status = models.CharField(
        _("status"), max_length=10, choices=OperationStatus, default=OperationStatus.SCHEDULED
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("owner"),
    )
    #: Kept when the account is deleted.
    owner_name = models.CharField(_("owner"), max_length=150)
    #: True for one that a program started, which has no owner.
    is_automatic = models.BooleanField(_("started by a program"), default=False)
    #: The group it was started from, if any.
    group = models.ForeignKey(
        FailureGroup,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="operations",
        verbose_name=_("failure group"),
    )
    #: Jobs per second.
    rate = models.FloatField(_("rate"))
    #: Jobs that have to end before the rest starts; 0 starts with the rest.
    canary = models.PositiveIntegerField(_("canary"), default=0)
    #: Share of failures, in per cent, at which it stops by itself.
    stop_at_percent = models.PositiveSmallIntegerField(_("stop at"), default=100)
    total = models.PositiveIntegerField(_("jobs"), default=0)
    created_at = models.DateTimeField(_("made"))
    start_at = models.DateTimeField(_("starts"))
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    #: When jobs were last released; also the token by which one dispatcher wins a turn.
    released_at = models.DateTimeField(_("last release"), null=True, blank=True)
    #: What it goes on with when it is resumed.
    resumes_as = models.CharField(
        _("resumes as"), max_length=10, choices=OperationStatus, blank=True, default=""
    )
    #: Results since then decide whether it stops; a person who resumes it begins a new count.
    judged_since = models.DateTimeField(_("judged since"), null=True, blank=True)
    #: The argument that it changes before each requeue, and what from and to; empty for none.
    argument = models.CharField(
        _("argument"), max_length=200, blank=True, default="", db_default=""
    )
    argument_before = models.TextField(_("from"), blank=True, default="", db_default="")
    argument_after = models.TextField(_("to"), blank=True, default="", db_default="")
    #: Why it stopped, paused or was aborted.
    note = models.TextField(_("why"), blank=True, default="")

    class Meta:
        verbose_name = _("requeue operation")
        verbose_name_plural = _("requeue operations")
        default_permissions = ("view",)
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=OperationStatus.values),
                name="queueadmin_operation_status_valid",
            ),
            models.CheckConstraint(
                condition=Q(rate__gt=0), name="queueadmin_operation_rate_positive"
            ),
            models.CheckConstraint(
                condition=Q(stop_at_percent__gte=1, stop_at_percent__lte=100),
                name="queueadmin_operation_stop_percent",
            ),
        ]
        indexes = [
            models.Index(
                fields=["status"],
                condition=~Q(status__in=["finished", "aborted"]),
                name="queueadmin_operation_open",
            ),
        ]

    def __str__(self) -> str:
        return str(self.name)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in self.ENDED


class OperationItem(models.Model):
    """One dead letter of a frozen list, and what became of it."""

    id = models.BigAutoField(primary_key=True)
    operation = models.ForeignKey(
        RequeueOperation, models.CASCADE, related_name="items", verbose_name=_("operation")
    )
    dead_letter = models.ForeignKey(
        DeadLetter, models.CASCADE, related_name="+", verbose_name=_("dead letter")
    )
    #: Order within the operation, from 1.
    position = models.PositiveIntegerField(_("position"))
    state = models.CharField(
        _("result"), max_length=10, choices=ItemState, default=ItemState.WAITING
    )
    #: Why it was skipped.
    skip = models.CharField(_("why"), max_length=100, blank=True, default="")
    #: The dead letter's count of deaths when it was requeued; one more means it failed again.
    deaths = models.PositiveIntegerField(_("deaths before"), default=0)
    sent_at = models.DateTimeField(_("requeued"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta:
        verbose_name = _("job of an operation")
        verbose_name_plural = _("jobs of operations")
        default_permissions = ("view",)
        ordering = ("operation", "position")
        constraints = [
            models.UniqueConstraint(
                fields=["operation", "dead_letter"], name="queueadmin_operation_item_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=ItemState.values), name="queueadmin_operation_item_valid"
            ),
        ]
        indexes = [
            models.Index(
                F("operation"), F("state"), F("position"), name="queueadmin_operation_items"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.operation_id}: {self.dead_letter_id}"
