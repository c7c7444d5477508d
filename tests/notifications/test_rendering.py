"""Templates are filled with what people typed, and stay harmless."""

from typing import Any

from notifications import rendering
from notifications.models import Event

HOSTILE = "<script>alert(1)</script>\r\nBcc: all@example.com\n{{ order }}"


def context(name: str = "Harbour Shop") -> dict[str, Any]:
    lines = [{"product": name, "quantity": 2, "total": "83.00 EUR"}]
    return {"name": name, "order": "12", "total": "83.00 EUR", "lines": lines}


def test_whatsapp_parameters_stand_in_the_order_of_the_template() -> None:
    message = rendering.whatsapp(Event.ORDER_CONFIRMED, context())

    assert message.name == "order_confirmed"
    assert message.parameters == ("Harbour Shop", "12", "–", "83.00 EUR")


def test_line_breaks_in_a_name_add_neither_parameters_nor_headers() -> None:
    message = rendering.whatsapp(Event.ORDER_CONFIRMED, context(HOSTILE))
    letter = rendering.email(Event.ORDER_CONFIRMED, context(HOSTILE))

    assert len(message.parameters) == 4
    assert "\n" not in letter.subject
    assert "\nBcc" not in letter.text


def test_html_in_a_name_is_text_in_the_html_part_and_itself_elsewhere() -> None:
    letter = rendering.email(Event.ORDER_CONFIRMED, context(HOSTILE))

    assert "<script>" not in letter.html
    assert "&lt;script&gt;" in letter.html
    assert "<script>" in letter.text


def test_an_sms_is_one_line() -> None:
    message = rendering.sms(Event.ORDER_CONFIRMED, context(HOSTILE))

    assert "12" in message.text
    assert "\n" not in message.text
