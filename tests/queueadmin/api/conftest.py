"""A program that calls the API with a token, on a server whose database rolls back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from rest_framework.authtoken.models import Token

from queueadmin.api import urls
from tests.queueadmin.rows import make_user

ROOT = "/api/v1/"
EVERYTHING = sorted(
    {verb for call in urls.calls for verb in call.callback.cls.verbs.values()}
    | {"assign_deadletter"}
)


class Program:
    """Makes calls in the name of a user."""

    def __init__(self, user: User) -> None:
        self.user = user
        self._client = Client()
        self._token = Token.objects.get_or_create(user=user)[0].key

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        """Make a call below the API's root."""
        given: dict[str, Any] = {}
        if body is not None:
            given = {"data": json.dumps(body), "content_type": "application/json"}
        elif method not in ("GET", "HEAD", "DELETE"):
            given = {"data": "{}", "content_type": "application/json"}
        return self._client.generic(
            method,
            ROOT + path,
            headers={"Authorization": f"Token {self._token}", **headers},
            **given,
        )


@pytest.fixture(autouse=True)
def _requests_of_other_tests_do_not_count() -> None:
    cache.clear()


@pytest.fixture
def make_program(db: None) -> Callable[..., Program]:
    """Make programs whose users have the given permissions."""

    def make(*permissions: str, name: str = "script") -> Program:
        return Program(make_user(name, *permissions))

    return make


@pytest.fixture
def call(make_program: Callable[..., Program]) -> Program:
    """A program that may do everything."""
    return make_program(*EVERYTHING)
