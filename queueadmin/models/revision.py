"""What a job was asked to do before somebody changed it."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from .job import Job


class Revision(models.Model):
    """The former message of a job whose arguments were edited; who and why is in the audit."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, models.CASCADE, related_name="revisions", verbose_name=_("job"))
    message = models.BinaryField(_("message"))
    replaced_at = models.DateTimeField(_("replaced"))
    replaced_by_name = models.CharField(_("replaced by"), max_length=150)

    class Meta:
        verbose_name = _("revision")
        verbose_name_plural = _("revisions")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.job_id} until {self.replaced_at:%Y-%m-%d %H:%M}"
