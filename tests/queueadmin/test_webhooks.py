"""A webhook is signed, and calls nothing but what it may."""

import hashlib
import hmac
import json
import threading
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from queueadmin import webhooks

SECRET = "a secret of enough characters"
LOCAL = ["127.0.0.0/8"]


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.QUEUEADMIN = {"ALERT_WEBHOOK_SECRET": SECRET, "ALERT_WEBHOOK_NETWORKS": LOCAL}


def post(url: str, body: bytes = b"{}") -> None:
    webhooks.post(url, body, timestamp=1_700_000_000, delivery="7")


def test_the_other_side_can_verify_body_and_time(httpserver: HTTPServer) -> None:
    taken: list[Request] = []

    def take(request: Request) -> Response:
        taken.append(request)
        return Response(status=204)

    httpserver.expect_request("/hook", method="POST").respond_with_handler(take)
    body = json.dumps({"events": ["ü"]}).encode()

    post(httpserver.url_for("/hook?key=1"), body)

    (request,) = taken
    signed = request.headers[webhooks.TIMESTAMP].encode() + b"." + request.get_data()
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert request.headers[webhooks.SIGNATURE] == f"sha256={expected}"
    assert request.get_data() == body
    assert request.query_string == b"key=1"
    assert request.headers[webhooks.DELIVERY] == "7"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/",
        "http://localhost:9/",
        "http://[::1]:9/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0:9/",
        "http://[fe80::1]/",
        "http://2130706433/",
        "ftp://example.com/",
        "http://user:word@example.com/",
        "http://example.com:99999/",
        "https:///hook",
    ],
)
def test_addresses_inside_are_refused_unless_a_setting_allows_them(
    url: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.QUEUEADMIN = {"ALERT_WEBHOOK_SECRET": SECRET}

    def connect(*args: object, **kwargs: object) -> None:
        pytest.fail("It was called.")

    monkeypatch.setattr("socket.create_connection", connect)
    with pytest.raises(webhooks.WebhookRefused):
        post(url)


def test_one_private_address_behind_a_name_is_enough_to_refuse_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: both)

    with pytest.raises(webhooks.WebhookRefused, match=r"10\.0\.0\.1"):
        post("http://hooks.example/")


def test_the_connection_goes_to_the_address_that_was_checked(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request(
        "/", headers={"Host": f"hooks.example:{httpserver.port}"}
    ).respond_with_data("ok")
    asked: list[str] = []

    def resolve(host: str, port: int, *_args: object, **_kw: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("socket.getaddrinfo", resolve)

    post(f"http://hooks.example:{httpserver.port}/")

    # Whoever connects resolves again, but only the number that was checked.
    assert [host for host in asked if host != "127.0.0.1"] == ["hooks.example"]


def test_another_address_of_the_name_is_tried_when_one_cannot_be_reached(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/").respond_with_data("ok")
    # The server listens on the last of them only.
    both = ["127.0.0.77", "127.0.0.1"]
    monkeypatch.setattr("queueadmin.addresses.resolve", lambda host, port: both)

    post(f"http://hooks.example:{httpserver.port}/")

    assert len(httpserver.log) == 1


def test_a_redirect_is_not_followed(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_response(
        Response(status=307, headers={"Location": httpserver.url_for("/elsewhere")})
    )

    with pytest.raises(webhooks.WebhookFailed, match="307"):
        post(httpserver.url_for("/hook"))

    assert [request.path for request, _answer in httpserver.log] == ["/hook"]


def test_a_server_that_never_finishes_its_answer_is_left(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_CALL_SECONDS", 0.1)
    is_left = threading.Event()

    def hang(request: Request) -> Response:
        is_left.wait(20)
        return Response(status=204)

    httpserver.expect_request("/hook").respond_with_handler(hang)

    with pytest.raises(webhooks.WebhookFailed):
        post(httpserver.url_for("/hook"))
    is_left.set()
