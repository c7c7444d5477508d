"""Whose turn it is, decided before anybody looks: staff's own rules on new failures."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class AssignmentRule(models.Model):
    """Gives what fails to a person; of the rules in their order the first that matches counts.

    What is left empty matches everything. A value matches itself; one that ends with "*"
    matches what begins like it.
    """

    id = models.BigAutoField(primary_key=True)
    position = models.PositiveIntegerField(
        _("order"), default=100, help_text=_("Smaller first; the first that matches counts.")
    )
    is_active = models.BooleanField(_("active"), default=True)
    queue = models.CharField(_("queue"), max_length=100, blank=True, default="")
    actor = models.CharField(_("job"), max_length=200, blank=True, default="")
    error_class = models.CharField(_("error"), max_length=200, blank=True, default="")
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        related_name="+",
        verbose_name=_("owner"),
    )
    due_hours = models.PositiveIntegerField(
        _("due after hours"),
        null=True,
        blank=True,
        help_text=_("Empty for no due date. Only dead letters have one."),
    )

    class Meta:
        verbose_name = _("assignment rule")
        verbose_name_plural = _("assignment rules")
        ordering = ("position", "id")

    def __str__(self) -> str:
        parts = (self.queue, self.actor, self.error_class)
        return " · ".join(part for part in parts if part) or str(_("everything"))
