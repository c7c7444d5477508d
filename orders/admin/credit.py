"""Credit accounts, invoices and drifts in the admin; balances change by two forms only."""

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import credit
from ..exceptions import InvalidPayment
from ..models import CreditAccount, CreditDrift, CreditEntry, Invoice
from .base import ReadOnly

if TYPE_CHECKING:
    from django.contrib.auth.models import User

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
        """Add the page to record a payment."""
        view = self.admin_site.admin_view(self.payment_view)
        own = path("<int:account_id>/payment/", view, name="orders_creditaccount_payment")
        return [own, *super().get_urls()]

    def payment_view(self, request: HttpRequest, account_id: int) -> HttpResponse:
        """Ask for a payment's amount, and record it."""
        if not request.user.has_perm("orders.record_payment"):
            raise PermissionDenied
        account = get_object_or_404(CreditAccount.objects.select_related("retailer"), pk=account_id)
        form = PaymentForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            user: User = request.user  # type: ignore[assignment]  # a stranger has no permission
            try:
                credit.record_payment(account, by=user, **form.cleaned_data)
            except InvalidPayment as error:
                form.add_error("amount", str(error))
            else:
                self.message_user(request, gettext("The payment is recorded."), messages.SUCCESS)
                return redirect("admin:orders_creditaccount_change", account_id)
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Record a payment"),
            "opts": self.opts,
            "account": account,
            "form": form,
        }
        status = 422 if form.errors else 200
        return render(request, "admin/orders/creditaccount/payment.html", context, status=status)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Add the door to payments for who may record them."""
        context = {
            "may_record_payment": request.user.has_perm("orders.record_payment"),
            **(extra_context or {}),
        }
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
