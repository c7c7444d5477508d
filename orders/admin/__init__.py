"""The business in the admin, one module per aggregate."""

from . import bookings, catalogue, credit, orders, reports

__all__ = ["bookings", "catalogue", "credit", "orders", "reports"]
