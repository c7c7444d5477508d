"""What a job has done outside of the database, or may have."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..states import EffectState
from .job import Job


class Effect(models.Model):
    """One thing that a job does once, by its name; see `queueadmin.effects`."""

    id = models.BigAutoField(primary_key=True)
    # Deleted with the job, by retention.
    job = models.ForeignKey(Job, models.CASCADE, related_name="effect_set", verbose_name=_("job"))
    name = models.CharField(_("name"), max_length=100)
    state = models.CharField(_("state"), max_length=5, choices=EffectState)
    #: The run that began it; nobody else may say that it is done.
    claim = models.UUIDField(_("claim"))
    begun_at = models.DateTimeField(_("begun"))
    done_at = models.DateTimeField(_("done"), null=True, blank=True)
    #: What it returned, as JSON; nothing where the job is sensitive.
    result = models.TextField(_("result"), null=True, blank=True)  # noqa: DJ001  # null: none

    class Meta:
        verbose_name = _("effect")
        verbose_name_plural = _("effects")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["job", "name"], name="queueadmin_effect_once"),
            models.CheckConstraint(
                condition=Q(state__in=EffectState.values), name="queueadmin_effect_state_valid"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.job_id}"
