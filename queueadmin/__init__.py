"""A durable job ledger, dead letters and queue control for Dramatiq, in the Django admin."""

from .execution import progress

__all__ = ["progress"]
