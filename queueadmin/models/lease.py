"""Who leads: one row per role that only one process of the fleet may play at a time."""

from django.db import models


class Lease(models.Model):
    """The right to a role until `expires_at`, by the ledger's clock."""

    role = models.CharField(primary_key=True, max_length=50)
    holder = models.CharField(max_length=150)
    expires_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.role}: {self.holder}"
