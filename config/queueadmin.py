"""What the ordering business tells queueadmin about its jobs."""

from queueadmin.resolver import Resolver as BaseResolver


class Resolver(BaseResolver):
    """Link jobs to the orders they are about."""
