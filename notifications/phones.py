"""Phone numbers as providers want them: E.164, "+" and up to 15 digits."""

import phonenumbers
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _


def is_phone(value: str) -> bool:
    """Return whether `value` is a number in E.164 form that can exist.

    Only length and country are judged. Which ranges are in use changes faster than any
    library, and the provider says it anyway.
    """
    try:
        number = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        return False
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return value == e164 and phonenumbers.is_possible_number(number)


def validate_phone(value: str) -> None:
    """Validate a form or model field.

    Raises:
        ValidationError: the value is not a phone number in E.164 form.
    """
    if not is_phone(value):
        raise ValidationError(
            _("Enter the number with country code and no spaces, such as +447700900123."),
            code="phone",
        )
