"""A business that never sleeps: shops order and pay, vendors answer, providers fail as chosen.

Everything goes through the same use cases as from the pages; only the sandbox is told, by
its own door, to be out of order.
"""

import json
import random
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db.models import Q, QuerySet

from notifications.sandbox.faults import PHONE_FAULTS
from queueadmin import clock

from . import bookings, credit, workflow
from .basket import Item
from .exceptions import AnswerTooLate, InvalidOrder, NotAllowedNow, SlotFull
from .models import DeliverySlot, Invoice, Order, Payment, Product, Retailer, VendorRequest
from .states import OrderState

CHANNELS = ("whatsapp", "email", "sms")
FAULTS = ("outage", "throttled", "bad_recipient", "lost_answer")
#: Of vendors' answers, and of orders that get a delivery slot or are paid on credit.
REFUSED, BOOKED, ON_CREDIT = 0.15, 0.3, 0.3
#: Share of the open invoices that are paid in a step: a shop's credit lasts, and is seen to be used.
PAID = 0.1
#: Orders and requests looked at per step; what is left over is there in the next.
BATCH = 50


class SandboxAway(Exception):
    """The sandbox does not answer, so nothing can be disturbed."""


@dataclass(slots=True)
class Simulation:
    """One step after the other, as often as somebody calls.

    Args:
        failures: share of the providers' answers that are failures, 0 to 1.
        sandbox_url: where the sandbox takes its orders.
        chance: the source of chance; a seed makes it repeatable.
    """

    failures: float
    sandbox_url: str
    chance: random.Random = field(default_factory=random.Random)
    did: Counter[str] = field(default_factory=Counter)

    def step(self, orders: int) -> None:
        """Let shops place `orders` orders and pay, vendors answer, and lorries move on.

        Raises:
            SandboxAway: there is none; nothing was done.
        """
        self.disturb(orders)
        self.place(orders)
        self.answer()
        self.move_on()
        self.pay()

    def place(self, count: int) -> None:
        """Place orders of random shops for random products."""
        retailers = list(_reachable().select_related("credit").order_by("?")[:BATCH])
        products = list(Product.objects.on_sale())
        if not retailers or not products:
            return
        slots = list(DeliverySlot.objects.bookable()[:BATCH])
        for _number in range(count):
            self._place(self.chance.choice(retailers), products, slots)

    def answer(self) -> None:
        """Let vendors answer what is open, most of it by yes."""
        waiting = VendorRequest.objects.answerable(clock.now()).select_related("vendor", "order")
        for request in waiting[:BATCH]:
            accepted = self.chance.random() >= REFUSED
            try:
                workflow.answer(request, accepted=accepted)
            except AnswerTooLate:
                continue
            self.did["confirmed" if accepted else "refused"] += 1

    def move_on(self) -> None:
        """Send confirmed orders out, and let those on their way arrive."""
        steps = {
            OrderState.OUT_FOR_DELIVERY: ("delivered", workflow.deliver),
            OrderState.CONFIRMED: ("sent out", workflow.dispatch),
        }
        for state, (name, act) in steps.items():
            for order in Order.objects.filter(state=state).order_by("changed_at")[:BATCH]:
                try:
                    act(order, by=None)
                except NotAllowedNow:
                    continue
                self.did[name] += 1

    def pay(self) -> None:
        """Let shops pay some of what they owe."""
        for invoice in Invoice.objects.open().select_related("account")[:BATCH]:
            if self.chance.random() < PAID:
                credit.record_payment(invoice.account, invoice.rest, by=None)
                self.did["paid"] += 1

    def disturb(self, calls: int) -> None:
        """Order the sandbox to fail some of its next calls.

        Raises:
            SandboxAway: it does not answer.
        """
        for channel in CHANNELS:
            times = sum(self.chance.random() < self.failures for _call in range(calls))
            if times:
                fault = self.chance.choice(FAULTS)
                self._post({"channel": channel, "recipient": None, "fault": fault, "times": times})
                self.did["faults"] += times

    def _place(
        self, retailer: Retailer, products: list[Product], slots: Sequence[DeliverySlot]
    ) -> None:
        chosen = self.chance.sample(products, min(len(products), self.chance.randint(1, 4)))
        lines = [Item(product.pk, self.chance.randint(1, 5)) for product in chosen]
        has_credit = hasattr(retailer, "credit")
        on_credit = has_credit and self.chance.random() < ON_CREDIT
        try:
            order = workflow.place_order(
                retailer=retailer,
                lines=lines,
                by=None,
                payment=Payment.CREDIT if on_credit else Payment.CASH,
            )
        except InvalidOrder:
            self.did["refused by us"] += 1
            return
        self.did["placed"] += 1
        if slots and self.chance.random() < BOOKED:
            try:
                bookings.book(order, self.chance.choice(slots))
            except (SlotFull, NotAllowedNow):
                self.did["slot taken"] += 1

    def _post(self, fault: dict[str, object]) -> None:
        request = urllib.request.Request(  # noqa: S310  # the address is the sandbox's own
            f"{self.sandbox_url.rstrip('/')}/faults",
            data=json.dumps(fault).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                answer.read()
        except urllib.error.HTTPError:
            raise  # it answers, and does not understand us
        except OSError as error:
            raise SandboxAway(f"No sandbox answers at {self.sandbox_url}: {error}") from error


def _reachable() -> QuerySet[Retailer]:
    """Return the shops whose numbers the sandbox takes: what fails, fails at the chosen rate."""
    refused = Q()
    for ending in PHONE_FAULTS:
        refused |= Q(phone__endswith=ending)
    return Retailer.objects.exclude(refused)
