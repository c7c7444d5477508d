"""The pages of a shop: its orders, one of them, and a new one."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from notifications.models import Delivery

from . import workflow
from .access import for_retailers
from .exceptions import InvalidOrder, NotCancellable
from .forms import OrderForm
from .models import CreditAccount, Order, Payment, Picture, PictureState, Product, Retailer

PAGE_SIZE = 25
#: Seconds a browser may keep a picture; a new one has a new address.
PICTURE_AGE = 30 * 24 * 3600


@require_GET
@for_retailers
def order_list(request: HttpRequest, retailer: Retailer) -> HttpResponse:
    """Show the shop's orders, newest first."""
    page = Paginator(Order.objects.of(retailer), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "orders/list.html", {"page": page, "retailer": retailer})


@require_GET
@for_retailers
def order_detail(request: HttpRequest, retailer: Retailer, order_id: int) -> HttpResponse:
    """Show one of the shop's orders: lines, history, messages."""
    order = get_object_or_404(Order.objects.of(retailer), pk=order_id)
    booking = order.current_booking
    context = {
        "order": order,
        "booking": booking,
        "reminders": booking.current_reminders if booking else [],
        "lines": order.lines.all(),
        "history": order.history.all(),
        # What vendors are told is none of the shop's business.
        "deliveries": Delivery.objects.about(order).to(retailer).order_by("pk"),
        "retailer": retailer,
    }
    return render(request, "orders/detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@for_retailers
def place_order(request: HttpRequest, retailer: Retailer) -> HttpResponse:
    """Show the catalogue, and place what was chosen from it."""
    account = CreditAccount.objects.filter(retailer=retailer).first()
    form = OrderForm(
        request.POST or None, products=Product.objects.on_sale().with_picture(), account=account
    )
    if request.method == "POST" and form.is_valid():
        try:
            order = workflow.place_order(
                retailer=retailer,
                lines=form.items(),
                by=retailer.user,
                token=form.cleaned_data["token"],
                payment=Payment(form.cleaned_data["payment"] or Payment.CASH),
            )
        except InvalidOrder as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, _("Thank you. We have your order."))
            return redirect("orders:detail", order_id=order.pk)
    status = 422 if form.errors else 200
    return render(request, "orders/new.html", {"form": form, "retailer": retailer}, status=status)


@require_GET
def picture(request: HttpRequest, picture_id: int, size: str) -> HttpResponseBase:
    """Show a product's picture to anybody who is logged in; it never changes."""
    if not request.user.is_authenticated:
        raise PermissionDenied
    if size not in ("small", "large"):
        raise Http404
    found = get_object_or_404(Picture, pk=picture_id, state=PictureState.READY)
    answer = FileResponse(getattr(found, size).open("rb"), content_type="image/jpeg")
    patch_cache_control(answer, private=True, max_age=PICTURE_AGE, immutable=True)
    return answer


@require_POST
@for_retailers
def cancel_order(request: HttpRequest, retailer: Retailer, order_id: int) -> HttpResponse:
    """Cancel one of the shop's orders."""
    order = get_object_or_404(Order.objects.of(retailer), pk=order_id)
    try:
        workflow.cancel(order, by=retailer.user)
    except NotCancellable as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("The order is cancelled."))
    return redirect("orders:detail", order_id=order.pk)
