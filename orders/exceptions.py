"""What can be wrong with an order; the texts are for the person who placed it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import VendorRequest


class InvalidOrder(ValueError):
    """An order that must not be placed.

    Args:
        message: what is wrong and what would be right.
        product_id: the product concerned, where it is about one.
    """

    def __init__(self, message: str, *, product_id: object = None) -> None:
        super().__init__(message)
        self.product_id = product_id


class EmptyOrder(InvalidOrder):
    """It has no lines."""


class TooManyLines(InvalidOrder):
    """It has more lines than one delivery carries."""


class InvalidQuantity(InvalidOrder):
    """A quantity is no whole number within the bounds."""


class UnknownProduct(InvalidOrder):
    """A product does not exist or is not sold any more."""


class MixedCurrencies(InvalidOrder):
    """Its products have prices in more than one currency."""


class NotCancellable(Exception):
    """The order has gone too far to be cancelled, or has ended already."""


class NotAllowedNow(Exception):
    """The order is not in a state for this step."""


class AnswerTooLate(Exception):
    """A vendor's answer that nobody waits for any more.

    Args:
        request: as it is now.
    """

    def __init__(self, request: "VendorRequest") -> None:
        super().__init__(f"Request {request.pk} is {request.state}")
        self.request = request


class CreditRefused(InvalidOrder):
    """The shop has no credit in this currency, or not enough left."""


class InvalidPayment(ValueError):
    """A payment that cannot be recorded; the text says why."""


class SlotFull(Exception):
    """The delivery slot has no room left, or has begun."""


class InvalidReport(ValueError):
    """A report that cannot be made; the text says why."""


class PictureRefused(ValueError):
    """A picture that is not taken; the text says why."""


class PictureUnreachable(Exception):
    """A picture's server is away; a later attempt may succeed."""
