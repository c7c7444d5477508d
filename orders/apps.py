"""Registers the app; nothing runs here."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OrdersConfig(AppConfig):
    """The wholesale business: catalogue, shops, orders."""

    name = "orders"
    verbose_name = _("Orders")
