"""The shops that order."""

from datetime import time

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from notifications.models import Channel
from notifications.phones import validate_phone


class Retailer(models.Model):
    """A shop, its log-in, and how it wants to be told things."""

    id = models.BigAutoField(primary_key=True)
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        related_name="retailer",
        verbose_name=_("account"),
    )
    name = models.CharField(_("name"), max_length=200)
    phone = models.CharField(_("phone"), max_length=20, validators=[validate_phone])
    email = models.EmailField(_("e-mail"))
    wants_whatsapp = models.BooleanField(_("by WhatsApp"), default=True)
    wants_email = models.BooleanField(_("by e-mail"), default=True)
    wants_sms = models.BooleanField(_("by SMS"), default=True)
    language = models.CharField(
        _("language"), max_length=10, choices=settings.LANGUAGES, default="en"
    )
    #: What can wait is not sent between these times of the site's zone.
    quiet_from = models.TimeField(_("quiet from"), null=True, blank=True)
    quiet_until = models.TimeField(_("quiet until"), null=True, blank=True)

    class Meta:
        verbose_name = _("retailer")
        verbose_name_plural = _("retailers")
        indexes = [
            # Incoming messages are matched by number.
            models.Index(fields=["phone"], name="orders_retailer_by_phone"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(quiet_from__isnull=True, quiet_until__isnull=True)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False),
                name="orders_retailer_quiet_whole",
                violation_error_message=_("Quiet hours need both times, or none."),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def channels(self) -> list[Channel]:
        """The ways this shop wants to be told things."""
        wanted = {
            Channel.WHATSAPP: self.wants_whatsapp,
            Channel.EMAIL: self.wants_email,
            Channel.SMS: self.wants_sms,
        }
        return [channel for channel, is_wanted in wanted.items() if is_wanted]

    def notification_name(self) -> str:
        """Return how messages address the shop."""
        return self.name

    def notification_address(self, channel: Channel) -> str:
        """Return where messages by `channel` go now."""
        return self.email if channel == Channel.EMAIL else self.phone

    def notification_language(self) -> str:
        """Return the language of messages to the shop."""
        return self.language

    def notification_quiet_hours(self) -> tuple[time, time] | None:
        """Return when the shop wants its peace, from and until."""
        if self.quiet_from is None or self.quiet_until is None:
            return None
        return self.quiet_from, self.quiet_until
