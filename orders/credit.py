"""What shops owe: the only writer of balances, entries and invoices.

Every change of a balance is one conditional update of the account's row and one entry, in
one transaction, so the entries always sum to the balance. The update carries the limit
check: of two orders that each fit but not both, the second finds no row to change,
whatever both read before. Callers hold the order's row already; the account comes last.
"""

import logging
import uuid
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.db.models import F, Sum
from django.db.models.functions import Round
from django.utils import timezone
from django.utils.translation import gettext as _

from queueadmin import audit
from queueadmin.models.job import subject_key

from . import timers
from .exceptions import CreditRefused, InvalidPayment, NotAllowedNow
from .models import (
    CENT,
    CreditAccount,
    CreditDrift,
    CreditEntry,
    EntryKind,
    Invoice,
    Order,
    Payment,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, User

logger = logging.getLogger(__name__)

#: Accounts per reconciliation job; some seconds of work, and few messages.
BATCH = 200


def charge(order: Order, *, by: "AbstractBaseUser | None") -> None:
    """Put a new order on the shop's credit, in the caller's transaction.

    Raises:
        CreditRefused: there is no credit in this currency, or the limit would be passed.
    """
    within = CreditAccount.objects.filter(
        retailer=order.retailer_id,
        currency=order.currency,
        balance__lte=_plus("limit", -order.total),
    )
    if not within.update(balance=_plus("balance", order.total)):
        account = CreditAccount.objects.filter(retailer=order.retailer_id).first()
        raise CreditRefused(_why_refused(account, order))
    account = CreditAccount.objects.get(retailer=order.retailer_id)
    _enter(account, EntryKind.CHARGE, order.total, order=order, by=by)


def reverse(order: Order) -> None:
    """Take an order that is given up off the shop's credit, in the caller's transaction."""
    if order.payment != Payment.CREDIT:
        return
    account = CreditAccount.objects.get(retailer=order.retailer_id)
    CreditAccount.objects.filter(pk=account.pk).update(balance=_plus("balance", -order.total))
    _enter(account, EntryKind.REVERSAL, -order.total, order=order)


def invoice(order: Order) -> None:
    """Make the invoice of a delivered order, with its reminders, in the caller's transaction."""
    if order.payment != Payment.CREDIT:
        return
    # Reminders call this module.
    from . import payment_reminders

    now = timezone.now()
    account = _locked(retailer=order.retailer_id)
    made = Invoice.objects.create(
        account=account,
        order=order,
        amount=order.total,
        issued_at=now,
        due_at=now + timedelta(days=account.terms_days),
    )
    _settle(account)
    payment_reminders.plan(made)


def record_payment(
    account: CreditAccount,
    amount: Decimal,
    *,
    by: "User | None",
    note: str = "",
    token: uuid.UUID | None = None,
) -> CreditEntry:
    """Record money received; it settles the oldest invoices first.

    Args:
        account: whose money it is.
        amount: above 0, with at most two decimals; a shop may pay in advance.
        by: who recorded it; None for a program.
        note: such as the bank's reference.
        token: of the form; the same form again returns the entry it made before.

    Raises:
        InvalidPayment: the amount is no sum of money.
    """
    if not amount.is_finite() or amount <= 0 or amount != amount.quantize(CENT):
        raise InvalidPayment(_("Enter an amount above 0 with at most two decimals."))
    try:
        with transaction.atomic():
            entry = _enter(account, EntryKind.PAYMENT, -amount, by=by, note=note, token=token)
            # The account's row first: payments of one account settle one after the other.
            CreditAccount.objects.filter(pk=account.pk).update(balance=_plus("balance", -amount))
            _settle(account)
            audit.record(
                "record payment",
                "credit account",
                [account.pk],
                by=by,
                reason=note,
                amount=str(amount),
            )
            _score_later(account)
    except IntegrityError:
        if repeated := _entered_before(token):
            return repeated
        raise
    return entry


def correct(
    account: CreditAccount,
    amount: Decimal,
    *,
    by: "User",
    reason: str,
    token: uuid.UUID | None = None,
) -> CreditEntry:
    """Change a balance by hand, with an entry that says who and why.

    Args:
        account: whose balance it is.
        amount: above 0 where the shop owes more by it.
        by: who decides.
        reason: kept with the entry; required.
        token: of the form; the same form again returns the entry it made before.

    Raises:
        InvalidPayment: the amount is 0 or no sum of money, or there is no reason.
    """
    _require_reason(reason)
    if not amount.is_finite() or not amount or amount != amount.quantize(CENT):
        raise InvalidPayment(_("Enter an amount other than 0 with at most two decimals."))
    try:
        with transaction.atomic():
            entry = _enter(account, EntryKind.CORRECTION, amount, by=by, note=reason, token=token)
            CreditAccount.objects.filter(pk=account.pk).update(balance=_plus("balance", amount))
            audit.record(
                "correct balance",
                "credit account",
                [account.pk],
                by=by,
                reason=reason,
                amount=str(amount),
            )
    except IntegrityError:
        if repeated := _entered_before(token):
            return repeated
        raise
    return entry


def set_right(account: CreditAccount, *, difference: Decimal, by: "User", reason: str) -> None:
    """Set a balance that has drifted to the sum of its entries, which tell what happened.

    Args:
        account: whose balance it is.
        difference: by how much the balance was too high when `by` looked.
        by: who decides.
        reason: kept in the audit; required.

    Raises:
        InvalidPayment: there is no reason, or no drift.
        NotAllowedNow: the difference is another one by now; nothing was changed.
    """
    _require_reason(reason)
    with transaction.atomic():
        # Before it is read: whoever enters something changes this row with it.
        _locked(pk=account.pk)
        ((_pk, balance, entry_sum),) = CreditAccount.objects.filter(pk=account.pk).sums()
        if balance - entry_sum != difference or not difference:
            raise NotAllowedNow(
                _("The balance differs from its entries by %(now)s now. Please look again.")
                % {"now": balance - entry_sum}
            )
        CreditAccount.objects.filter(pk=account.pk).update(balance=entry_sum)
        CreditDrift.objects.filter(account=account, gone_at__isnull=True).update(
            gone_at=timezone.now()
        )
        audit.record(
            "set balance right",
            "credit account",
            [account.pk],
            by=by,
            reason=reason,
            before=str(balance),
            after=str(entry_sum),
        )


def reconcile(account_ids: Iterable[int]) -> list[CreditDrift]:
    """Compare balances with the sums of their entries; note what differs, repair nothing.

    Balance and sum are read by one statement, so an order placed meanwhile is in both or in
    neither. A drift that is already known is seen again, not found again.

    Returns:
        The drifts found by this call for the first time.
    """
    now = timezone.now()
    found = []
    accounts = CreditAccount.objects.filter(pk__in=list(account_ids))
    for account_id, balance, entry_sum in accounts.sums():
        known = CreditDrift.objects.filter(account=account_id, gone_at__isnull=True)
        if balance == entry_sum:
            known.update(gone_at=now)
            continue
        facts = {"balance": balance, "entry_sum": entry_sum, "seen_at": now}
        drift, is_new = CreditDrift.objects.update_or_create(
            account_id=account_id,
            gone_at=None,
            defaults=facts,
            create_defaults={**facts, "found_at": now},
        )
        if is_new:
            found.append(drift)
            logger.error(
                "Credit account %s has drifted: balance %s, entries %s",
                account_id,
                balance,
                entry_sum,
            )
    return found


def _entered_before(token: uuid.UUID | None) -> CreditEntry | None:
    return CreditEntry.objects.filter(token=token).first() if token else None


def _locked(**which: object) -> CreditAccount:
    """Lock an account as whoever settles invoices must; see `_settle`.

    Not its key: an entry that is inserted holds that, and would wait for us to let it update the
    balance while we wait for it.
    """
    return CreditAccount.objects.select_for_update(no_key=True).get(**which)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidPayment(_("Say why the balance has to be corrected."))


def _plus(name: str, amount: Decimal) -> Round:
    """Return the sum of a column and an amount, to the cent.

    PostgreSQL adds decimals; SQLite adds binary fractions, whose nearest cent is the exact
    sum, and equal sums are then equal.
    """
    return Round(F(name) + amount, precision=2)


def _why_refused(account: CreditAccount | None, order: Order) -> str:
    if account is None:
        return _("Your shop has no credit account. Please pay on delivery.")
    if account.currency != order.currency:
        return _("Your credit is in %(yours)s, this order in %(its)s.") % {
            "yours": account.currency,
            "its": order.currency,
        }
    return _("This order is above your credit: %(left)s %(currency)s are left.") % {
        "left": account.available,
        "currency": account.currency,
    }


def _enter(
    account: CreditAccount,
    kind: EntryKind,
    amount: Decimal,
    *,
    order: Order | None = None,
    by: "AbstractBaseUser | None" = None,
    note: str = "",
    token: uuid.UUID | None = None,
) -> CreditEntry:
    return CreditEntry.objects.create(
        account=account,
        kind=kind,
        amount=amount,
        order=order,
        token=token,
        at=timezone.now(),
        user_id=by.pk if by is not None else None,
        user_name=by.get_username() if by is not None else "",
        note=note[:300],
    )


def _settle(account: CreditAccount) -> None:
    """Use the money received and not yet used for open invoices, oldest due first.

    The caller holds the account's row, so two of them never use the same money.
    """
    received = account.entries.filter(kind=EntryKind.PAYMENT).aggregate(sum=Sum("amount"))["sum"]
    used = account.invoices.aggregate(sum=Sum("paid"))["sum"]
    left = (-(received or Decimal()) - (used or Decimal())).quantize(CENT)
    for unpaid in account.invoices.open():
        part = min(left, unpaid.rest)
        if part <= 0:
            return
        left -= part
        unpaid.paid += part
        if not unpaid.rest:
            unpaid.settled_at = timezone.now()
            timers.stop(unpaid.order, "payment_reminder", reason="the invoice is paid")
        unpaid.save(update_fields=["paid", "settled_at"])


def _score_later(account: CreditAccount) -> None:
    # Actors call this module.
    from .actors import calculate_credit_score

    calculate_credit_score.send_with_options(args=(account.pk,), subject=subject_key(account))
