"""The order form: one quantity per product on sale."""

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from notifications.models import Channel, Topic

from .basket import Item
from .models import MAX_QUANTITY, CreditAccount, DeliverySlot, Payment, Product, Retailer

if TYPE_CHECKING:
    PreferencesFormBase = forms.ModelForm[Retailer]
else:
    PreferencesFormBase = forms.ModelForm

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


class BookingForm(forms.Form):
    """One of the slots, or none. Whether it is free is decided when it is taken."""

    slot = forms.ModelChoiceField(queryset=DeliverySlot.objects.all(), required=False)

    def __init__(self, *args: Any, slots: QuerySet[DeliverySlot], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots = slots


class PreferencesForm(PreferencesFormBase):
    """By which channels, about what, and when not."""

    class Meta:
        model = Retailer
        fields = (
            "wants_whatsapp",
            "wants_email",
            "wants_sms",
            "language",
            "quiet_from",
            "quiet_until",
        )
        widgets = {
            "quiet_from": forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
            "quiet_until": forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
        }

    def __init__(self, *args: Any, refused: set[tuple[Topic, Channel]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for topic in Topic:
            for channel in Channel:
                self.fields[f"{topic}_{channel}"] = forms.BooleanField(
                    label=f"{topic.label}: {channel.label}",
                    required=False,
                    initial=(topic, channel) not in refused,
                )

    def matrix(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return each topic with its boxes, one per channel."""
        return [
            (str(topic.label), [self[f"{topic}_{channel}"] for channel in Channel])
            for topic in Topic
        ]

    def channels(self) -> list[forms.BoundField]:
        """Return the boxes that switch a channel on as a whole."""
        return [self["wants_whatsapp"], self["wants_email"], self["wants_sms"]]

    def unwanted(self) -> set[tuple[Topic, Channel]]:
        """Return what was not ticked."""
        return {
            (topic, channel)
            for topic in Topic
            for channel in Channel
            if not self.cleaned_data[f"{topic}_{channel}"]
        }


def _payments(account: CreditAccount | None) -> list[Payment]:
    return list(Payment) if account is not None else [Payment.CASH]
