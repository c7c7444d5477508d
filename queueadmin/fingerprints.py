"""Tells whether two failures are the same trouble."""

import hashlib
import re

# Longest first: a UUID must not be taken for a run of hexadecimal numbers.
_VARIABLE = re.compile(
    r"""
      [0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}    # UUID
    | \b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}[^\s,;)]*    # date and time
    | [\w.+-]+@[\w-]+\.[\w.-]+                       # e-mail address
    | 0x[0-9a-f]+                                    # memory address
    | \b[0-9a-f]{16,}\b                              # token, digest
    | '[^']*' | "[^"]*"                              # quoted value
    | \+?\d[\d.,:]*                                  # number, phone, time
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LENGTH = 500


def normalise(text: str) -> str:
    """Return the text with everything that varies from case to case replaced by `*`."""
    return _VARIABLE.sub("*", text[:_LENGTH]).strip()


def fingerprint(actor: str, error_class: str, message: str) -> str:
    """Return a short key that equal troubles share.

    Args:
        actor: name of the actor that failed.
        error_class: qualified name of the error.
        message: the error's text.
    """
    basis = "\0".join((actor, error_class, normalise(message)))
    return hashlib.sha256(basis.encode("utf-8", "replace")).hexdigest()[:16]
