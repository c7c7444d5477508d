"""Deliveries in the admin: what was told to whom, and what the provider said."""

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from . import rendering, resending, samples
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
        "event",
        "channel",
        "recipient_name",
        "address",
        "state",
        "receipt",
        "provider",
        "error_code",
        "created_at",
    )
    list_filter = ("state", "receipt", "channel", "event", "provider")
    search_fields = ("recipient_name", "address", "=provider_message_id", "=subject")
    show_full_result_count = False
    actions = ("resend",)
    inlines = (ReceiptInline,)
    change_list_template = "admin/notifications/delivery/change_list.html"
    change_form_template = "admin/notifications/delivery/change_form.html"
    fieldsets = (
        (None, {"fields": ("event", "occasion", "channel", "language", "state")}),
        (_("For"), {"fields": ("recipient_name", "address", "subject", "recipient")}),
        (
            _("Provider"),
            {"fields": ("provider", "provider_message_id", "reference", "receipt", "receipt_at")},
        ),
        (_("Resending"), {"fields": ("resends", "sent_again_by")}),
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

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Offer to send it again where that is possible and allowed."""
        delivery = self.get_object(request, object_id) if object_id else None
        can_resend = delivery is not None and resending.skip(delivery) is None
        context = {
            **(extra_context or {}),
            "can_resend": can_resend and self.has_resend_permission(request),
        }
        return super().changeform_view(request, object_id, form_url, context)

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
            "title": gettext("Templates"),
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
        """Return whether the user may send a message again."""
        return request.user.has_perm(resending.PERMISSION)

    @admin.display(description=_("sent again by"))
    def sent_again_by(self, delivery: Delivery) -> str:
        """Link the delivery that sends this one once more."""
        successor = getattr(delivery, "successor", None)
        if successor is None:
            return "–"
        address = reverse("admin:notifications_delivery_change", args=[successor.pk])
        return format_html('<a href="{}">{}</a>', address, successor)

    @admin.action(description=_("Resend…"), permissions=["resend"])
    def resend(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        """Ask for a reason, then send the chosen deliveries again that may be."""
        reason = request.POST.get("reason", "").strip()
        chosen = queryset.select_related("successor").order_by("pk")
        if "confirm" not in request.POST or not reason or not request.user.is_authenticated:
            return self._ask_to_resend(request, chosen)
        result = resending.resend(
            chosen.values_list("pk", flat=True), by=request.user, reason=reason
        )
        self._tell_what_is_resent(request, result)
        return None

    def _ask_to_resend(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> HttpResponse:
        rows = list(chosen[: resending.LIMIT])
        able = [delivery for delivery in rows if resending.skip(delivery) is None]
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Resend"),
            "opts": self.model._meta,
            "unknown": [row for row in able if row.state == DeliveryState.UNKNOWN],
            "failed": [row for row in able if row.state != DeliveryState.UNKNOWN],
            "skipped": chosen.count() - len(able),
            "chosen": request.POST.getlist("_selected_action"),
            "across": request.POST.get("select_across", "0"),
        }
        return render(request, "admin/notifications/delivery/resend.html", context)

    def _tell_what_is_resent(self, request: HttpRequest, result: resending.Resent) -> None:
        said = ngettext(
            "%(count)d delivery is sent again.",
            "%(count)d deliveries are sent again.",
            len(result.done),
        ) % {"count": len(result.done)}
        if result.held:
            said += " " + ngettext(
                "%(count)d of them when somebody requeues its dead letter, which you may not.",
                "%(count)d of them when somebody requeues their dead letters, which you may not.",
                len(result.held),
            ) % {"count": len(result.held)}
        for why, count in result.skipped.items():
            said += " " + gettext("%(count)d left alone: %(why)s.") % {
                "count": count,
                "why": why.label,
            }
        self.message_user(request, said, messages.SUCCESS if result.done else messages.WARNING)


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
