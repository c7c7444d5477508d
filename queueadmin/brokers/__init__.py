"""The brokers to name in DRAMATIQ_BROKER["BROKER"]."""

from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigurationError
from .redis import RedisBroker
from .stub import StubBroker

if TYPE_CHECKING:
    from .rabbitmq import RabbitMQBroker

__all__ = ["RabbitMQBroker", "RedisBroker", "StubBroker"]


def __getattr__(name: str) -> Any:
    # Whoever works with Redis need not have the other client.
    if name != "RabbitMQBroker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .rabbitmq import RabbitMQBroker
    except ModuleNotFoundError as error:
        if error.name != "amqp":
            raise
        raise ConfigurationError(
            "RabbitMQ is the queue provider, and its client is not installed. "
            "Install it: pip install 'queueadmin[rabbitmq]'."
        ) from error
    return RabbitMQBroker
