"""What the ordering business tells queueadmin about its jobs."""

from django.conf import settings
from django.db import models
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from notifications import recipients
from notifications.models import Delivery
from orders.models import Order
from queueadmin.models import Job
from queueadmin.resolver import Link
from queueadmin.resolver import Resolver as BaseResolver

#: What each actor does, in a few words; after the order's number where it is about one.
ACTIONS = {
    "route_order": gettext_lazy("choice of a vendor"),
    "ask_next_vendor": gettext_lazy("choice of the next vendor"),
    "fall_back": gettext_lazy("next vendor if this one stays silent"),
    "order_confirmation": gettext_lazy("confirmation"),
    "order_completion": gettext_lazy("news of its arrival"),
    "order_cancellation": gettext_lazy("news of its cancellation"),
    "order_status_update": gettext_lazy("news of its state"),
    "expire_order": gettext_lazy("expiry if nobody confirms"),
    "sweep_expired_orders": gettext_lazy("Expire all overdue orders"),
    "booking_reminder": gettext_lazy("reminder of the delivery"),
    "payment_reminder": gettext_lazy("reminder of the payment"),
    "sweep_payment_reminders": gettext_lazy("Remind of payments that were overlooked"),
    "calculate_credit_score": gettext_lazy("Credit score of one shop"),
    "recalculate_credit_scores": gettext_lazy("Credit scores of all shops"),
    "reconcile_credit": gettext_lazy("Reconcile all credit accounts"),
    "reconcile_accounts": gettext_lazy("Reconcile some credit accounts"),
    "report_drifts": gettext_lazy("Mail drifts of credit accounts"),
    "make_thumbnails": gettext_lazy("Resize a picture"),
    "fetch_picture": gettext_lazy("Fetch a picture"),
    "generate_report": gettext_lazy("Make a report"),
    "daily_report": gettext_lazy("Ask for the daily report"),
    "generate_daily_report": gettext_lazy("Make the daily report"),
    "answer_incoming": gettext_lazy("Answer a message"),
    "clean_up_notifications": gettext_lazy("Delete old receipts and messages"),
    "send_whatsapp": gettext_lazy("message by WhatsApp"),
    "send_email": gettext_lazy("message by e-mail"),
    "send_sms": gettext_lazy("message by SMS"),
}
SENDERS = ("send_whatsapp", "send_email", "send_sms")


class Resolver(BaseResolver):
    """Say in words what a job does and link it to its order, message and shop."""

    def describe(self, job: Job) -> str:
        """Return one line, from the row alone: lists call this for every job."""
        action = str(ACTIONS.get(job.actor, job.actor))
        label, _separator, pk = job.subject.partition(":")
        if label != "orders.order":
            return action
        return _("Order %(id)s: %(action)s") % {"id": pk[:20], "action": action}

    def address(self, path: str) -> str:
        """Return the address under which people reach the site."""
        return f"{settings.SITE_URL.rstrip('/')}{path}"

    def links(self, job: Job) -> list[Link]:
        """Return links to the order, the message and whom it is for; what is gone is left out."""
        subject = recipients.resolve(job.subject)
        found: list[models.Model | None] = [subject]
        if job.actor in SENDERS and (delivery := _delivery(job)):
            found += [delivery, recipients.resolve(delivery.recipient)]
        elif isinstance(subject, Order):
            found.append(subject.retailer)
        return [link for target in found if target is not None and (link := _link(target))]


def _delivery(job: Job) -> Delivery | None:
    arguments = (job.payload or {}).get("args")
    # A second argument, if any, says that it has waited for its turn.
    if not isinstance(arguments, list) or not arguments or type(arguments[0]) is not int:
        return None
    return Delivery.objects.filter(pk=arguments[0]).first()


def _link(target: models.Model) -> Link | None:
    meta = target._meta
    try:
        url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=(target.pk,))
    except NoReverseMatch:
        return None
    return Link(str(target), url)
