"""A Django project that keeps Celery's results, as django-celery-results documents it."""

import os

import environ

SECRET_KEY = "benchmark"  # noqa: S105  # nobody logs in
INSTALLED_APPS = ["django_celery_results"]
DATABASES = {"default": environ.Env().db_url_config(os.environ["RIVAL_DATABASE_URL"])}
DATABASES["default"]["CONN_MAX_AGE"] = 60
USE_TZ = True
