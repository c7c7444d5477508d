"""Catalogue, people and orders."""

from .catalogue import Offer, Product, Vendor
from .order import MAX_QUANTITY, Order, OrderEvent, OrderLine
from .retailer import Retailer

__all__ = [
    "MAX_QUANTITY",
    "Offer",
    "Order",
    "OrderEvent",
    "OrderLine",
    "Product",
    "Retailer",
    "Vendor",
]
