"""The site's settings on the suite's own servers, with the workload's actors."""

import os

from config.settings import *  # noqa: F403
from config.settings import DRAMATIQ_BROKER, INSTALLED_APPS
from queueadmin.policies import Policy, Weight, explicit

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos.workload"]
DRAMATIQ_BROKER["OPTIONS"]["namespace"] = "chaos"
_SHORT = explicit([0.5, 1, 2, 4])
QUEUEADMIN = {
    "QUEUES": {
        "free": Policy(attempts=8, backoff=_SHORT, time_limit=30, weight=Weight.HIGH),
        "limited": Policy(attempts=8, backoff=_SHORT, time_limit=30, concurrency=4),
    },
    "SCHEDULES": {},
    "UNKNOWN_ACTOR_GRACE": 20,
}
CHAOS_JOURNAL = os.environ.get("CHAOS_JOURNAL", "")
