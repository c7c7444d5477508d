"""Who may see a shop's pages: the shop."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from .models import Retailer

Arguments = ParamSpec("Arguments")


def for_retailers(
    view: Callable[Concatenate[HttpRequest, Retailer, Arguments], HttpResponse],
) -> Callable[Concatenate[HttpRequest, Arguments], HttpResponseBase]:
    """Give the view the shop that is logged in; send others where they belong."""

    def wrapped(
        request: HttpRequest, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> HttpResponseBase:
        user = request.user
        if not user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        retailer = Retailer.objects.select_related("user").filter(user=user).first()
        if retailer is not None:
            return view(request, retailer, *args, **kwargs)
        if user.is_staff:
            return redirect("admin:index")
        raise PermissionDenied(_("This account belongs to no shop."))

    update_wrapper(wrapped, view)
    return never_cache(wrapped)
