"""Carries messages through this process's memory, for unit tests."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dramatiq.middleware import Middleware

from .base import LedgerBroker
from .transport import BrokerUnavailable

if TYPE_CHECKING:
    from ..controls import Control
    from ..ledger import Parcel


class MemoryTransport:
    """The rules of the Redis transport on dictionaries; `is_down` makes every call fail."""

    def __init__(self) -> None:
        self.worker_id = "memory"
        self.is_down = False
        self.settling_ms = 0
        self.is_exact = True
        self._condition = threading.Condition()
        self._messages: dict[str, dict[str, bytes]] = defaultdict(dict)
        self._waiting: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self._held: dict[str, dict[str, int]] = defaultdict(dict)
        self._pushed: set[str] = set()

    def _require_up(self) -> None:
        if self.is_down:
            raise BrokerUnavailable("the stub is told to be down")

    def push(self, parcels: "Sequence[Parcel]") -> None:
        self._require_up()
        with self._condition:
            for parcel in parcels:
                if parcel.id not in self._messages[parcel.queue]:
                    self._messages[parcel.queue][parcel.id] = parcel.data
                    self._waiting[parcel.queue].append((parcel.priority, parcel.id))
                    self._pushed.add(parcel.queue)
            self._condition.notify_all()

    send = push

    def fetch(self, queue: str, limit: int) -> list[tuple[str, bytes]]:
        self._require_up()
        with self._condition:
            # Stable: equal priorities stay in the order of their arrival.
            self._waiting[queue].sort(key=lambda entry: entry[0])
            taken = self._waiting[queue][:limit]
            del self._waiting[queue][:limit]
            self._held[queue].update({message: priority for priority, message in taken})
            return [(message, self._messages[queue][message]) for _, message in taken]

    def fetch_limited(
        self, queue: str, limit: int, control: "Control", freed: Sequence[str]
    ) -> tuple[list[tuple[str, bytes]], int]:
        """Take messages; the memory of one process has no fleet to limit."""
        return self.fetch(queue, max(limit, 0)), 0

    def settle(self, done: dict[str, list[str]], parcels: "Sequence[Parcel]") -> None:
        self._require_up()
        with self._condition:
            for queue, ids in done.items():
                for message in ids:
                    self._held[queue].pop(message, None)
                    self._messages[queue].pop(message, None)
        self.push(parcels)

    def give_back(
        self, queue: str, messages: Sequence[tuple[str, int]], worker_id: str = ""
    ) -> None:
        self._require_up()
        with self._condition:
            for message, priority in reversed(messages):
                if self._held[queue].pop(message, None) is not None:
                    self._waiting[queue].insert(0, (priority, message))

    def in_hand(self, queue: str) -> set[str]:
        return set(self._held[queue])

    def needs_refill(self) -> bool:
        return False

    def refilled(self) -> None:
        """Nothing is ever lost here."""

    def restore(self, parcels: "Sequence[Parcel]", slots: Sequence[str]) -> None:
        """Nothing is ever lost here."""

    def missing(self, parcels: "Sequence[Parcel]", *, bar: bool = False) -> "list[Parcel]":
        self._require_up()
        return [parcel for parcel in parcels if parcel.id not in self._messages[parcel.queue]]

    def withdraw(self, parcels: "Sequence[Parcel]") -> set[str]:
        self._require_up()
        wanted = {parcel.id: parcel for parcel in parcels}
        with self._condition:
            taken = set()
            for queue in {parcel.queue for parcel in parcels}:
                waiting = self._waiting[queue]
                taken |= {message for _, message in waiting if message in wanted}
                waiting[:] = [entry for entry in waiting if entry[1] not in wanted]
            for message in taken:
                del self._messages[wanted[message].queue][message]
        return taken

    def listed(self, queue: str, limit: int) -> list[str]:
        with self._condition:
            waiting = sorted(self._waiting[queue], key=lambda entry: entry[0])
            return [message for _, message in waiting[:limit]]

    def heartbeat(self, worker_id: str = "") -> str:
        self._require_up()
        return "memory"

    def dead_workers(self, timeout_ms: int) -> list[str]:
        return []

    def held_by(self, worker_id: str) -> dict[str, list[str]]:
        return {queue: list(held) for queue, held in self._held.items()}

    def forget(self, worker_id: str, held: dict[str, list[str]]) -> None:
        self.settle(held, [])

    def declare_dead(self, worker_id: str) -> None:
        """Nobody else is alive in this process's memory."""

    def size(self, queue: str) -> int:
        return len(self._messages[queue])

    def purge(self, queue: str) -> None:
        with self._condition:
            for _, message in self._waiting.pop(queue, []):
                self._messages[queue].pop(message, None)

    def wait_for_push(self, timeout: float) -> set[str]:
        self._require_up()
        deadline = time.monotonic() + timeout
        with self._condition:
            while not self._pushed and (left := deadline - time.monotonic()) > 0:
                self._condition.wait(left)
            pushed, self._pushed = self._pushed, set()
            return pushed

    def close(self) -> None:
        """Keep everything; the broker may be used again."""


class StubBroker(LedgerBroker):
    """A ledger-backed broker without a server."""

    transport: MemoryTransport

    def __init__(self, *, middleware: list[Middleware] | None = None) -> None:
        super().__init__(middleware=middleware)
        self.transport = MemoryTransport()
