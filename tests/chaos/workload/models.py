from django.db import models


class Order(models.Model):
    """Committed in one transaction with its job; what the verdict trusts."""

    number = models.BigIntegerField(primary_key=True)
    mode = models.CharField(max_length=20)
    job = models.CharField(max_length=64)

    def __str__(self) -> str:
        return str(self.number)
