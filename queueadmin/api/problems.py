"""One shape for every error: problem details as RFC 9457 describes them."""

import logging
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, RequestDataTooBig
from django.http import Http404
from rest_framework import serializers, status
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from ..brokers.transport import BrokerUnavailable
from ..exceptions import ConfigurationError, InvalidMessage, InvalidTransition, NotPermitted
from ..idempotency import KeyReused

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
TITLES = {
    400: "The request is wrong",
    401: "Who are you?",
    403: "Not permitted",
    404: "Not found",
    405: "This address does not know the method",
    406: "No such format",
    409: "Not in this state",
    413: "Too large",
    415: "Not JSON",
    422: "Used before",
    429: "Too many requests",
    503: "Not now",
}


class FieldErrorSerializer(serializers.Serializer[Any]):
    """What is wrong with one field."""

    field = serializers.CharField(help_text="Its name, with dots into what it contains.")
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, as RFC 9457 describes it."""

    type = serializers.CharField(help_text="Always about:blank: the status says what it is.")
    title = serializers.CharField(help_text="The same for every error of this status.")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What is wrong here, and what to do.")
    errors = FieldErrorSerializer(  # type: ignore[assignment]  # a serializer's own `errors`
        many=True, required=False, help_text="Fields that are wrong."
    )


class Conflict(APIException):
    """What is asked for does not apply in the present state."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class TooLarge(APIException):
    """The body is longer than what can be meant."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class Reused(APIException):
    """The idempotency key came with another request."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "key_reused"


class Unavailable(APIException):
    """The broker or the database does not answer."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer to an error; None leaves it to Django, which answers 500."""
    known = _translated(error)
    response = exception_handler(known, context)
    if response is None:
        return None
    fields: list[dict[str, str]] = []
    if isinstance(known, ValidationError):
        fields = _fields(known.detail)
        detail = " ".join(_sentence(each) for each in fields)
    elif isinstance(known, APIException):
        detail = str(known.detail)
    else:
        detail = str(response.data.get("detail", ""))
    response.data = {
        "type": "about:blank",
        "title": TITLES.get(response.status_code, "Error"),
        "status": response.status_code,
        "detail": detail,
    }
    if fields:
        response.data["errors"] = fields
    response.content_type = CONTENT_TYPE
    return response


def _translated(error: Exception) -> Exception:
    """Return the error of HTTP that an error of a use case means."""
    if isinstance(error, NotPermitted):
        return PermissionDenied(str(error))
    if isinstance(error, InvalidMessage):
        return ValidationError({error.field or "body": [str(error)]})
    if isinstance(error, InvalidTransition | ConfigurationError):
        return Conflict(str(error))
    if isinstance(error, KeyReused):
        return Reused(str(error))
    if isinstance(error, RequestDataTooBig):
        return TooLarge("The body is longer than DATA_UPLOAD_MAX_MEMORY_SIZE allows.")
    if isinstance(error, BrokerUnavailable):
        return Unavailable(f"The broker does not answer: {error}")
    if isinstance(error, ObjectDoesNotExist):
        return Http404()
    return error


def _sentence(each: dict[str, str]) -> str:
    return each["detail"] if each["field"] == "body" else f"{each['field']}: {each['detail']}"


def _fields(detail: Any, name: str = "") -> list[dict[str, str]]:
    """Flatten DRF's nested errors."""
    if isinstance(detail, dict):
        return [
            found
            for key, inner in detail.items()
            for found in _fields(inner, _joined(name, "" if key == "non_field_errors" else key))
        ]
    if isinstance(detail, list):
        return [
            found
            for index, inner in enumerate(detail)
            for found in _fields(
                inner, _joined(name, index) if isinstance(inner, dict | list) else name
            )
        ]
    return [{"field": name or "body", "detail": str(detail)}]


def _joined(name: str, part: Any) -> str:
    return ".".join(str(each) for each in (name, part) if each != "")
