"""Deliveries in the admin: what was told to whom, and what the provider said."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from . import delivery as use_cases
from .models import Delivery, DeliveryState

if TYPE_CHECKING:
    DeliveryAdminBase = admin.ModelAdmin[Delivery]
else:
    DeliveryAdminBase = admin.ModelAdmin


@admin.register(Delivery)
class DeliveryAdmin(DeliveryAdminBase):
    """Messages and their outcome; nobody edits them."""

    list_display = (
        "__str__",
        "state",
        "address",
        "provider",
        "provider_message_id",
        "error_code",
        "created_at",
        "sent_at",
    )
    list_filter = ("state", "channel", "event", "provider")
    search_fields = ("recipient_name", "address", "=provider_message_id", "=subject")
    show_full_result_count = False
    actions = ("allow_resend",)
    fieldsets = (
        (None, {"fields": ("event", "channel", "state")}),
        (_("For"), {"fields": ("recipient_name", "address", "subject", "recipient")}),
        (_("Provider"), {"fields": ("provider", "provider_message_id", "reference")}),
        (_("Error"), {"fields": ("error_code", "error_text")}),
        (_("Times"), {"fields": ("created_at", "claimed_at", "sent_at")}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Deliveries are planned by events only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Deliveries are changed by sending only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Deliveries stay: without its row a message could be sent again."""
        return False

    def has_resend_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may allow a second send."""
        return request.user.has_perm("notifications.resend_delivery")

    @admin.action(description=_("Allow resending (outcome unknown)…"), permissions=["resend"])
    def allow_resend(
        self, request: HttpRequest, queryset: QuerySet[Delivery]
    ) -> HttpResponse | None:
        """Ask for a reason, then let the chosen unknown deliveries be sent again."""
        unknown = queryset.filter(state=DeliveryState.UNKNOWN).order_by("pk")
        if "confirm" not in request.POST or not request.user.is_authenticated:
            context = {
                **self.admin_site.each_context(request),
                "title": _t("Allow resending"),
                "opts": self.model._meta,
                "deliveries": unknown,
                "skipped": queryset.count() - unknown.count(),
                "chosen": request.POST.getlist("_selected_action"),
            }
            return render(request, "admin/notifications/delivery/allow_resend.html", context)
        changed = use_cases.allow_resend(
            unknown.values_list("pk", flat=True),
            by=request.user,
            reason=request.POST.get("reason", "").strip(),
        )
        self.message_user(
            request,
            ngettext(
                "%(count)d delivery may be sent again. Requeue its dead letter to send it.",
                "%(count)d deliveries may be sent again. Requeue their dead letters to send them.",
                len(changed),
            )
            % {"count": len(changed)},
            messages.SUCCESS if changed else messages.WARNING,
        )
        return None
