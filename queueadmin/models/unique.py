"""Which job holds which unique key."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fields import JobIdField


class UniqueKey(models.Model):
    """One row per key that is held; only `queueadmin.ledger` writes it.

    It is deleted with the statement that ends its job, or replaced after its period.
    """

    id = models.BigAutoField(primary_key=True)
    #: A key belongs to its actor: two actors may use the same words.
    actor = models.CharField(_("actor"), max_length=200)
    key = models.CharField(_("key"), max_length=150)
    #: Id of the job; no foreign key, a period may outlast the job's row.
    job_id = JobIdField(_("job"), db_index=True)
    #: None: held while the job is unfinished.
    expires_at = models.DateTimeField(_("until"), null=True, blank=True)

    class Meta:
        verbose_name = _("unique key")
        verbose_name_plural = _("unique keys")
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["actor", "key"], name="queueadmin_uniquekey_once")
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=models.Q(expires_at__isnull=False),
                name="queueadmin_uniquekey_expiry",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.key}"
