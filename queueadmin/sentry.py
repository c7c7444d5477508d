"""Reports jobs that fail for good to Sentry, each failure once and without its payload.

An attempt that is to be repeated is not reported. The log lines that tell of the same failure
are not taken for further ones. The middleware is in the list only where `sentry-sdk` is
installed. It never imports it by itself: who has called `sentry_sdk.init` has.
"""

import sys
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from . import execution
from .conf import settings
from .execution import Execution
from .fingerprints import fingerprint
from .masking import storable
from .states import DeathCause

_LOGGERS = ("queueadmin.jobs", "dramatiq.worker.WorkerThread", "django_tasks", "django.tasks")


class Sentry(Middleware):
    """Reports when an attempt's failure is a job's last."""

    def __init__(self) -> None:
        _ignore_logs()

    # Once more where jobs are run: `sentry_sdk.init` may come after the broker.
    def after_process_boot(self, broker: Broker) -> None:
        """Keep Sentry's own reading of logs from reporting a failure again."""
        _ignore_logs()

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Keep Sentry's own reading of logs from reporting a failure again."""
        _ignore_logs()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Report an attempt that nothing follows."""
        run = execution.current()
        if exception is None or run is None or not message.failed:
            return
        if not run.returned and not run.cancelled and _is_imported():
            _report(run, exception)


def _is_imported() -> bool:
    return "sentry_sdk" in sys.modules


def _ignore_logs() -> None:
    """Let Sentry's reading of logs pass over the lines that tell of failed jobs.

    They would be a second report, and Dramatiq's has the whole message among its values.
    """
    if _is_imported():
        from sentry_sdk.integrations.logging import ignore_logger  # see the module's text

        for name in _LOGGERS:
            ignore_logger(name)


def _report(run: Execution, exception: BaseException) -> None:
    import sentry_sdk  # see the module's text
    from sentry_sdk.utils import event_from_exception

    client = sentry_sdk.get_client()
    if not client.is_active():
        return
    # Variables of frames are the arguments, among others.
    event, hint = event_from_exception(
        exception,
        client_options={**client.options, "include_local_variables": False},
        mechanism={"type": "queueadmin", "handled": False},
    )
    for value in event.get("exception", {}).get("values", []):
        value["value"] = run.redact(value.get("value") or "")
    kind, text = type(exception).__qualname__[:200], storable(run.redact(str(exception)), 5_000)
    # As the ledger groups them, so that one trouble is one issue.
    group = fingerprint(run.actor, kind, text)
    # Nothing else of the thread: what a logger left behind there may be of another job.
    with sentry_sdk.isolation_scope() as scope:
        scope.clear()
        scope.fingerprint = [group]
        scope.set_transaction_name(run.actor)
        for name, tag in {
            "queueadmin.job": run.job,
            "queueadmin.actor": run.actor,
            "queueadmin.queue": run.queue,
            "queueadmin.fingerprint": group,
            "queueadmin.attempt": str(run.attempt),
            "queueadmin.cause": (run.cause or DeathCause.REJECTED).value,
            "queueadmin.release": settings.RELEASE,
        }.items():
            if tag:
                scope.set_tag(name, tag)
        sentry_sdk.capture_event(event, hint=hint)
