"""What a shop wants, checked and priced before an order is made of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from django.utils.translation import gettext as _

from .exceptions import (
    EmptyOrder,
    InvalidQuantity,
    MixedCurrencies,
    TooManyLines,
    UnknownProduct,
)
from .models import MAX_QUANTITY, Product

#: More does not fit one delivery note.
MAX_LINES = 100
#: Products have ids of 64 bits; larger numbers would be an error of the database.
MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Item:
    """How much of which product is wanted."""

    product_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Basket:
    """Products on sale with their quantities, in one currency."""

    quantities: dict[Product, int]
    currency: str

    @property
    def total(self) -> Decimal:
        """The price of everything today."""
        return sum((product.price * count for product, count in self.quantities.items()), Decimal())


def fill(lines: Iterable[Item]) -> Basket:
    """Return the basket of these lines; quantities of the same product are added up.

    Raises:
        InvalidOrder: the subclass and text say what is wrong.
    """
    wanted = _add_up(lines)
    products = _find_products(wanted)
    currencies = {product.currency for product in products}
    if len(currencies) > 1:
        raise MixedCurrencies(
            _("One order has one currency, not %(currencies)s.")
            % {"currencies": ", ".join(sorted(currencies))}
        )
    return Basket({product: wanted[product.pk] for product in products}, currencies.pop())


def _add_up(lines: Iterable[Item]) -> dict[int, int]:
    """Return the quantity per product id, checked."""
    wanted: dict[int, int] = {}
    for line in lines:
        # A bool is an int to Python, but nobody's quantity.
        if type(line.quantity) is not int or type(line.product_id) is not int:
            raise InvalidQuantity(
                _("Products and quantities are whole numbers."), product_id=line.product_id
            )
        wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
        if len(wanted) > MAX_LINES:
            raise TooManyLines(
                _("One order has at most %(count)d products.") % {"count": MAX_LINES}
            )
        if line.quantity < 1 or wanted[line.product_id] > MAX_QUANTITY:
            raise InvalidQuantity(
                _("Order between 1 and %(most)d of a product.") % {"most": MAX_QUANTITY},
                product_id=line.product_id,
            )
    if not wanted:
        raise EmptyOrder(_("Choose at least one product."))
    return wanted


def _find_products(wanted: dict[int, int]) -> list[Product]:
    ids = [product_id for product_id in wanted if 0 < product_id <= MAX_ID]
    products = list(Product.objects.on_sale().filter(pk__in=ids))
    if missing := set(wanted) - {product.pk for product in products}:
        raise UnknownProduct(
            _("A product you chose is not sold any more."), product_id=min(missing)
        )
    return products
