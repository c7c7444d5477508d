"""The brokers to name in DRAMATIQ_BROKER["BROKER"]."""

from .redis import RedisBroker
from .stub import StubBroker

__all__ = ["RedisBroker", "StubBroker"]
