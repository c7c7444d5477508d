"""Addresses of the REST API, below whatever the host chooses."""

from typing import Any, ClassVar

from django.urls import path, re_path
from django.urls.resolvers import URLPattern, URLResolver
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from .alerts import AlertsView
from .base import ApiViewSet
from .fleet import AuditView, SchedulesView, WorkersView
from .groups import GroupsView
from .jobs import AttemptsView, JobsView
from .letters import DeadLettersView
from .operations import OperationsView
from .queues import QueuesView
from .runs import RecoveryView, StatisticsView
from .schema import ReferenceView, SchemaView

app_name = "queueadmin_api"


class NowhereView(ApiViewSet):
    """Answers addresses that do not exist as every other error."""

    permission_classes = ()
    schema = None  # type: ignore[assignment]
    verbs: ClassVar = {}

    def nothing(self, request: Request, rest: str) -> Any:
        """Say that there is nothing.

        Raises:
            NotFound: always.
        """
        raise NotFound(f"There is no call {rest!r:.100}; schema/ lists them.")


def _call(address: str, view: type[ApiViewSet], **actions: str) -> URLPattern:
    # Numbers that a database key can have; others are no address.
    route = (
        "^"
        + address.replace("{id}", r"(?P<id>[0-9]{1,18})")
        .replace("{name}", r"(?P<name>[^/\x00]{1,150})")
        .replace("{queue}", r"(?P<queue>[^/\x00]{1,100})")
        .replace("{job}", r"(?P<id>[^/\x00]{1,64})")
        .replace("{worker}", r"(?P<id>[^/\x00]{1,255})")
        + r"\Z"
    )
    return re_path(route, view.as_view(actions))  # type: ignore[arg-type]


calls: list[URLPattern | URLResolver] = [
    _call("queues/", QueuesView, get="list"),
    _call("queues/{queue}/", QueuesView, get="retrieve"),
    _call("queues/{queue}/jobs/", QueuesView, post="enqueue"),
    _call("queues/{queue}/pause/", QueuesView, post="pause"),
    _call("queues/{queue}/resume/", QueuesView, post="resume"),
    _call("queues/{queue}/limits/", QueuesView, put="limit"),
    _call("queues/{queue}/clean/", QueuesView, post="clean"),
    _call("jobs/", JobsView, get="list"),
    _call("jobs/{job}/", JobsView, get="retrieve", delete="destroy"),
    _call("jobs/{job}/cancel/", JobsView, post="cancel"),
    _call("jobs/{job}/reschedule/", JobsView, post="reschedule"),
    _call("jobs/{job}/retry/", JobsView, post="retry"),
    _call("attempts/", AttemptsView, get="list"),
    _call("dead-letters/", DeadLettersView, get="list"),
    _call("dead-letters/requeue/", DeadLettersView, post="requeue_many"),
    _call(
        "dead-letters/{id}/",
        DeadLettersView,
        get="retrieve",
        patch="partial_update",
        delete="destroy",
    ),
    _call("dead-letters/{id}/notes/", DeadLettersView, post="notes"),
    _call("dead-letters/{id}/requeue/", DeadLettersView, post="requeue"),
    _call("dead-letters/{id}/mark-failed/", DeadLettersView, post="mark_failed"),
    _call("dead-letters/{id}/snooze/", DeadLettersView, post="snooze"),
    _call("dead-letters/{id}/wake/", DeadLettersView, post="wake"),
    _call("failure-groups/", GroupsView, get="list"),
    _call("failure-groups/{id}/", GroupsView, get="retrieve", patch="partial_update"),
    _call("failure-groups/{id}/notes/", GroupsView, post="notes"),
    _call("failure-groups/{id}/resolve/", GroupsView, post="resolve"),
    _call("failure-groups/{id}/reopen/", GroupsView, post="reopen"),
    _call("failure-groups/{id}/snooze/", GroupsView, post="snooze"),
    _call("operations/", OperationsView, get="list", post="create"),
    _call("operations/{id}/", OperationsView, get="retrieve"),
    _call("operations/{id}/pause/", OperationsView, post="pause"),
    _call("operations/{id}/resume/", OperationsView, post="resume"),
    _call("operations/{id}/abort/", OperationsView, post="abort"),
    _call("statistics/", StatisticsView, get="show"),
    _call("recovery/", RecoveryView, get="show", post="create"),
    _call("workers/", WorkersView, get="list"),
    _call("workers/{worker}/quiet/", WorkersView, post="quiet"),
    _call("workers/{worker}/resume/", WorkersView, post="resume"),
    _call("workers/{worker}/stop/", WorkersView, post="stop"),
    _call("schedules/", SchedulesView, get="list"),
    _call("schedules/{name}/run/", SchedulesView, post="run"),
    _call("schedules/{name}/pause/", SchedulesView, post="pause"),
    _call("schedules/{name}/resume/", SchedulesView, post="resume"),
    _call("alerts/", AlertsView, get="list"),
    _call("alerts/{id}/acknowledge/", AlertsView, post="acknowledge"),
    _call("audit/", AuditView, get="list"),
]

_ALL = ("get", "post", "put", "patch", "delete", "head", "options")
urlpatterns = [
    *calls,
    path("schema/", SchemaView.as_view(), name="schema"),
    path("docs/", ReferenceView.as_view(), name="reference"),
    re_path(
        r"^(?P<rest>[\s\S]*)\Z", NowhereView.as_view(dict.fromkeys(_ALL, "nothing")), name="nowhere"
    ),
]
