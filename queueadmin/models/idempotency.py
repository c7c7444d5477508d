"""What was answered to a request that may come twice."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class IdempotencyKey(models.Model):
    """A key that a program gave its request, and the answer; written with the effect."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("user")
    )
    key = models.CharField(_("key"), max_length=255)
    #: Of the method, address and body, so that another request with the key is noticed.
    fingerprint = models.CharField(_("fingerprint"), max_length=64)
    status = models.PositiveSmallIntegerField(_("status"), default=0)
    body = models.TextField(_("answer"), default="", blank=True)
    created_at = models.DateTimeField(_("made"))

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="queueadmin_idempotency_once")
        ]
        indexes = [models.Index(fields=["created_at"], name="queueadmin_idempotency_age")]

    def __str__(self) -> str:
        return str(self.key)
