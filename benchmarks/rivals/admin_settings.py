"""A Django project of a user of django-dramatiq, as its documentation sets it up."""

import os

import environ

_env = environ.Env()
SECRET_KEY = "benchmark"  # noqa: S105  # nobody logs in
INSTALLED_APPS = ["django_dramatiq"]
DATABASES = {"default": _env.db("DATABASE_URL", default="sqlite:///db.sqlite3")}
DATABASES["default"]["NAME"] = os.environ["BENCHMARK_DATABASE"]
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Its own file; without these its writers fail each other with "database is locked".
    DATABASES["default"]["NAME"] += "-admin"
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 60
USE_TZ = True
DRAMATIQ_BROKER = {
    "BROKER": "dramatiq.brokers.redis.RedisBroker",
    "OPTIONS": {
        "url": os.environ["REDIS_URL"],
        "namespace": os.environ["BENCHMARK_NAMESPACE"],
    },
    "MIDDLEWARE": [
        "dramatiq.middleware.AgeLimit",
        "dramatiq.middleware.TimeLimit",
        "dramatiq.middleware.Callbacks",
        "dramatiq.middleware.Retries",
        "django_dramatiq.middleware.DbConnectionsMiddleware",
        "django_dramatiq.middleware.AdminMiddleware",
    ],
}
