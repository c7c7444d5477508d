"""Deliveries in the admin: what was told to whom, and what the provider said."""

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from . import delivery as use_cases
from . import rendering, samples
from .models import Delivery, DeliveryState, Event, Incoming, OptOut, Receipt

if TYPE_CHECKING:
    DeliveryAdminBase = admin.ModelAdmin[Delivery]
    OptOutAdminBase = admin.ModelAdmin[OptOut]
    IncomingAdminBase = admin.ModelAdmin[Incoming]
    ReceiptInlineBase = admin.TabularInline[Receipt, Delivery]
else:
    DeliveryAdminBase = OptOutAdminBase = IncomingAdminBase = admin.ModelAdmin
    ReceiptInlineBase = admin.TabularInline


class Seen:
    """Mixed into admins of rows that come from outside."""

    def has_add_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody adds them by hand."""
        return False

    def has_change_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody changes them by hand."""
        return False


class ReceiptInline(Seen, ReceiptInlineBase):
    """What the provider said later, as it came."""

    model = Receipt
    fields = ("status", "said", "at", "received_at")
    readonly_fields = fields
    extra = 0
    can_delete = False


@admin.register(OptOut)
class OptOutAdmin(Seen, OptOutAdminBase):
    """Who wants no more messages; deleting a row allows them again."""

    list_display = ("address", "channel", "source", "at")
    list_filter = ("channel", "source")
    search_fields = ("address",)


@admin.register(Incoming)
class IncomingAdmin(Seen, IncomingAdminBase):
    """What people wrote to us."""

    list_display = ("sender", "text", "at")
    search_fields = ("sender", "text")
    show_full_result_count = False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """They are deleted when they are old."""
        return False


@admin.register(Delivery)
class DeliveryAdmin(DeliveryAdminBase):
    """Messages and their outcome; nobody edits them."""

    list_display = (
        "__str__",
        "state",
        "receipt",
        "address",
        "provider",
        "provider_message_id",
        "error_code",
        "created_at",
        "sent_at",
    )
    list_filter = ("state", "receipt", "channel", "event", "provider")
    search_fields = ("recipient_name", "address", "=provider_message_id", "=subject")
    show_full_result_count = False
    actions = ("allow_resend",)
    inlines = (ReceiptInline,)
    change_list_template = "admin/notifications/delivery/change_list.html"
    fieldsets = (
        (None, {"fields": ("event", "occasion", "channel", "language", "state")}),
        (_("For"), {"fields": ("recipient_name", "address", "subject", "recipient")}),
        (
            _("Provider"),
            {"fields": ("provider", "provider_message_id", "reference", "receipt", "receipt_at")},
        ),
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

    def get_urls(self) -> list[URLPattern]:
        """Add the previews of the templates."""
        wrap = self.admin_site.admin_view
        own = [
            path("templates/", wrap(self.templates_view), name="notifications_templates"),
            path(
                "templates/<str:event>/<str:language>/",
                wrap(self.html_view),
                name="notifications_template_html",
            ),
        ]
        return [*own, *super().get_urls()]

    def templates_view(self, request: HttpRequest) -> HttpResponse:
        """Show every template, filled with made-up values."""
        self._require_view(request)
        language = _known_language(request.GET.get("language", "en"))
        context = {
            **self.admin_site.each_context(request),
            "title": _t("Templates"),
            "opts": self.opts,
            "language": language,
            "languages": settings.LANGUAGES,
            "previews": [_preview(event, language) for event in Event],
        }
        return render(request, "admin/notifications/delivery/templates.html", context)

    def html_view(self, request: HttpRequest, event: str, language: str) -> HttpResponse:
        """Show an e-mail as its reader sees it."""
        self._require_view(request)
        if event not in Event.values:
            raise Http404
        letter = rendering.email(
            Event(event), samples.context(Event(event)), language=_known_language(language)
        )
        return HttpResponse(letter.html)

    def _require_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

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


def _known_language(code: str) -> str:
    return code if code in dict(settings.LANGUAGES) else settings.LANGUAGE_CODE


def _preview(event: Event, language: str) -> dict[str, Any]:
    values = samples.context(event)
    by_whatsapp = rendering.whatsapp(event, values, language=language)
    if isinstance(by_whatsapp, rendering.WhatsAppText):
        words = [by_whatsapp.text]
    else:
        words = [f"{{{{{at}}}}} {value}" for at, value in enumerate(by_whatsapp.parameters, 1)]
    return {
        "event": event,
        "label": event.label,
        "whatsapp": words,
        "email": rendering.email(event, values, language=language),
        "sms": rendering.sms(event, values, language=language).text,
    }
