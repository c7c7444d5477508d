"""Answers the probes of load balancers and orchestrators; a door without a log-in.

`path("health/", include("queueadmin.health"))` gives `health/live` and `health/ready`.
"""

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import doctor

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


urlpatterns = [path("live", live, name="live"), path("ready", ready, name="ready")]
