"""The registry of worker processes: who is there, and what each runs."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Worker(models.Model):
    """One row per worker process; it renews its row itself every few seconds."""

    class Wish(models.TextChoices):
        """What staff want of a process."""

        RUN = "", _("run")
        QUIET = "quiet", _("quiet: finish what runs, start nothing")
        STOP = "stop", _("stop: finish what runs, then end")

    #: As the broker knows it: host, pid and a random part.
    id = models.CharField(primary_key=True, max_length=255)
    host = models.CharField(_("host"), max_length=200)
    pid = models.PositiveIntegerField(_("process id"))
    started_at = models.DateTimeField(_("started"))
    seen_at = models.DateTimeField(_("last seen"), db_index=True)
    threads = models.PositiveIntegerField(_("threads"))
    queues = models.JSONField(_("queues"), default=list)
    release = models.CharField(_("release"), max_length=100, blank=True, default="")
    #: Versions by package, "python" among them.
    versions = models.JSONField(_("versions"), default=dict)
    memory_bytes = models.BigIntegerField(_("memory"), default=0)
    #: Outcomes recorded since the process started.
    recorded = models.BigIntegerField(_("outcomes"), default=0)
    #: What the threads run: job, queue, actor, attempt and start of each.
    running = models.JSONField(_("running"), default=list)
    #: Recent attempts of queues with a circuit breaker; see `queueadmin.tallies`.
    tallies = models.JSONField(_("recent attempts"), default=dict)
    #: What the process measured of itself since it started; see `queueadmin.meters`.
    # A default of the database's too: the release before this one inserts without it.
    counters = models.JSONField(_("counters"), default=dict, db_default={})
    wish = models.CharField(
        _("wish"), max_length=10, choices=Wish.choices, default=Wish.RUN, blank=True
    )
    wished_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("wished by"),
    )

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)
        permissions = [("control_worker", "Can quiet and stop worker processes")]
        ordering = ("host", "pid")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class RetiredCounters(models.Model):
    """What processes had counted whose rows are gone; one row."""

    THE_ONE = 1

    id = models.PositiveSmallIntegerField(primary_key=True)
    counters = models.JSONField(default=dict)

    class Meta:
        default_permissions = ()
        verbose_name = _("counters of ended workers")
        verbose_name_plural = _("counters of ended workers")

    def __str__(self) -> str:
        return "counters of ended workers"
