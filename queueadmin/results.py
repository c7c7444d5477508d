"""Results on the ledger: no second store to run, and no expiry before the job's own."""

import json
import logging
import time
from typing import Any

from dramatiq.message import Message
from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, ResultTimeout

from . import execution, payloads
from .states import JobState

logger = logging.getLogger(__name__)

#: Characters of JSON a result may have; more belongs into a table of its own.
MOST_CHARACTERS = 64_000
_DEFAULT_TIMEOUT_MS = 10_000
_LONGEST_SLEEP = 0.5


class LedgerBackend(ResultBackend):
    """Keeps each result in its job's row, committed together with the outcome."""

    def store_result(self, message: Any, result: Any, ttl: int) -> None:
        """Keep the result with the outcome of the running job.

        A result that JSON cannot express or that is too long is not kept, which is logged;
        the job is completed all the same. `ttl` has no effect: retention decides.
        """
        run = execution.current()
        if run is None:
            return
        try:
            encoded = (
                "null"
                if result is None
                else json.dumps(result, separators=(",", ":"), allow_nan=False)
            )
        except (TypeError, ValueError) as error:
            logger.warning("Result of job %s not kept: %s", run.job, error)
            return
        if len(encoded) > MOST_CHARACTERS:
            logger.warning("Result of job %s not kept: %d characters.", run.job, len(encoded))
            return
        run.result = payloads.seal_result(encoded) if run.is_sensitive else encoded

    def store_exception(self, message: Any, exception: BaseException, ttl: int) -> None:
        """Do nothing: the job's row says how it failed."""

    def get_result(self, message: Any, *, block: bool = False, timeout: int | None = None) -> Any:
        """Return the result of a message's job.

        Args:
            message: the message that was sent.
            block: whether to wait for it.
            timeout: milliseconds to wait at most, 10,000 unless told.

        Raises:
            ResultMissing: there is none, or none yet and `block` is False.
            ResultTimeout: the wait was too long.
            ResultFailure: the job failed for good or was cancelled.
            Undecryptable: the result is encrypted with a key that is not there.
        """
        deadline = time.monotonic() + (_DEFAULT_TIMEOUT_MS if timeout is None else timeout) / 1000
        pause = 0.01
        while True:
            found, result = self._look(message)
            if found:
                return result
            if not block:
                raise ResultMissing(message)
            if time.monotonic() + pause > deadline:
                raise ResultTimeout(message)
            time.sleep(pause)  # the caller asked to wait
            pause = min(pause * 2, _LONGEST_SLEEP)

    def _look(self, message: Message[Any]) -> tuple[bool, Any]:
        # The broker, and with it this module, is imported before models can be.
        from .models import Job

        row = (
            Job.objects.filter(pk=message.message_id)
            .values_list("state", "result", "error_class", "error_message")
            .first()
        )
        if row is None:
            return False, None
        state, result, error_class, error_message = row
        if state == JobState.DEAD:
            raise ResultFailure(
                f"actor raised {error_class}: {error_message}", error_class, error_message
            )
        if state == JobState.CANCELLED:
            raise ResultFailure("the job was cancelled", "Cancelled", "the job was cancelled")
        if state == JobState.COMPLETED and result is not None:
            return True, json.loads(payloads.open_result(result))
        return False, None
