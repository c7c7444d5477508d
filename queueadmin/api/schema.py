"""The OpenAPI document, and a page that shows it with local files only."""

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.urls import reverse
from django.views.generic import TemplateView
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from . import problems

TAGS = [
    {"name": "Queues", "description": "What each queue has to do; pause, limits, jobs by hand."},
    {"name": "Jobs", "description": "Every job the ledger keeps, and its attempts."},
    {"name": "Dead letters", "description": "Permanent failures, and what staff do about them."},
    {"name": "Failure groups", "description": "Dead letters with the same cause."},
    {"name": "Requeue operations", "description": "Many dead letters, a few at a time."},
    {"name": "Statistics and recovery", "description": "Everything at once; repair."},
    {"name": "Workers", "description": "The processes that run jobs."},
    {"name": "Schedules", "description": "What recurs."},
    {"name": "Alerts", "description": "What is the matter, and who is at it."},
    {"name": "Audit", "description": "Who did what, and why."},
]
ABOUT = """Every call takes a log-in: a session of the site (with its CSRF token for calls that \
change something) or `Authorization: Token …`. Each takes the permission that the console asks \
for. Times are ISO 8601 with a zone. Lists are pages: `limit` (1 to 200, 50 unless given), and \
`next` and `previous` with their `cursor`. Every error is a problem detail (RFC 9457). A field or \
parameter that is not known is an error, too.
"""

_METHODS = ("get", "post", "put", "patch", "delete")


class Generator(SchemaGenerator):
    """Describes the calls of this API and no others of the host."""

    def __init__(self, **kwargs: Any) -> None:
        from .urls import calls

        super().__init__(**{**kwargs, "patterns": calls, "urlconf": None})  # type: ignore[no-untyped-call]  # the package has none


def document(prefix: str, request: Any = None) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        prefix: address of the API's root, without a slash at its end.
        request: of whoever wants it.
    """
    own = {
        "TITLE": "queueadmin",
        "DESCRIPTION": ABOUT,
        "VERSION": "1",
        "SERVERS": [{"url": prefix}],
        "TAGS": TAGS,
        "OAS_VERSION": "3.1.0",
        "SORT_OPERATIONS": False,
        "COMPONENT_SPLIT_REQUEST": True,
        "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
        "POSTPROCESSING_HOOKS": [],
    }
    with patched_settings(own):
        found: dict[str, Any] = Generator().get_schema(request=request, public=True)  # type: ignore[no-untyped-call]
    _drop(found, "x-spec-enum-id")
    # The generator reads them out of a set.
    found["paths"] = {
        path: {method: calls[method] for method in _METHODS if method in calls}
        for path, calls in found["paths"].items()
    }
    for name, component in found["components"]["schemas"].items():
        # What a body does not know, it refuses.
        if name.endswith("Request") and component.get("type") == "object":
            component["additionalProperties"] = False
    return found


def _drop(found: Any, key: str) -> None:
    """Remove what the generator keeps for itself."""
    if isinstance(found, dict):
        found.pop(key, None)
    for inner in found.values() if isinstance(found, dict) else found:
        if isinstance(inner, dict | list):
            _drop(inner, key)


class SchemaView(SpectacularJSONAPIView):
    """The document as JSON, for whoever is logged in."""

    authentication_classes = (TokenAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticated,)
    schema = None  # it is no call

    def get_exception_handler(self) -> Any:
        """Answer errors like the other calls."""
        return problems.handle

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Answer with the document."""
        return Response(document(root(), request))


class ReferenceView(LoginRequiredMixin, TemplateView):
    """The document as a page."""

    template_name = "queueadmin/api.html"


def root() -> str:
    """Return the address of the API's root, without a slash at its end."""
    return reverse("queueadmin_api:schema").removesuffix("/schema/")
