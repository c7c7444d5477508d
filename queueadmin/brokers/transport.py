"""What a message server has to offer, and the errors by which it says that it does not answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import dramatiq

if TYPE_CHECKING:
    from ..controls import Control
    from ..ledger import Parcel


class BrokerUnavailable(dramatiq.ConnectionClosed):
    """The broker's server did not answer."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)  # type: ignore[no-untyped-call]  # Dramatiq's has no types


class ServerSettling(BrokerUnavailable):
    """The server has lost its messages; workers are about to say what they hold."""


class Transport(Protocol):
    """What a message server has to offer; every method raises BrokerUnavailable."""

    worker_id: str

    def push(self, parcels: "Sequence[Parcel]") -> None:
        """Add messages; one whose id the server already holds is left as it is."""

    def send(self, parcels: "Sequence[Parcel]") -> None:
        """Add messages as `push` does, without waiting for the answer if that takes long.

        That the server did not take them may be said at a later call, or not at all.
        """

    def fetch(self, queue: str, limit: int) -> list[tuple[str, bytes]]:
        """Take up to `limit` messages as (id, data), high priority first."""

    def fetch_limited(
        self, queue: str, limit: int, control: "Control", freed: Sequence[str]
    ) -> tuple[list[tuple[str, bytes]], int]:
        """Free the slots of messages that have run, then take what the limits allow.

        Returns:
            The messages, and in how many milliseconds the rate may allow more; 0 where
            it is not the rate that holds back.
        """

    def settle(self, done: dict[str, list[str]], parcels: "Sequence[Parcel]") -> None:
        """Let go of messages per queue and add others, in one round trip."""

    def give_back(
        self, queue: str, messages: Sequence[tuple[str, int]], worker_id: str = ""
    ) -> None:
        """Put messages, as (id, priority), back to the head of their queue.

        Only what this worker, or the one with another id, holds; the others are left alone.
        """

    def in_hand(self, queue: str) -> set[str]:
        """Return the ids that this worker holds by the server's account.

        A server that takes back by itself what a cut reply carried returns nothing.
        """

    #: How long a server that has lost its messages is given to the workers, to say what
    #: they hold, before anything counts as missing. Two heartbeats and a moment.
    settling_ms: int

    #: Whether `missing` looks each message up. Else it compares how many there should be with
    #: how many there are, which jobs whose messages are in another server distort.
    is_exact: bool

    def missing(self, parcels: "Sequence[Parcel]", *, bar: bool = False) -> "list[Parcel]":
        """Return those the server does not hold.

        Args:
            parcels: what to look for.
            bar: refuse from now on, in the same step, to take what is missing: whoever was
                late to push it must not push it beside its next dispatch.

        Raises:
            ServerSettling: the server has lost what it held a moment ago.
        """

    def needs_refill(self) -> bool:
        """Return whether the server may have lost messages since it was last refilled."""

    def refilled(self) -> None:
        """Note that the server holds everything that waits."""

    def restore(self, parcels: "Sequence[Parcel]", slots: Sequence[str]) -> None:
        """Put messages back into this worker's hands, and the slots of these ids."""

    def heartbeat(self, worker_id: str = "") -> str:
        """Tell that this process, or the one with another id, is alive.

        Returns:
            A mark of the server's memory: another one means that it has lost everything.
        """

    def dead_workers(self, timeout_ms: int) -> list[str]:
        """Return workers that have been silent for longer, by the server's clock."""

    def held_by(self, worker_id: str) -> dict[str, list[str]]:
        """Return the ids of messages in a worker's hands, per queue."""

    def forget(self, worker_id: str, held: dict[str, list[str]]) -> None:
        """Drop a dead worker and the messages it held."""

    def declare_dead(self, worker_id: str) -> None:
        """Count a worker as silent from now on."""

    def withdraw(self, parcels: "Sequence[Parcel]") -> set[str]:
        """Drop messages that no worker holds, each in one step; return the ids of those.

        No worker can fetch a message any more whose id is returned. A server that cannot
        take a message out of the middle of a queue returns none: workers drop it then
        when its turn comes.
        """

    def listed(self, queue: str, limit: int) -> list[str]:
        """Return the ids of messages that wait, at most so many, the next ones first.

        A server whose queues cannot be looked into returns none.
        """

    def size(self, queue: str) -> int:
        """Return how many messages of the queue the server holds, fetched ones included."""

    def purge(self, queue: str) -> None:
        """Drop all messages of the queue that no worker holds."""

    def wait_for_push(self, timeout: float) -> set[str]:
        """Wait up to `timeout` seconds for pushes; return the queues that got any."""

    def close(self) -> None:
        """Close every connection."""
