"""What every call has in common: who may, how much, in which form, and how it is documented."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, ClassVar, TypeVar

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldError
from django.db.models import QuerySet
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.exceptions import NotFound, ParseError, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle
from rest_framework.viewsets import GenericViewSet

from .. import idempotency
from ..conf import settings
from ..deadletters import BulkResult
from ..resolver import get_resolver
from . import problems

Call = TypeVar("Call", bound=Callable[..., Any])

#: Beside the largest message: names, reasons, lists of ids.
_ROOM = 1_000_000
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
REASON_LENGTH = 2_000


class MayDoVerb(BasePermission):
    """Asks the host's resolver for the permission of the verb; see `ApiViewSet.verbs`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Let whoever is logged in and has the permission pass."""
        user = request.user
        if not user.is_authenticated:
            return False
        action = view.action
        if action is None:  # a method that the address does not know: 405 says so
            return True
        verb: str = view.verbs[action]
        self.message = f"You lack the permission queueadmin.{verb}."
        return get_resolver().may(user, verb)


class Throttle(UserRateThrottle):
    """API_RATE for each user."""

    scope = "queueadmin"

    def get_rate(self) -> str:
        """Return the rate of the settings."""
        return settings.API_RATE


class Parser(JSONParser):
    """JSON of a bounded size and depth."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """Return what the body says.

        Raises:
            TooLarge: it is longer than the largest message and some room.
            ParseError: it is no JSON object.
        """
        length = int(parser_context["request"].META.get("CONTENT_LENGTH") or 0)
        most = settings.MAX_MESSAGE_BYTES + _ROOM
        if length > most:
            raise problems.TooLarge(f"The body has {length:,} bytes; {most:,} are the most.")
        try:
            found = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        if not isinstance(found, dict):
            raise ParseError("The body must be a JSON object.")
        return found


class Pages(CursorPagination):
    """Pages by position, so that none is skipped or shown twice while rows come and go."""

    page_size = 50
    max_page_size = 200
    page_size_query_param = "limit"
    #: The order of rows that share their time.
    tie_breaker = "-id"
    # Rows of one bulk share their time; clamping the offset would show them for ever.
    offset_cutoff = None  # type: ignore[assignment]

    def get_page_size(self, request: Request) -> int:
        """Return how many rows were asked for.

        Raises:
            ValidationError: it is no number from 1 to `max_page_size`.
        """
        text = request.query_params.get("limit", str(self.page_size))
        if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= self.max_page_size):
            raise ValidationError({"limit": [f"A number from 1 to {self.max_page_size}."]})
        return int(text)

    def decode_cursor(self, request: Request) -> Any:
        """Return the cursor, checked: it comes from outside.

        Raises:
            NotFound: it is none of ours.
        """
        cursor = super().decode_cursor(request)
        if cursor is not None:
            try:
                if cursor.offset > 2**31:
                    raise ValueError
                if cursor.position is not None:
                    self._check_position(str(cursor.position))
            except ValueError:
                raise NotFound(self.invalid_cursor_message) from None
        return cursor

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Describe the parameters of a page."""
        limit = {"type": "integer", "minimum": 1, "maximum": self.max_page_size}
        return [
            {
                "name": "limit",
                "in": "query",
                "schema": {**limit, "default": self.page_size},
                "description": "Rows of a page.",
            },
            {
                "name": "cursor",
                "in": "query",
                "schema": {"type": "string"},
                "description": "As `next` and `previous` have it.",
            },
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe a page."""
        link = {"type": "string", "format": "uri", "nullable": True, "example": None}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }

    def _check_position(self, position: str) -> None:
        if str(self.ordering[0]).lstrip("-") == "id":
            if not (position.isascii() and position.isdecimal() and len(position) <= 18):
                raise ValueError
        else:
            datetime.fromisoformat(position)


class Renderer(JSONRenderer):
    """JSON in ASCII: half of a surrogate pair, as payloads may have, has no other encoding."""

    ensure_ascii = True


@method_decorator(never_cache, name="dispatch")
class ApiViewSet(GenericViewSet[Any]):
    """One kind of record: its lists, details and verbs.

    The host's defaults of REST framework do not change it.
    """

    # First, so that whoever is not logged in is answered 401.
    authentication_classes = (TokenAuthentication, SessionAuthentication)
    permission_classes: Sequence[type[BasePermission]] = (MayDoVerb,)
    throttle_classes = (Throttle,)
    parser_classes = (Parser,)
    renderer_classes = (Renderer,)
    pagination_class: type[Pages] | None = Pages
    filter_backends = ()
    schema = AutoSchema()
    #: The permission of each action.
    verbs: ClassVar[dict[str, str]]

    def get_exception_handler(self) -> Any:
        """Answer errors as problem details, whatever the host has set."""
        return problems.handle

    @property
    def user(self) -> Any:
        """Who asks; nobody is let in without a log-in."""
        return self.request.user

    def page(
        self, rows: "QuerySet[Any]", serializer: type[serializers.BaseSerializer[Any]], order: str
    ) -> Response:
        """Return a page of rows in the order of a field, newest first."""
        paginator: Any = self.paginator
        tie = paginator.tie_breaker
        paginator.ordering = (order, tie) if order.lstrip("-") != "id" else (order,)
        # DRF reads the ordering of the class; this is one list's.
        paginator.get_ordering = lambda *args: paginator.ordering
        found = self.paginate_queryset(rows)
        return self.get_paginated_response(serializer(found, many=True).data)

    def body(self, serializer: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        """Return the body's fields, checked.

        Raises:
            ValidationError: says for each field what is wrong.
        """
        return _checked(serializer, self.request.data)

    def query(self, serializer: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        """Return the query's parameters, checked.

        Raises:
            ValidationError: says for each what is wrong, an unknown one included.
        """
        given = self.request.query_params.dict()
        return _checked(
            serializer, {k: v for k, v in given.items() if k not in ("limit", "cursor")}
        )


def _checked(serializer: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    known = serializer(data=data)
    if unknown := _unknown(known, data):
        raise ValidationError(unknown)
    known.is_valid(raise_exception=True)
    found: dict[str, Any] = known.validated_data
    return found


def _unknown(known: serializers.Serializer[Any], data: Any) -> dict[str, Any]:
    """Return an error for each field that is not known, also inside of objects."""
    names = ", ".join(known.fields) or "none"
    found: dict[str, Any] = {
        name: [f"There is no such field; known: {names}."]
        for name in sorted(set(data) - set(known.fields))
    }
    for name, field in known.fields.items():
        if not (isinstance(field, serializers.Serializer) and isinstance(data.get(name), dict)):
            continue
        if errors := _unknown(field, data[name]):
            found[name] = errors
    return found


# --- Results of verbs -------------------------------------------------------------------
class NothingSerializer(serializers.Serializer[Any]):
    """An empty body."""


class ReasonSerializer(serializers.Serializer[Any]):
    """Why it is done."""

    reason = serializers.CharField(
        max_length=REASON_LENGTH, required=False, default="", allow_blank=True,
        help_text="Kept in the audit trail.",
    )  # fmt: skip


class RequiredReasonSerializer(serializers.Serializer[Any]):
    """Why it is done; it must be said."""

    reason = serializers.CharField(max_length=REASON_LENGTH, help_text="Kept in the audit trail.")


class ResultSerializer(serializers.Serializer[Any]):
    """What became of many."""

    requested = serializers.IntegerField()
    done = serializers.IntegerField()
    skipped = serializers.DictField(
        child=serializers.IntegerField(), help_text="How many were left as they were, by reason."
    )
    dry_run = serializers.BooleanField()


class ChangedSerializer(serializers.Serializer[Any]):
    """Whether anything was changed."""

    changed = serializers.BooleanField(
        help_text="false when it was as asked for already, as after a second request."
    )


def one(result: BulkResult, *, gone: str) -> None:
    """Raise what kept a verb from its only target.

    Raises:
        NotFound: it is not there, which the reason `gone` says.
        Conflict: the verb does not apply to it now.
    """
    if result.done or getattr(result, "stopping", 0):
        return
    reason = next(iter(result.skipped), gone)
    if reason == gone:
        raise NotFound
    raise problems.Conflict(f"Nothing was done: {reason}.")


def user_named(name: str | None, *, verb: str, field: str) -> Any:
    """Return the user of a name or e-mail address; None for None.

    Args:
        name: as the user logs in with, or an address that only this user has.
        verb: the permission the user must have to be given anything.
        field: of the request, for the error.

    Raises:
        ValidationError: nobody has the name and the permission.
    """
    if name is None:
        return None
    user = _user_by(get_user_model().USERNAME_FIELD, name)
    if user is None and "@" in name:
        user = _user_by(f"{get_user_model().get_email_field_name()}__iexact", name)
    if user is None or not get_resolver().may(user, verb):
        raise ValidationError({field: [f"Nobody named {name!r:.150} has queueadmin.{verb}."]})
    return user


def _user_by(field: str, value: str) -> Any:
    """Return the only user with this value; None where there are none, several or no such field."""
    try:
        found = list(get_user_model()._default_manager.filter(**{field: value})[:2])
    except FieldError:
        return None
    return found[0] if len(found) == 1 else None


# --- Requests that may come twice -------------------------------------------------------
def idempotent(method: Callable[..., Response]) -> Callable[..., Response]:
    """Answer a request that comes again with the same Idempotency-Key once more."""

    @wraps(method)
    def call(self: ApiViewSet, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return method(self, request, *args, **kwargs)
        if not _KEY.match(key):
            raise ValidationError(
                {"Idempotency-Key": ["1 to 255 printable ASCII characters without blanks."]}
            )
        body = json.dumps(request.data, sort_keys=True)
        digest = hashlib.sha256(f"{request.method} {request.path}\n{body}".encode()).hexdigest()

        def act() -> idempotency.Answer:
            answer = method(self, request, *args, **kwargs)
            text = Renderer().render(answer.data).decode()
            return idempotency.Answer(answer.status_code, text)

        found = idempotency.once(key, user=self.user, fingerprint=digest, act=act)
        headers = {"Idempotency-Replayed": "true"} if found.is_repeated else None
        return Response(json.loads(found.body), status=found.status, headers=headers)

    return call


# --- Documentation ----------------------------------------------------------------------
_PROBLEMS = {
    400: "A field or parameter is wrong; `errors` names each.",
    401: "No valid session or token.",
    403: "The user lacks the permission.",
    404: "There is no such record (any more).",
    406: "Another format than JSON was asked for.",
    409: "It does not apply in the present state; `detail` says why.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The idempotency key was used for another request.",
    429: "More requests than `API_RATE`; see `Retry-After`.",
    503: "The broker does not answer.",
}
_IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    pattern=r"^[\x21-\x7e]{1,255}$",
    description="Chosen by the caller. A request that comes again within 24 hours with the same "
    "key is answered as the first one was, and done once.",
)


def documented(
    summary: str,
    *,
    tag: str,
    verb: str,
    body: Any = None,
    answer: Any = None,
    status: int = 200,
    query: Any = None,
    finds: bool = False,
    conflicts: bool = False,
    repeats: bool = False,
    examples: Sequence[OpenApiExample] = (),
    also: Sequence[int] = (),
    description: str = "",
    name: str | None = None,
) -> Callable[[Call], Call]:
    """Describe a call in the OpenAPI document, with every error it may answer.

    Args:
        summary: one line.
        tag: the chapter it is in.
        verb: the permission it takes.
        body: serializer of the request's body.
        answer: serializer of the answer.
        status: of a successful answer.
        query: serializer of the query's parameters.
        finds: it is about one record, which may not be there.
        conflicts: the record's state may not allow it.
        repeats: it honours an idempotency key.
        examples: of requests and answers.
        also: further statuses.
        description: what the summary does not say.
        name: of the operation, where its address would give one that is taken.
    """
    codes = {401, 403, 406, 429, *also}
    codes |= {400} if body is not None or query is not None else set()
    codes |= {400, 413, 415} if body is not None else set()
    codes |= {404} if finds else set()
    codes |= {409} if conflicts else set()
    codes |= {400, 422} if repeats else set()
    problem = {
        (code, problems.CONTENT_TYPE): OpenApiResponse(
            problems.ProblemSerializer, description=_PROBLEMS[code]
        )
        for code in sorted(codes)
    }
    parameters: list[Any] = [query] if query is not None else []
    if repeats:
        parameters.append(_IDEMPOTENCY)
    described: Callable[[Call], Call] = extend_schema(
        summary=summary,
        operation_id=name,
        description=f"{description}\n\nPermission: `queueadmin.{verb}`.".strip(),
        tags=[tag],
        request=body,
        parameters=parameters,
        responses={status: answer, **problem},
        examples=list(examples),
    )

    def describe(call: Call) -> Call:
        # Where the decorator looks before it takes the host's DEFAULT_SCHEMA_CLASS.
        call.kwargs = {"schema": AutoSchema}  # type: ignore[attr-defined]
        return described(call)

    return describe


def example(name: str, value: Any, *, request: bool = False) -> OpenApiExample:
    """Return an example of an answer, or of a request."""
    return OpenApiExample(name, value=value, request_only=request, response_only=not request)
