"""Actors whose effects go to a file outside every system under test."""

import json
import os
import signal
import time

import dramatiq
from django.apps import apps
from django.conf import settings
from django.db import transaction
from dramatiq.middleware import CurrentMessage

from queueadmin.exceptions import PermanentError

CHILD = 10_000_000
IS_PLAIN = not apps.is_installed("queueadmin")
#: By a policy of ours it is never retried; Dramatiq has to be told.
_OPTIONS = {"throws": PermanentError} if IS_PLAIN else {}


def enqueue(actor: dramatiq.Actor, *args: object, delay: int | None = None) -> str:
    """Enqueue in the caller's transaction, or with plain Dramatiq behind it; return the id."""
    if not IS_PLAIN:
        return str(actor.send_with_options(args=args, delay=delay).message_id)
    message = actor.message_with_options(args=args)
    transaction.on_commit(lambda: actor.broker.enqueue(message, delay=delay))
    return str(message.message_id)


def note(kind: str, number: int) -> None:
    """Append one line; a single write with O_APPEND is whole, whoever else writes."""
    message = CurrentMessage.get_current_message()
    line = {
        "e": kind,
        "n": number,
        "job": message.message_id if message else "",
        "pid": os.getpid(),
        "parent": os.getppid(),
        "t": time.monotonic(),
    }
    descriptor = os.open(settings.CHAOS_JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def _run(number: int, mode: str, seconds: float) -> None:
    note("start", number)
    message = CurrentMessage.get_current_message()
    if mode == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    if mode == "dead":
        raise PermanentError(f"order {number} is refused")
    if mode == "flaky" and message and not message.options.get("retries"):
        raise RuntimeError(f"order {number} fails at first")
    if mode == "parent":
        _place_child(number)
    note("end", number)


def _place_child(number: int) -> None:
    from .models import Order

    with transaction.atomic():
        order, is_new = Order.objects.get_or_create(number=number + CHILD, defaults={"mode": "ok"})
        if is_new:
            order.job = enqueue(free, order.number, "ok", 0.01)
            order.save()


@dramatiq.actor(queue_name="free", **_OPTIONS)
def free(number: int, mode: str, seconds: float) -> None:
    """Run in a queue without limits."""
    _run(number, mode, seconds)


@dramatiq.actor(queue_name="limited", **_OPTIONS)
def limited(number: int, mode: str, seconds: float) -> None:
    """Run in a queue of which only a few may run at once."""
    _run(number, mode, seconds)
