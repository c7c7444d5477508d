"""Counts, per process, how attempts of queues with a circuit breaker went lately.

Each process shows its counts in its row of the registry; the dispatcher adds them up.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from .conf import settings
from .fingerprints import fingerprint

# More attempts of a window say nothing new.
_MOST = 2000
_TEXT = 200


class Tallies:
    """Recent attempts of this process.

    Args:
        stage_of: a queue's stage of its breaker; counts of an earlier stage are dropped,
            or the failures that opened a breaker would open it again when it has closed.
    """

    def __init__(self, stage_of: Callable[[str], str]) -> None:
        self._stage_of = stage_of
        self._lock = threading.Lock()
        self._stages: dict[str, str] = {}
        #: Per queue: (time, key of the cause or "", text of the cause).
        self._recent: dict[str, deque[tuple[float, str, str]]] = {}

    def note(self, queue: str, error_class: str, error_message: str, *, is_permanent: bool) -> None:
        """Count an attempt, as a failure unless `error_class` is empty.

        A permanent error is an answer: whoever gave it is not out of order.
        """
        policy = settings.policy(queue)
        if policy is None or policy.breaker is None:
            return
        key = text = ""
        if error_class and not is_permanent:
            key = fingerprint("", error_class, error_message)
            text = f"{error_class}: {error_message}"[:_TEXT]
        with self._lock:
            recent = self._of(queue)
            recent.append((time.monotonic(), key, text))

    def _of(self, queue: str) -> deque[tuple[float, str, str]]:
        stage = self._stage_of(queue)
        if self._stages.get(queue) != stage:
            self._stages[queue] = stage
            self._recent[queue] = deque(maxlen=_MOST)
        return self._recent[queue]

    def summary(self) -> dict[str, Any]:
        """Return per queue its stage, attempts, and failures by cause within the window."""
        found = {}
        with self._lock:
            for queue in list(self._recent):
                policy = settings.policy(queue)
                if policy is None or policy.breaker is None:
                    continue
                recent = self._of(queue)
                oldest = time.monotonic() - policy.breaker.window
                while recent and recent[0][0] < oldest:
                    recent.popleft()
                causes = Counter(key for _, key, _ in recent if key)
                texts = {key: text for _, key, text in recent if key}
                found[queue] = {
                    "stage": self._stages[queue],
                    "attempts": len(recent),
                    "causes": {
                        key: {"count": count, "text": texts[key]} for key, count in causes.items()
                    },
                }
        return found
