"""What people may see, and what databases take."""

from hypothesis import given
from hypothesis import strategies as st

from queueadmin.masking import MASK, mask, storable


def test_sensitive_fields_are_masked_at_any_depth():
    value = {"user": "anna", "Api_Key": "x", "deep": [{"password": "y", "n": 1}]}

    assert mask(value) == {"user": "anna", "Api_Key": MASK, "deep": [{"password": MASK, "n": 1}]}


def test_nesting_without_end_is_cut():
    value: dict = {}
    value["self"] = value

    assert MASK in str(mask(value))


@given(st.text(alphabet=st.characters(), max_size=50))
def test_storable_text_has_no_nul_and_no_lone_surrogate(text):
    stored = storable(text + "\x00\ud800")

    assert "\x00" not in stored
    stored.encode("utf-8")
