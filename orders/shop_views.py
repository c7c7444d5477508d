"""More pages of a shop: its credit, what it wants to be told, when it is delivered."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from notifications import optouts, preferences
from notifications.models import Channel

from . import bookings
from .access import for_retailers
from .exceptions import NotAllowedNow, SlotFull
from .forms import BookingForm, PreferencesForm
from .models import CreditAccount, DeliverySlot, Order, Retailer

SHOWN_ENTRIES = 50
SHOWN_SLOTS = 40


@require_GET
@for_retailers
def credit(request: HttpRequest, retailer: Retailer) -> HttpResponse:
    """Show what the shop owes, and why."""
    account = CreditAccount.objects.filter(retailer=retailer).first()
    context: dict[str, object] = {"retailer": retailer, "account": account}
    if account is not None:
        context["invoices"] = account.invoices.open().select_related("order")
        context["entries"] = account.entries.select_related("order")[:SHOWN_ENTRIES]
        context["now"] = timezone.now()
    return render(request, "orders/credit.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@for_retailers
def settings(request: HttpRequest, retailer: Retailer) -> HttpResponse:
    """Show and keep how and about what the shop wants to be told."""
    form = PreferencesForm(
        request.POST or None, instance=retailer, refused=preferences.refusals(retailer)
    )
    if request.method == "POST" and form.is_valid():
        form.save()
        preferences.refuse(retailer, form.unwanted())
        messages.success(request, _("Your wishes are kept."))
        return redirect("orders:settings")
    context = {"form": form, "retailer": retailer, "opted_out": _opted_out(retailer)}
    return render(request, "orders/settings.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@for_retailers
def booking(request: HttpRequest, retailer: Retailer, order_id: int) -> HttpResponse:
    """Let the shop choose, change or give back the delivery slot of an order."""
    order = get_object_or_404(Order.objects.of(retailer), pk=order_id)
    form = BookingForm(request.POST or None, slots=DeliverySlot.objects.bookable()[:SHOWN_SLOTS])
    if request.method == "POST" and form.is_valid():
        try:
            said = _change(order, form.cleaned_data["slot"])
        except (SlotFull, NotAllowedNow) as error:
            messages.error(request, str(error))
        else:
            messages.success(request, said)
        return redirect("orders:detail", order_id=order.pk)
    context = {"form": form, "order": order, "retailer": retailer, "slots": form.slots}
    return render(request, "orders/booking.html", context, status=422 if form.errors else 200)


def _change(order: Order, slot: DeliverySlot | None) -> str:
    if slot is None:
        bookings.cancel(order)
        return _("The delivery time is given back.")
    bookings.book(order, slot)
    return _("Your delivery comes %(slot)s.") % {"slot": slot}


def _opted_out(retailer: Retailer) -> list[Channel]:
    return [
        channel
        for channel in Channel
        if optouts.holds(channel, retailer.notification_address(channel))
    ]
