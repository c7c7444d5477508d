"""The site's settings on a database and a namespace of the benchmark's own."""

import os

from config.settings import *  # noqa: F403
from config.settings import (
    DATABASES,
    DRAMATIQ_BROKER,
    INSTALLED_APPS,
    LOGGING,
    QUEUEADMIN,
    STORAGES,
)
from queueadmin.policies import Policy, Rate, fixed, per_second

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.workload"]
if name := os.environ.get("BENCHMARK_DATABASE"):
    DATABASES["default"]["NAME"] = name
DRAMATIQ_BROKER["OPTIONS"]["namespace"] = os.environ.get("BENCHMARK_NAMESPACE", "benchmark")
# Pages are asked for without a web server, so nothing has collected their files.
STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
LOGGING["root"]["level"] = "INFO"  # the fleet waits for "is ready"
# Only `drain` writes the lines of each job, as `make run` does.
LOGGING["loggers"] = {"queueadmin.jobs": {"level": os.environ.get("BENCHMARK_JOB_LOG", "WARNING")}}
QUEUEADMIN = {
    **QUEUEADMIN,
    "METRICS_ADDRESSES": ["127.0.0.1"],  # from where the benchmark asks for them
    "QUEUES": {
        "rated": Policy(rate=per_second(50)),
        "rated-briefly": Policy(rate=Rate(20, 500)),
        "narrow": Policy(concurrency=10),
        "limited": Policy(concurrency=16),
        "failing": Policy(attempts=2, backoff=fixed(0)),
        "retrying": Policy(attempts=3, backoff=fixed(3_600)),
        "dying": Policy(attempts=1),
    },
}
