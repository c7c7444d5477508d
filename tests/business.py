"""What tests of the business share: a shop, a catalogue, and real sandbox providers."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from notifications.models import Channel, Delivery, Event
from notifications.sandbox import Sandbox
from orders import workflow
from orders.models import Offer, Order, Product, Retailer, Vendor, VendorRequest
from orders.workflow import Item, place_order
from queueadmin.models.job import subject_key

PHONE = "+447700900123"
EMAIL = "shop@example.com"
VENDOR_PHONE = "+447700900200"


@pytest.fixture(scope="session")
def sandbox_servers() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_servers: Sandbox, settings: Settings) -> Sandbox:
    sandbox_servers.reset()
    settings.SANDBOX_URL = sandbox_servers.url
    for name in ("WHATSAPP", "SENDGRID", "SMS"):
        setattr(settings, f"{name}_API_URL", "")
    settings.WHATSAPP_TOKEN = settings.SENDGRID_API_KEY = settings.SMS_API_KEY = ""
    settings.WHATSAPP_PHONE_NUMBER_ID = ""
    # Django's test runner puts mail aside; here it goes over the wire.
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sandbox_servers.smtp_port
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    return sandbox_servers


@pytest.fixture
def retailer(db: None) -> Retailer:
    user = User.objects.create_user("shop")
    return Retailer.objects.create(user=user, name="Harbour Shop", phone=PHONE, email=EMAIL)


@pytest.fixture
def tea(db: None) -> Product:
    return Product.objects.create(name="Black tea", unit="case", price=Decimal("41.50"))


@pytest.fixture
def salt(db: None) -> Product:
    return Product.objects.create(name="Sea salt", unit="case", price=Decimal("0.10"))


@pytest.fixture
def vendor(tea: Product) -> Vendor:
    return make_vendor("North Wholesale", tea)


@pytest.fixture
def order(retailer: Retailer, tea: Product, vendor: Vendor) -> Order:
    return place_order(retailer=retailer, lines=[Item(tea.pk, 2)], by=retailer.user)


def make_vendor(
    name: str, *products: Product, price: str = "1.00", stock: int = 100, phone: str = VENDOR_PHONE
) -> Vendor:
    """Return a vendor that offers the products."""
    vendor = Vendor.objects.create(name=name, phone=phone)
    for product in products:
        Offer.objects.create(vendor=vendor, product=product, price=Decimal(price), stock=stock)
    return vendor


def asked(order: Order) -> VendorRequest:
    """Return the request the order waits for, routing it first where that is to be done."""
    workflow.route(order.pk)
    return VendorRequest.objects.get(order=order, state="open")


def confirm(order: Order) -> None:
    """Bring a placed order to its confirmation, as its vendor does."""
    workflow.answer(asked(order), accepted=True)


def plan(order: Order, channel: Channel = Channel.WHATSAPP) -> Delivery:
    """Return a delivery that waits to be sent, without a job."""
    context = {"name": order.retailer.name, "order": "12", "total": "83.00 EUR", "lines": []}
    context["vendor"] = "North Wholesale"
    return Delivery.objects.create(
        event=Event.ORDER_CONFIRMED,
        subject=subject_key(order),
        recipient=subject_key(order.retailer),
        recipient_name=order.retailer.name,
        channel=channel,
        context=context,
    )
