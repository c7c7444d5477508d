"""The business a newcomer meets: shops, products and a few orders."""

import io
import uuid
from dataclasses import dataclass
from decimal import Decimal

from PIL import Image, ImageDraw, ImageFont

#: The password of every demo account, printed by `make run`.
PASSWORD = "demo-queueadmin"  # noqa: S105  # a demo's, refused on public sites

#: Staff accounts and whether they may act or only look.
STAFF = {"anna": True, "ben": True, "viewer": False}


@dataclass(frozen=True, slots=True)
class Shop:
    """A retailer of the demo. Numbers are of the range kept free for fiction."""

    username: str
    name: str
    phone: str


SHOPS = (
    Shop("shop", "Harbour Shop", "+447700900123"),
    Shop("corner", "Corner Shop", "+447700900456"),
    # The sandbox refuses numbers ending in 0000: the first dead letter to look at.
    Shop("kiosk", "Station Kiosk", "+447700900000"),
)

#: Name, number, and what it asks as a share of the shop's price.
VENDORS = (
    ("North Wholesale", "+447700900200", Decimal("0.80")),
    ("Quay Foods", "+447700900201", Decimal("0.82")),
    ("Hill & Sons", "+447700900202", Decimal("0.86")),
)

#: Name, unit and price.
PRODUCTS = (
    ("Basmati rice", "bag of 10 kg", Decimal("18.90")),
    ("Black tea", "case of 24", Decimal("41.50")),
    ("Chickpeas", "case of 12 tins", Decimal("9.60")),
    ("Chopped tomatoes", "case of 12 tins", Decimal("8.40")),
    ("Coffee beans", "bag of 5 kg", Decimal("62.00")),
    ("Flour", "bag of 16 kg", Decimal("12.75")),
    ("Long-life milk", "case of 12", Decimal("13.20")),
    ("Olive oil", "can of 5 l", Decimal("38.00")),
    ("Paper bags", "box of 500", Decimal("16.30")),
    ("Sea salt", "case of 20", Decimal("11.80")),
    ("Spaghetti", "case of 20", Decimal("17.40")),
    ("Sugar", "bag of 25 kg", Decimal("21.00")),
)

#: Shop, and product number → quantity.
ORDERS = (
    ("shop", {0: 2, 4: 1}),
    ("corner", {2: 3, 3: 3, 10: 1}),
    ("kiosk", {6: 4}),
    ("shop", {7: 1, 8: 2}),
)


#: Shops that may order on credit, and up to what.
CREDIT = {"shop": Decimal(2000), "corner": Decimal(600)}
#: Days of delivery slots ahead, the hours they begin at, and how long they last.
SLOT_DAYS, SLOT_HOURS, SLOT_LENGTH = 7, (8, 11, 14, 17), 3
#: Shops beside those with a log-in, where many orders are wanted.
MORE_SHOPS = 200


def token(number: int) -> uuid.UUID:
    """Return the form token of the demo's order `number`, the same each time."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"demo-order-{number}")


def picture(name: str) -> io.BytesIO:
    """Return a plain picture for a product: its first letter on a colour of its own."""
    hue = sum(name.encode()) * 37 % 360
    image = Image.new("RGB", (480, 480), f"hsl({hue}, 45%, 55%)")
    ImageDraw.Draw(image).text(
        (240, 240), name[0], "white", font=ImageFont.load_default(260), anchor="mm"
    )
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    return file
