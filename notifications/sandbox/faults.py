"""Which recipients are in trouble: by what their address looks like, or by order."""

import threading
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What goes wrong."""

    BAD_RECIPIENT = "bad_recipient"  # refused for good, with the provider's own code
    THROTTLED = "throttled"  # refused with Retry-After
    PAIR_THROTTLED = "pair_throttled"  # WhatsApp only: too many to this one recipient
    OUTAGE = "outage"  # 503, nothing taken
    SLOW = "slow"  # taken, but answered after our clients have given up
    LOST_REQUEST = "lost_request"  # not taken, and the connection breaks
    LOST_ANSWER = "lost_answer"  # taken, then the connection breaks


#: Endings of phone numbers, and what they do; shown on the inbox page.
PHONE_FAULTS = {
    "0000": Fault.BAD_RECIPIENT,
    "0429": Fault.THROTTLED,
    "0503": Fault.OUTAGE,
    "0010": Fault.SLOW,
}
#: Local parts of e-mail addresses, and what they do.
EMAIL_FAULTS = {
    "bounce": Fault.BAD_RECIPIENT,
    "throttled": Fault.THROTTLED,
    "outage": Fault.OUTAGE,
    "slow": Fault.SLOW,
}
#: A throttled recipient is refused so often before a message is taken.
REFUSALS = 2
RETRY_AFTER_SECONDS = 2


@dataclass(slots=True)
class _Order:
    fault: Fault
    times: int | None  # None: until it is lifted


class Faults:
    """The faults in force. Orders win over patterns, a recipient's over a channel's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: dict[tuple[str | None, str | None], _Order] = {}
        self._refused: dict[tuple[str, str], int] = {}

    def set(
        self,
        fault: Fault | None,
        *,
        channel: str | None = None,
        recipient: str | None = None,
        times: int | None = None,
    ) -> None:
        """Order a fault, or lift it with None.

        Args:
            fault: what goes wrong.
            channel: "whatsapp", "email", "smtp" or "sms"; None for all.
            recipient: an address; None for everybody.
            times: how many calls it strikes; None until it is lifted.
        """
        with self._lock:
            if fault is None:
                self._orders.pop((channel, recipient), None)
            else:
                self._orders[channel, recipient] = _Order(fault, times)

    def clear(self) -> None:
        """Lift every order; the patterns stay."""
        with self._lock:
            self._orders.clear()
            self._refused.clear()

    def orders(self) -> list[tuple[str, str, str]]:
        """Return the orders in force as (channel, recipient, fault); "" for all."""
        with self._lock:
            return [
                (channel or "", recipient or "", order.fault.value)
                for (channel, recipient), order in self._orders.items()
            ]

    def strike(self, channel: str, recipient: str) -> Fault | None:
        """Return what goes wrong with this call, and count it."""
        with self._lock:
            return self._ordered(channel, recipient) or self._by_pattern(channel, recipient)

    def _ordered(self, channel: str, recipient: str) -> Fault | None:
        for key in ((channel, recipient), (None, recipient), (channel, None), (None, None)):
            if order := self._orders.get(key):
                if order.times is not None:
                    order.times -= 1
                    if order.times <= 0:
                        del self._orders[key]
                return order.fault
        return None

    def _by_pattern(self, channel: str, recipient: str) -> Fault | None:
        if "@" in recipient:
            fault = EMAIL_FAULTS.get(recipient.partition("@")[0].lower())
            # SMTP is there to save what SendGrid fails at; only bad addresses stay bad.
            if channel == "smtp" and fault is not Fault.BAD_RECIPIENT:
                return None
        else:
            fault = PHONE_FAULTS.get(recipient[-4:])
        if fault is not Fault.THROTTLED:
            return fault
        refused = self._refused.get((channel, recipient), 0)
        if refused >= REFUSALS:
            del self._refused[channel, recipient]
            return None
        self._refused[channel, recipient] = refused + 1
        return fault
