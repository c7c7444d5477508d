"""Real HTTP and SMTP servers that speak the providers' wire formats; needs no Django."""

from .callbacks import Callbacks
from .faults import Fault
from .mailbox import Message
from .server import Sandbox

__all__ = ["Callbacks", "Fault", "Message", "Sandbox"]
