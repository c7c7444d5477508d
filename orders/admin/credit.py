"""Credit accounts, invoices and drifts in the admin; balances change by their forms only."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _

from .. import credit
from ..exceptions import InvalidPayment, NotAllowedNow
from ..models import CreditAccount, CreditDrift, CreditEntry, Invoice
from .base import ReadOnly

if TYPE_CHECKING:
    AccountAdminBase = admin.ModelAdmin[CreditAccount]
    DriftAdminBase = admin.ModelAdmin[CreditDrift]
    InvoiceAdminBase = admin.ModelAdmin[Invoice]
    EntryAdminBase = admin.ModelAdmin[CreditEntry]
else:
    AccountAdminBase = DriftAdminBase = InvoiceAdminBase = EntryAdminBase = admin.ModelAdmin


class PaymentForm(forms.Form):
    """Money received; the token makes a second click harmless."""

    amount = forms.DecimalField(
        label=_("amount"), max_digits=12, decimal_places=2, min_value=Decimal("0.01")
    )
    note = forms.CharField(
        label=_("note"), max_length=200, required=False, help_text=_("Such as the bank's reference")
    )
    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)


class CorrectionForm(forms.Form):
    """An amount by which a balance was wrong; the token makes a second click harmless."""

    amount = forms.DecimalField(
        label=_("amount"),
        max_digits=12,
        decimal_places=2,
        help_text=_("Above 0 where the shop owes more by it, below 0 where it owes less."),
    )
    reason = forms.CharField(label=_("reason"), max_length=300)
    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)


class DriftForm(forms.Form):
    """What the person saw, so that nothing else is set right."""

    reason = forms.CharField(label=_("reason"), max_length=300)
    difference = forms.DecimalField(widget=forms.HiddenInput, max_digits=12, decimal_places=2)


@dataclass(frozen=True, slots=True)
class Act:
    """What staff may do to a balance: its page, and what it calls."""

    permission: str
    title: Any
    explanation: Any
    form: type[forms.Form]
    button: Any
    use_case: Callable[..., object]
    done: Any


#: By the last part of their addresses.
ACTS = {
    "payment": Act(
        "orders.record_payment",
        _("Record a payment"),
        _("%(name)s owes %(balance)s. The payment settles the oldest invoices first."),
        PaymentForm,
        _("Record"),
        credit.record_payment,
        _("The payment is recorded."),
    ),
    "correction": Act(
        "orders.correct_balance",
        _("Correct the balance"),
        _("%(name)s owes %(balance)s. The correction is an entry of its own; invoices stay."),
        CorrectionForm,
        _("Correct"),
        credit.correct,
        _("The balance is corrected."),
    ),
    "drift": Act(
        "orders.correct_balance",
        _("Set the balance right"),
        _("The balance of %(name)s is %(balance)s, its entries are %(entries)s. It becomes that."),
        DriftForm,
        _("Set right"),
        credit.set_right,
        _("The balance is the sum of its entries again."),
    ),
}


@admin.register(CreditAccount)
class CreditAccountAdmin(AccountAdminBase):
    """Who may order on credit, up to what limit."""

    change_form_template = "admin/orders/creditaccount/change_form.html"
    list_display = ("retailer", "limit", "balance", "currency", "score", "terms_days")
    list_select_related = ("retailer",)
    search_fields = ("retailer__name",)
    autocomplete_fields = ("retailer",)
    fields = ("retailer", "currency", "limit", "terms_days", "balance", "score", "scored_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Keep what an account's entries are made of."""
        computed = ("balance", "score", "scored_at")
        return computed if obj is None else ("retailer", "currency", *computed)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Accounts stay: their entries are the shop's history."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Add the pages that change a balance."""
        view = self.admin_site.admin_view(self.act_view)
        own = [
            path(f"<int:account_id>/{name}/", view, {"name": name}, f"orders_creditaccount_{name}")
            for name in ACTS
        ]
        return [*own, *super().get_urls()]

    def act_view(self, request: HttpRequest, account_id: int, name: str) -> HttpResponse:
        """Ask what an act needs to know, and do it."""
        act = ACTS[name]
        if not request.user.has_perm(act.permission):
            raise PermissionDenied
        account = get_object_or_404(CreditAccount.objects.select_related("retailer"), pk=account_id)
        ((_pk, balance, entries),) = CreditAccount.objects.filter(pk=account_id).sums()
        form = act.form(request.POST or None, initial={"difference": balance - entries})
        if request.method == "POST" and form.is_valid():
            try:
                act.use_case(account, by=request.user, **form.cleaned_data)
            except (InvalidPayment, NotAllowedNow) as error:
                form.add_error(None, str(error))
            else:
                self.message_user(request, str(act.done), messages.SUCCESS)
                return redirect("admin:orders_creditaccount_change", account_id)
        facts = {"name": account.retailer.name, "balance": f"{balance} {account.currency}"}
        context = {
            **self.admin_site.each_context(request),
            "title": act.title,
            "opts": self.opts,
            "account": account,
            "explanation": act.explanation % {**facts, "entries": f"{entries} {account.currency}"},
            "button": act.button,
            "form": form,
        }
        status = 422 if form.errors else 200
        return render(request, "admin/orders/creditaccount/act.html", context, status=status)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Add the doors to what the user may do; that of a drift where there is one."""
        account = self.get_object(request, object_id) if object_id else None
        drifts = account is not None and account.drifts.filter(gone_at__isnull=True).exists()
        acts = [
            (reverse(f"admin:orders_creditaccount_{name}", args=[account.pk]), act.title)
            for name, act in ACTS.items()
            if account is not None
            and request.user.has_perm(act.permission)
            and (drifts or name != "drift")
        ]
        context = {"acts": acts, **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnly, EntryAdminBase):
    """Every change of a balance."""

    list_display = ("at", "account", "kind", "amount", "order", "user_name", "note")
    list_filter = ("kind",)
    list_select_related = ("account__retailer", "order")
    search_fields = ("account__retailer__name", "=order__id")
    show_full_result_count = False


@admin.register(Invoice)
class InvoiceAdmin(ReadOnly, InvoiceAdminBase):
    """What delivered orders cost, and what is paid."""

    list_display = ("__str__", "account", "order", "amount", "paid", "due_at", "settled_at")
    list_filter = (("settled_at", admin.EmptyFieldListFilter),)
    list_select_related = ("account__retailer", "order")
    search_fields = ("account__retailer__name", "=order__id")
    show_full_result_count = False


@admin.register(CreditDrift)
class CreditDriftAdmin(ReadOnly, DriftAdminBase):
    """Accounts whose balance is not the sum of their entries."""

    list_display = ("account", "balance", "entry_sum", "difference", "found_at", "gone_at")
    list_filter = (("gone_at", admin.EmptyFieldListFilter),)
    list_select_related = ("account__retailer",)
