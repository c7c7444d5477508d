"""Which failures count as the same trouble."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueadmin.fingerprints import fingerprint, normalise


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 12 not found", "order 99812 not found"),
        ("number +491701234567 refused", "number +49 refused"),
        ("host 'web1' away", "host 'web2' away"),
        (
            "id 0b7c1f6e-9f0e-4a5f-8d3b-111122223333 gone",
            "id 5c2d1f6e-1111-4a5f-8d3b-444455556666 gone",
        ),
        ("mail to a@example.com bounced", "mail to bob.b@example.org bounced"),
        ("at 2026-11-22 10:00:01.5 late", "at 2025-01-02T11:00:00Z late"),
    ],
)
def test_texts_that_differ_in_details_are_the_same_trouble(one, other):
    assert fingerprint("send", "ValueError", one) == fingerprint("send", "ValueError", other)


def test_another_error_actor_or_sentence_is_another_trouble():
    base = fingerprint("send", "ValueError", "refused")

    assert fingerprint("call", "ValueError", "refused") != base
    assert fingerprint("send", "TypeError", "refused") != base
    assert fingerprint("send", "ValueError", "accepted") != base


@given(st.text())
def test_any_text_has_a_fingerprint(text):
    assert len(fingerprint("a", "b", text)) == 16
    assert len(normalise(text)) <= 500
