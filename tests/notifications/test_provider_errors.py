"""What providers answer decides whether and when a message is tried again."""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import time_machine
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Response

from notifications.channels import sendgrid, sms, whatsapp
from notifications.exceptions import (
    ConfigurationDeliveryError,
    DeliveryError,
    MessageRejected,
    OutcomeUnknown,
    PairThrottled,
    ProviderUnavailable,
    RecipientRejected,
    RetryLater,
    Throttled,
)
from notifications.rendering import Email, Sms, WhatsAppTemplate

PATH = f"/{whatsapp.VERSION}/{whatsapp.SANDBOX_SENDER}/messages"


@pytest.fixture
def provider(httpserver: HTTPServer, settings: Settings) -> HTTPServer:
    url = httpserver.url_for("").rstrip("/")
    settings.WHATSAPP_API_URL = settings.SENDGRID_API_URL = settings.SMS_API_URL = url
    settings.WHATSAPP_PHONE_NUMBER_ID = ""
    settings.WHATSAPP_TOKEN = "our-token"
    return httpserver


def send_whatsapp() -> Any:
    template = WhatsAppTemplate("order_confirmed", "en", ("Harbour Shop", "12"))
    return whatsapp.send(template, to="+447700900123", reference="ref")


def send_sms() -> Any:
    return sms.send(Sms("Hello"), to="+447700900123", reference="ref")


def send_email() -> Any:
    return sendgrid.send(Email("Hello", "text", "<p>html</p>"), to="a@example.com", reference="r")


def meta_error(code: object, status: int = 400, **headers: str) -> Response:
    error = {"message": f"(#{code})", "code": code, "error_data": {"details": "more words"}}
    return Response(
        response=json.dumps({"error": error}),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def test_the_whatsapp_request_is_what_the_cloud_api_reads(provider: HTTPServer) -> None:
    provider.expect_oneshot_request(
        PATH,
        method="POST",
        headers={"Authorization": "Bearer our-token"},
        json={
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": "+447700900123",
            "type": "template",
            "template": {
                "name": "order_confirmed",
                "language": {"code": "en"},
                "components": [
                    {
                        "type": "body",
                        "parameters": [
                            {"type": "text", "text": "Harbour Shop"},
                            {"type": "text", "text": "12"},
                        ],
                    }
                ],
            },
            "biz_opaque_callback_data": "ref",
        },
    ).respond_with_json({"messages": [{"id": "wamid.1"}]})

    assert send_whatsapp().message_id == "wamid.1"


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (131026, 400, RecipientRejected),
        (131030, 400, RecipientRejected),
        (132001, 404, MessageRejected),
        (100, 400, MessageRejected),
        (999_999, 400, MessageRejected),
        (130429, 400, Throttled),
        (131056, 400, PairThrottled),
        (131000, 500, ProviderUnavailable),
        (131016, 400, ProviderUnavailable),
        (190, 401, ConfigurationDeliveryError),
        (3, 500, ConfigurationDeliveryError),
        (299, 403, ConfigurationDeliveryError),
        (131031, 403, ConfigurationDeliveryError),
        (999_999, 503, ProviderUnavailable),
        (999_999, 429, Throttled),
        (999_999, 504, OutcomeUnknown),
        ("190", 400, MessageRejected),
        (None, 400, MessageRejected),
        ([], 400, MessageRejected),
    ],
)
def test_whatsapp_codes_decide(
    provider: HTTPServer, code: object, status: int, error: type[DeliveryError]
) -> None:
    provider.expect_request(PATH).respond_with_response(meta_error(code, status))

    with pytest.raises(DeliveryError) as raised:
        send_whatsapp()

    assert type(raised.value) is error
    assert raised.value.provider == "whatsapp"
    assert raised.value.details == "more words"


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "null", '{"messages": []}', '{"messages": 1}']
)
def test_a_success_that_names_no_message_is_unknown(provider: HTTPServer, body: str) -> None:
    provider.expect_request(PATH).respond_with_data(body)

    with pytest.raises(OutcomeUnknown):
        send_whatsapp()


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"error": "text"}', '{"errors": [1]}'])
@pytest.mark.parametrize("send", [send_whatsapp, send_sms, send_email])
def test_an_outage_without_readable_words_is_an_outage(
    provider: HTTPServer, body: str, send: Any
) -> None:
    provider.expect_request("/").respond_with_data("")
    provider.expect_request(re.compile(".*")).respond_with_data(body, status=502)

    with pytest.raises(ProviderUnavailable):
        send()


@time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC), tick=False)
@pytest.mark.parametrize(
    ("headers", "delay_ms"),
    [
        ({"Retry-After": "7"}, 7000),
        ({"Retry-After": "999999"}, 3_600_000),
        ({"Retry-After": format_datetime(datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC))}, 30_000),
        ({"Retry-After": format_datetime(datetime(2025, 1, 1, tzinfo=UTC))}, 0),
        (
            {
                "X-RateLimit-Reset": str(
                    int((datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=9)).timestamp())
                )
            },
            9000,
        ),
    ],
)
def test_the_wait_a_provider_names_is_kept(
    provider: HTTPServer, headers: dict[str, str], delay_ms: int
) -> None:
    provider.expect_request("/messages").respond_with_data("", status=429, headers=headers)

    with pytest.raises(RetryLater) as raised:
        send_sms()

    assert raised.value.delay_ms == delay_ms


@pytest.mark.parametrize("after", ["soon", "-1", "", "1e9", "²"])
def test_a_wait_that_cannot_be_read_leaves_it_to_the_policy(
    provider: HTTPServer, after: str
) -> None:
    provider.expect_request("/messages").respond_with_data(
        "", status=429, headers={"Retry-After": after.encode().decode("latin-1")}
    )

    with pytest.raises(Throttled):
        send_sms()


def test_what_databases_cannot_keep_is_taken_out_of_the_providers_words(
    provider: HTTPServer,
) -> None:
    error = {"code": "invalid_number", "message": "a\0b\ud800" + "x" * 9999}
    provider.expect_request("/messages").respond_with_json({"error": error}, status=400)

    with pytest.raises(RecipientRejected) as raised:
        send_sms()

    assert raised.value.details.startswith("ab?x")
    assert len(raised.value.details) == 500


def test_a_redirect_is_a_wrong_address_and_not_followed(provider: HTTPServer) -> None:
    provider.expect_request("/messages").respond_with_data(
        "", status=302, headers={"Location": "http://127.0.0.1:9/"}
    )

    with pytest.raises(ConfigurationDeliveryError):
        send_sms()


def test_an_address_that_is_none_is_a_wrong_configuration(settings: Settings) -> None:
    settings.SMS_API_URL = "no-address"

    with pytest.raises(ConfigurationDeliveryError):
        send_sms()
