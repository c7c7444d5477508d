"""One trouble behind many dead letters, and what staff do about it."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..states import GroupStatus


class FailureGroup(models.Model):
    """All permanent failures with one fingerprint; it stays when its dead letters are gone.

    The ledger adds and reopens groups with the commit that opens their dead letters. Staff
    resolve and snooze them.
    """

    #: Which groups still ask for somebody.
    OPEN = (GroupStatus.OPEN, GroupStatus.REGRESSED)

    id = models.BigAutoField(primary_key=True)
    fingerprint = models.CharField(_("fingerprint"), max_length=32, unique=True)
    status = models.CharField(
        _("status"), max_length=10, choices=GroupStatus, default=GroupStatus.OPEN
    )
    queue = models.CharField(_("queue"), max_length=100)
    actor = models.CharField(_("job"), max_length=200)
    error_class = models.CharField(_("error"), max_length=200, blank=True, default="")
    #: Text of the first failure, as an example.
    error_message = models.TextField(_("error text"), blank=True, default="")
    first_seen_at = models.DateTimeField(_("first seen"))
    last_seen_at = models.DateTimeField(_("last seen"))
    first_release = models.CharField(_("first seen in"), max_length=100, blank=True, default="")
    last_release = models.CharField(_("last seen in"), max_length=100, blank=True, default="")
    #: Permanent failures so far; a job that dies twice counts twice.
    deaths = models.PositiveBigIntegerField(_("failures"), default=0)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("owner"),
    )
    ticket_url = models.URLField(_("ticket"), max_length=500, blank=True, default="")
    resolved_at = models.DateTimeField(_("resolved"), null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("resolved by"),
    )
    #: What was done when it was last resolved; the audit trail has all of them.
    resolution = models.TextField(_("what was done"), blank=True, default="")
    regressed_at = models.DateTimeField(_("came back"), null=True, blank=True)
    regressions = models.PositiveIntegerField(_("times it came back"), default=0)
    #: What ends a snooze; each may be missing, and all missing means until somebody ends it.
    snoozed_until = models.DateTimeField(_("snoozed until"), null=True, blank=True)
    snoozed_deaths = models.PositiveBigIntegerField(_("until failures"), null=True, blank=True)
    snoozed_release = models.CharField(
        _("until another release than"), max_length=100, blank=True, default=""
    )
    #: Opened or come back, and not yet looked at by the assignment rules.
    awaits_rules = models.BooleanField(_("awaits rules"), default=False, db_default=False)

    class Meta:
        verbose_name = _("failure group")
        verbose_name_plural = _("failure groups")
        default_permissions = ("view",)
        permissions = [
            ("triage_failuregroup", "Can assign, snooze and link failure groups"),
            ("annotate_failuregroup", "Can write notes on failure groups"),
            ("resolve_failuregroup", "Can resolve and reopen failure groups"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=GroupStatus.values),
                name="queueadmin_group_status_valid",
            ),
        ]
        indexes = [
            models.Index(fields=["status", "-last_seen_at"], name="queueadmin_group_by_status"),
            models.Index(fields=["-last_seen_at"], name="queueadmin_group_recent"),
            # The duty that ends snoozes asks for these and nothing else.
            models.Index(
                fields=["snoozed_until"],
                condition=Q(snoozed_until__isnull=False),
                name="queueadmin_group_waking",
            ),
            models.Index(
                fields=["id"], condition=Q(awaits_rules=True), name="queueadmin_group_awaits_rules"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.label} {self.error_class} {self.actor}"

    @property
    def label(self) -> str:
        """Its short name, for people to say."""
        return f"G-{self.pk}"

    @property
    def is_open(self) -> bool:
        """Whether it still asks for somebody."""
        return self.status in self.OPEN


class GroupNote(models.Model):
    """What somebody found out about a trouble; kept when the writer's account goes."""

    id = models.BigAutoField(primary_key=True)
    group = models.ForeignKey(
        FailureGroup, models.CASCADE, related_name="notes", verbose_name=_("failure group")
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
        verbose_name = _("note on a failure group")
        verbose_name_plural = _("notes on failure groups")
        default_permissions = ("view",)
        ordering = ("written_at", "id")

    def __str__(self) -> str:
        return f"{self.author_name}: {self.text[:50]}"
