"""The order form: one quantity per product on sale."""

import uuid
from collections.abc import Iterable
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from .basket import Item
from .models import MAX_QUANTITY, CreditAccount, Payment, Product

PREFIX = "quantity_"


class OrderForm(forms.Form):
    """Quantities for the given products, and the token that makes a second click harmless."""

    token = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(
        self,
        *args: Any,
        products: Iterable[Product],
        account: CreditAccount | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.products = list(products)
        self.account = account
        self.fields["payment"] = forms.ChoiceField(
            label=_("How do you want to pay?"),
            choices=[(way.value, way.label) for way in _payments(account)],
            initial=Payment.CASH,
            required=False,
            widget=forms.RadioSelect,
        )
        self.fields["token"].initial = uuid.uuid4
        for product in self.products:
            self.fields[f"{PREFIX}{product.pk}"] = forms.IntegerField(
                label=str(product),
                min_value=0,
                max_value=MAX_QUANTITY,
                required=False,
                widget=forms.NumberInput(attrs={"inputmode": "numeric", "placeholder": "0"}),
            )

    def rows(self) -> list[tuple[Product, forms.BoundField]]:
        """Return each product with its field, for the page."""
        return [(product, self[f"{PREFIX}{product.pk}"]) for product in self.products]

    def clean(self) -> dict[str, Any]:
        """Refuse quantities of products that left the catalogue while the page was open."""
        cleaned: dict[str, Any] = super().clean() or {}
        gone = [
            name
            for name, value in self.data.items()
            if name.startswith(PREFIX) and name not in self.fields and value not in ("", "0")
        ]
        if gone:
            raise forms.ValidationError(
                _("A product you chose is not sold any more. Please look at your order again."),
                code="gone",
            )
        return cleaned

    def items(self) -> list[Item]:
        """Return what was chosen; the form must be valid."""
        return [
            Item(product.pk, quantity)
            for product in self.products
            if (quantity := self.cleaned_data.get(f"{PREFIX}{product.pk}"))
        ]


def _payments(account: CreditAccount | None) -> list[Payment]:
    return list(Payment) if account is not None else [Payment.CASH]
