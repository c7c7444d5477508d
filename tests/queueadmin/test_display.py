from datetime import timedelta

import pytest
from django.utils import timezone

from queueadmin import display


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(milliseconds=0.3), "0 ms"),
        (timedelta(milliseconds=41), "41 ms"),
        (timedelta(seconds=3), "3.0 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=4, seconds=10), "4 min 10 s"),
        (timedelta(minutes=10, seconds=10), "10 min"),
        (timedelta(hours=3), "3 h"),
        (timedelta(days=2, hours=5), "2 d 5 h"),
    ],
)
def test_a_span_is_told_in_two_units_at_most(length: timedelta, words: str) -> None:
    assert display.span(length) == words


def test_a_time_is_relative_with_the_exact_one_for_machines_and_on_hover() -> None:
    moment = timezone.now() + timedelta(hours=3, seconds=30)

    html = display.time_tag(moment)

    assert f'datetime="{moment.isoformat()}"' in html
    assert f'title="{moment:%Y-%m-%d %H:%M:%S} UTC"' in html
    assert ">in 3 h<" in html


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("a\x00b", r"a\u0000b"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        ("a\r\nb", "a\nb"),
    ],
)
def test_unprintable_characters_become_their_codes(hostile: str, harmless: str) -> None:
    assert display.plain(hostile) == harmless


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("ConnectionError", ["Connection", "Error"]),
        ("smtplib.SMTPServerDisconnected", ["smtplib.", "SMTPServer", "Disconnected"]),
        ("send_order_mail", ["send_", "order_", "mail"]),
        ("<Bad>Name", ["&lt;Bad&gt;Name"]),
        ("", [""]),
    ],
)
def test_a_name_may_break_between_its_words_and_nowhere_else(name: str, pieces: list[str]) -> None:
    assert display.name_tag(name) == "".join(f"{piece}<wbr>" for piece in pieces)


def test_a_badge_is_word_shape_and_colour_even_for_an_unknown_state() -> None:
    html = display.badge("<new>")

    assert "<svg" in html
    assert "&lt;new&gt;" in html
