"""Reads what the producer and the actors wrote down."""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Start:
    """One start of an actor, and its end if it got there."""

    job: str
    pid: int
    at: float
    ended_at: float | None = None
    #: The worker, when the job runs apart; what ends the worker ends the job too.
    parent: int = 0

    def is_in(self, pids: Collection[int]) -> bool:
        """Whether the job runs in one of these processes, or in one that ends with it."""
        return self.pid in pids or self.parent in pids


@dataclass(slots=True)
class Journal:
    """Everything in the file, by order number."""

    committed: set[int] = field(default_factory=set)
    rolled_back: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    starts: dict[int, list[Start]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Read the file; a line cut by a kill is no line."""
        found = cls()
        ends: dict[tuple[int, int], list[float]] = defaultdict(list)
        for line in path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            number = entry["n"]
            match entry["e"]:
                case "committed":
                    found.committed.add(number)
                case "rolled back":
                    found.rolled_back.add(number)
                case "unknown":
                    found.unknown.add(number)
                case "start":
                    start = Start(entry["job"], entry["pid"], entry["t"], parent=entry["parent"])
                    found.starts[number].append(start)
                case "end":
                    ends[number, entry["pid"]].append(entry["t"])
        for number, starts in found.starts.items():
            starts.sort(key=lambda start: start.at)
            found.starts[number] = [_ended(number, start, starts, ends) for start in starts]
        return found


def _ended(
    number: int,
    start: Start,
    starts: list[Start],
    ends: dict[tuple[int, int], list[float]],
) -> Start:
    """Return the start with the first end of its process after it and before its next one."""
    later = [other.at for other in starts if other.pid == start.pid and other.at > start.at]
    limit = min(later, default=float("inf"))
    times = [at for at in ends[number, start.pid] if start.at <= at < limit]
    return replace(start, ended_at=min(times, default=None))
