"""The same workload on plain Dramatiq with django-dramatiq, for comparison.

Set up with care: messages leave after the commit, errors are retried as often and as soon as
by the policies of `settings`, and Redis may not keep anybody waiting for ever.
"""

import os

import environ
from dramatiq.middleware import Retries

SECRET_KEY = "chaos"
INSTALLED_APPS = ["django_dramatiq", "tests.chaos.workload"]
DATABASES = {"default": environ.Env().db("DATABASE_URL")}
DATABASES["default"]["OPTIONS"] = {"connect_timeout": 3, "tcp_user_timeout": 10_000}
USE_TZ = True
DRAMATIQ_BROKER = {
    "BROKER": "dramatiq.brokers.redis.RedisBroker",
    "OPTIONS": {"url": f"{os.environ['REDIS_URL']}?socket_timeout=5", "namespace": "chaos"},
    "MIDDLEWARE": [
        "dramatiq.middleware.AgeLimit",
        "dramatiq.middleware.TimeLimit",
        "dramatiq.middleware.ShutdownNotifications",
        "dramatiq.middleware.Callbacks",
        "dramatiq.middleware.CurrentMessage",
        Retries(max_retries=7, min_backoff=500, max_backoff=4_000),
        "django_dramatiq.middleware.DbConnectionsMiddleware",
        "django_dramatiq.middleware.AdminMiddleware",
    ],
}
DRAMATIQ_AUTODISCOVER_MODULES = ["actors"]
CHAOS_JOURNAL = os.environ.get("CHAOS_JOURNAL", "")
