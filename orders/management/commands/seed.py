"""Fills an empty site with the demo business."""

from argparse import ArgumentParser
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission, User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Q

from orders import demo
from orders.models import Offer, Product, Retailer, Vendor
from orders.workflow import Item, place_order

#: What staff who triage may change beside everything of queueadmin.
CHANGES = ("change_retailer", "change_product", "change_vendor", "resend_delivery")


class Command(BaseCommand):
    """Create demo accounts, catalogue and orders; what exists is left as it is."""

    help = "Create the demo business: accounts, catalogue, a few orders. Safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the way past the guard."""
        parser.add_argument(
            "--force", action="store_true", help="also on a site that is served by HTTPS"
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
            for number, (username, quantities) in enumerate(demo.ORDERS):
                place_order(
                    retailer=retailers[username],
                    lines=[Item(products[at].pk, count) for at, count in quantities.items()],
                    by=users[username],
                    token=demo.token(number),
                )
        self.stdout.write(
            f"Demo accounts: admin, {', '.join([*demo.STAFF, *retailers])}; "
            f"password of all: {demo.PASSWORD}"
        )


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
    for name, phone in demo.VENDORS.items():
        vendor, created = Vendor.objects.get_or_create(name=name, defaults={"phone": phone})
        if created:
            Offer.objects.bulk_create(
                Offer(
                    vendor=vendor,
                    product=product,
                    price=(product.price * Decimal("0.8")).quantize(Decimal("0.01")),
                    stock=500,
                )
                for product in products
            )
    return products
