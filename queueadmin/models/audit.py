"""Who did what to which record and why; rows are only ever added."""

from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class AuditEntry(models.Model):
    """One act of a person or program."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(_("when"), db_index=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("account"),
    )
    #: Kept when the account is deleted.
    user_name = models.CharField(_("who"), max_length=150)
    verb = models.CharField(_("what"), max_length=50)
    target_type = models.CharField(_("kind"), max_length=50)
    target_id = models.CharField(_("on what"), max_length=100, blank=True, default="")
    reason = models.TextField(_("why"), blank=True, default="")
    detail = models.JSONField(_("detail"), default=dict, blank=True)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit")
        default_permissions = ("view",)
        indexes = [
            models.Index(fields=["target_type", "target_id", "-at"], name="queueadmin_audit_target")
        ]

    def __str__(self) -> str:
        return f"{self.user_name} {self.verb} {self.target_type} {self.target_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the entry.

        Raises:
            TypeError: it is saved already; an audit trail is not edited.
        """
        if self.pk is not None:
            raise TypeError("Audit entries are never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse; an audit trail is not shortened by hand."""
        raise TypeError("Audit entries are never deleted.")
