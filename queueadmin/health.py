"""Says how it is: to probes without a log-in, and to people who may see queues.

`path("health/", include("queueadmin.health"))` gives `health/live` and `health/ready` to load
balancers and orchestrators, and `health/`, a page for people.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.utils.translation import gettext, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import doctor
from .resolver import get_resolver

app_name = "health"


# A host with ATOMIC_REQUESTS would ask the database before the view is called.
@transaction.non_atomic_requests
@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Say that this process serves requests; it looks at nothing else.

    A process that is restarted because its database is away does not bring that back.
    """
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@transaction.non_atomic_requests
@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Say whether requests sent here would succeed: 200, or 503 with the reasons.

    The broker is not asked. While it is away jobs are enqueued all the same, so taking every
    web process out of service would make an outage of it; and a frozen server would hold the
    answer for longer than probes wait. The reasons name no address, user or error of a
    server: whoever asks is not logged in. `manage.py queueadmin doctor` tells these.
    """
    reasons = [
        {"check": finding.check, "advice": finding.advice}
        for finding in doctor.database()
        if not finding.is_good
    ]
    return JsonResponse({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


@transaction.non_atomic_requests
@never_cache
@require_safe
def summary(request: HttpRequest) -> HttpResponseBase:
    """Show what `manage.py queueadmin doctor` finds, to who may see queues.

    Without the database nobody can be logged in; the answer is that of `ready` then.
    """
    user: Any = request.user
    try:
        is_known = user.is_authenticated
    except DatabaseError:
        return ready(request)
    if not is_known:
        return redirect_to_login(request.get_full_path())
    if not get_resolver().may(user, "view_queue"):
        raise PermissionDenied
    findings = doctor.examine()
    context = {
        **admin.site.each_context(request),
        "title": gettext("Health"),
        "findings": findings,
        "sentence": _sentence(sum(not finding.is_good for finding in findings)),
    }
    return render(request, "queueadmin/health.html", context)


def _sentence(bad: int) -> str:
    if not bad:
        return gettext("Everything that was examined is well.")
    return ngettext("%(count)d thing needs attention.", "%(count)d things need attention.", bad) % {
        "count": bad
    }


urlpatterns = [
    path("", summary, name="summary"),
    path("live", live, name="live"),
    path("ready", ready, name="ready"),
]
