"""Fills an empty site with the demo business."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission, User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from orders import demo, history, pictures
from orders.models import (
    CreditAccount,
    DeliverySlot,
    Offer,
    Product,
    Retailer,
    Subscriber,
    Vendor,
)
from orders.workflow import Item, place_order

#: What staff who triage may change beside everything of queueadmin.
CHANGES = (
    "change_retailer",
    "change_product",
    "change_vendor",
    "change_deliveryslot",
    "resend_delivery",
    "handle_order",
    "record_payment",
    "correct_balance",
    "add_report",
    "download_report",
)
#: So many orders would be too many for three shops.
MORE_SHOPS_FROM = 500
#: More would be a slip of the finger: at some hundred a second they take hours.
MOST_ORDERS = 10_000_000


class Command(BaseCommand):
    """Create demo accounts, catalogue and orders; what exists is left as it is."""

    help = "Create the demo business: accounts, catalogue, a few orders. Safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the way past the guard."""
        parser.add_argument(
            "--force", action="store_true", help="also on a site that is served by HTTPS"
        )
        parser.add_argument(
            "--orders", type=_count, default=0, help="also write so many orders of the past"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Create what is missing."""
        if settings.HTTPS and not settings.DEBUG and not options["force"]:
            raise CommandError(
                "The demo accounts have a published password, and this site looks public "
                "(HTTPS is on). Use --force if you mean it."
            )
        with transaction.atomic():
            users = _accounts()
            retailers = _retailers(users)
            products = _catalogue()
            _credit(retailers)
            _slots()
            Subscriber.objects.get_or_create(
                email="anna@example.com", defaults={"name": "Anna (office)"}
            )
            for number, (username, quantities) in enumerate(demo.ORDERS):
                place_order(
                    retailer=retailers[username],
                    lines=[Item(products[at].pk, count) for at, count in quantities.items()],
                    by=users[username],
                    token=demo.token(number),
                )
        if options["orders"] > 0:
            self._write_past(options["orders"])
        self.stdout.write(
            f"Demo accounts: admin, {', '.join([*demo.STAFF, *retailers])}; "
            f"password of all: {demo.PASSWORD}"
        )

    def _write_past(self, count: int) -> None:
        if count > MORE_SHOPS_FROM:
            _more_shops()
        console = Console()
        began = time.monotonic()
        with Progress(
            *Progress.get_default_columns(), SpeedColumn(), console=console,
            disable=not console.is_terminal,
        ) as progress:  # fmt: skip
            task = progress.add_task("orders", total=count)
            for size in history.write(count):
                progress.advance(task, size)
        speed = count / max(time.monotonic() - began, 0.001)
        self.stdout.write(f"{count} orders of the past are written, {speed:,.0f} per second.")


class SpeedColumn(ProgressColumn):
    """How many rows a second are written."""

    def render(self, task: Task) -> Text:
        """Show nothing until it is known."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_ORDERS:
        raise ArgumentTypeError(f"{text} is no number from 0 to {MOST_ORDERS:,}")
    return int(text)


def _accounts() -> dict[str, User]:
    names = ["admin", *demo.STAFF, *(shop.username for shop in demo.SHOPS)]
    users = {user.username: user for user in User.objects.filter(username__in=names)}
    missing = [name for name in names if name not in users]
    # Hashing is slow on purpose; one hash serves the one password of all.
    password = make_password(demo.PASSWORD) if missing else ""
    for name in missing:
        users[name] = User.objects.create(
            username=name,
            password=password,
            email=f"{name}@example.com",
            is_staff=name == "admin" or name in demo.STAFF,
            is_superuser=name == "admin",
        )
    for name, may_act in demo.STAFF.items():
        users[name].user_permissions.add(*_permissions(may_act=may_act))
    return users


def _permissions(*, may_act: bool) -> list[Permission]:
    apps = ("queueadmin", "orders", "notifications")
    allowed = Q(content_type__app_label__in=apps, codename__startswith="view_")
    if may_act:
        allowed |= Q(content_type__app_label="queueadmin") | Q(codename__in=CHANGES)
    return list(Permission.objects.filter(allowed))


def _retailers(users: dict[str, User]) -> dict[str, Retailer]:
    return {
        shop.username: Retailer.objects.get_or_create(
            user=users[shop.username],
            defaults={
                "name": shop.name,
                "phone": shop.phone,
                "email": f"{shop.username}@example.com",
            },
        )[0]
        for shop in demo.SHOPS
    }


def _catalogue() -> list[Product]:
    products = [
        Product.objects.get_or_create(name=name, unit=unit, defaults={"price": price})[0]
        for name, unit, price in demo.PRODUCTS
    ]
    for product in products:
        if not product.pictures.exists():
            pictures.add(product, demo.picture(product.name))
    for name, phone, share in demo.VENDORS:
        vendor, created = Vendor.objects.get_or_create(name=name, defaults={"phone": phone})
        if created:
            Offer.objects.bulk_create(
                Offer(
                    vendor=vendor,
                    product=product,
                    price=(product.price * share).quantize(Decimal("0.01")),
                    stock=50_000,
                )
                for product in products
            )
    return products


def _credit(retailers: dict[str, Retailer]) -> None:
    for username, limit in demo.CREDIT.items():
        CreditAccount.objects.get_or_create(retailer=retailers[username], defaults={"limit": limit})


def _slots() -> None:
    today = timezone.localdate()
    length = timedelta(hours=demo.SLOT_LENGTH)
    for day in range(1, demo.SLOT_DAYS + 1):
        for hour in demo.SLOT_HOURS:
            start = timezone.make_aware(
                datetime.combine(today + timedelta(days=day), clock_time(hour))
            )
            DeliverySlot.objects.get_or_create(
                starts_at=start, defaults={"ends_at": start + length, "capacity": 20}
            )


def _more_shops() -> None:
    """Make shops without a usable log-in, for a believable number of customers."""
    for number in range(demo.MORE_SHOPS):
        user, created = User.objects.get_or_create(username=f"shop-{number:03}")
        if not created:
            continue
        retailer = Retailer.objects.create(
            user=user,
            name=f"Shop {number:03}",
            phone=f"+447700900{number + 600}",
            email=f"{user.username}@example.com",
        )
        if number % 3 == 0:
            CreditAccount.objects.create(retailer=retailer, limit=Decimal(1000))
