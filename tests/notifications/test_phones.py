"""Phone numbers are E.164 or refused."""

import pytest

from notifications.phones import is_phone


@pytest.mark.parametrize("value", ["+447700900123", "+4930123456", "+12025550123"])
def test_numbers_with_country_code_are_taken(value: str) -> None:
    assert is_phone(value)


@pytest.mark.parametrize(
    "value",
    ["", "07700900123", "+44 7700 900123", "+44", "+4477009001234567", "+999123456789", "tel", "+"],
)
def test_everything_else_is_refused(value: str) -> None:
    assert not is_phone(value)
