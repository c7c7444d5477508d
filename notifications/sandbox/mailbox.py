"""The messages the sandbox took: in memory, and in a journal that outlives it."""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

#: Older messages leave the memory; the journal keeps them.
CAPACITY = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a provider took it."""

    id: str
    channel: str
    provider: str
    recipient: str
    subject: str
    text: str
    reference: str
    at: str
    #: Names of the files that came with it.
    attachments: list[str] = field(default_factory=list)


class Mailbox:
    """A thread-safe list of messages, newest last.

    Args:
        journal: file of JSON lines to read at the start and to append to.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._heard: dict[str, datetime] = {}
        #: Called with each message taken, outside of the lock.
        self.on_message: Callable[[Message], None] | None = None
        self._messages: deque[Message] = deque(maxlen=CAPACITY)
        if journal is not None and journal.exists():
            with journal.open(encoding="utf-8") as lines:
                self._messages.extend(filter(None, map(_parse, lines)))

    def add(
        self,
        *,
        message_id: str,
        channel: str,
        provider: str,
        recipient: str,
        text: str,
        subject: str = "",
        reference: str = "",
        attachments: list[str] | None = None,
    ) -> Message:
        """Keep a message and return it."""
        message = Message(
            id=message_id,
            channel=channel,
            provider=provider,
            recipient=recipient,
            subject=subject,
            text=text,
            reference=reference,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            attachments=attachments or [],
        )
        with self._lock:
            self._messages.append(message)
            if self._journal is not None:
                with self._journal.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(message)) + "\n")
        if self.on_message is not None:
            self.on_message(message)
        return message

    def hear(self, sender: str) -> None:
        """Note that somebody wrote, who may be answered by free text for a day."""
        with self._lock:
            self._heard[sender] = datetime.now(UTC)

    def heard_lately(self, recipient: str) -> bool:
        """Return whether somebody wrote within the last 24 hours."""
        with self._lock:
            heard = self._heard.get(recipient)
        return heard is not None and datetime.now(UTC) - heard < timedelta(hours=24)

    def all(self) -> list[Message]:
        """Return the messages, newest last."""
        with self._lock:
            return list(self._messages)

    def clear(self) -> None:
        """Forget the messages in memory; the journal stays."""
        with self._lock:
            self._messages.clear()


def _parse(line: str) -> Message | None:
    """Return the journal's message; None for a line that a crash cut short."""
    try:
        return Message(**json.loads(line))
    except (ValueError, TypeError):
        return None
