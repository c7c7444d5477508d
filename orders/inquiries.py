"""Answers what shops ask by WhatsApp: their balance."""

import logging

from notifications.models import Incoming

from . import telling
from .models import CreditAccount

logger = logging.getLogger(__name__)

BALANCE_WORDS = frozenset({"balance", "credit", "saldo", "kontostand"})


def answer_balance(inquiry: Incoming) -> None:
    """Tell the shops with the sender's number what they owe; nobody else is told anything."""
    accounts = CreditAccount.objects.select_related("retailer").filter(
        retailer__phone=inquiry.sender
    )
    for account in accounts:
        telling.answer_balance(account, inquiry)
    if not accounts:
        logger.info("No account for incoming=%s", inquiry.pk)
