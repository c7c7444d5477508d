"""Registers the app; nothing runs here."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OrdersConfig(AppConfig):
    """The wholesale business: catalogue, shops, orders."""

    name = "orders"
    verbose_name = _("Orders")

    def ready(self) -> None:
        """Say which words of incoming messages the business answers."""
        # Models are loaded by now, and not before.
        from notifications import incoming

        from . import inquiries

        incoming.register(inquiries.BALANCE_WORDS, inquiries.answer_balance)
