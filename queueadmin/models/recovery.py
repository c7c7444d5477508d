"""One row per recovery run: what it found and what it did."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class RecoveryRun(models.Model):
    """A comparison of ledger and broker."""

    id = models.BigAutoField(primary_key=True)
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    #: Counts per category, for instance {"re-dispatched": 3}.
    found = models.JSONField(_("found"), default=dict)
    #: How long each category took, also the one that failed; empty in rows of earlier releases.
    # A default of the database's too: the release before this one inserts without it.
    durations_ms = models.JSONField(_("took, by category"), default=dict, db_default={})
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("recovery run")
        verbose_name_plural = _("recovery runs")
        default_permissions = ("view",)
        permissions = [("run_recovery", "Can start a recovery run")]
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"recovery of {self.started_at:%Y-%m-%d %H:%M:%S}"
