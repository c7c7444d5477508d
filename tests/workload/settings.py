"""The test settings on a test's own database, with the workload's actors."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, DRAMATIQ_BROKER, INSTALLED_APPS, LOGGING, QUEUEADMIN

INSTALLED_APPS = [*INSTALLED_APPS, "tests.workload"]
DATABASES["default"]["NAME"] = os.environ["WORKLOAD_DATABASE"]
DRAMATIQ_BROKER["OPTIONS"]["namespace"] = os.environ["WORKLOAD_NAMESPACE"]
LOGGING["root"]["level"] = "INFO"  # the tests wait for "is ready"
QUEUEADMIN = {
    **QUEUEADMIN,
    "HARD_LIMIT_GRACE": 1,
    "HEARTBEAT_TIMEOUT_MS": int(os.environ.get("WORKLOAD_HEARTBEAT_TIMEOUT_MS", "10000")),
}
