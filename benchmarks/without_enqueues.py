"""Serves a request as if its view enqueued nothing, where the request asks for it."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from django.http import HttpRequest, HttpResponse
from dramatiq import Message, get_broker

HEADER = "X-Without-Enqueues"
_left_out = ContextVar("left_out", default=False)


class WithoutEnqueues:
    """Middleware that leaves out what a request with HEADER enqueues; the view is the same."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        broker: Any = get_broker()
        enqueue, enqueue_many = broker.enqueue, broker.enqueue_many

        def one(message: Message[Any], **options: Any) -> Message[Any]:
            return message if _left_out.get() else enqueue(message, **options)

        def many(messages: Iterable[Message[Any]]) -> list[Message[Any]]:
            return list(messages) if _left_out.get() else enqueue_many(messages)

        broker.enqueue, broker.enqueue_many = one, many

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request."""
        token = _left_out.set(HEADER in request.headers)
        try:
            return self._get_response(request)
        finally:
            _left_out.reset(token)
