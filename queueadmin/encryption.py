"""Turns bytes into tokens that only who has a key can read.

A token is "<key id>.<Fernet token>": the id says which of QUEUEADMIN["ENCRYPTION_KEYS"] opens
it, so that a missing key can be named and a change of keys needs no trial and error.
"""

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from .conf import settings
from .exceptions import Undecryptable

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


def is_on() -> bool:
    """Return whether there is a key to encrypt with."""
    return bool(settings.ENCRYPTION_KEYS)


def seal(data: bytes) -> str:
    """Return the data as a token of the first key."""
    key = settings.ENCRYPTION_KEYS[0]
    return f"{key_id(key)}.{_box(key).encrypt(data).decode('ascii')}"


def unseal(token: str) -> bytes:
    """Return what `seal` was given, with whichever key made the token.

    Raises:
        Undecryptable: the key is not there, or the token was tampered with.
    """
    from cryptography.fernet import InvalidToken  # see `_box`

    wanted, _, body = token.partition(".")
    for key in settings.ENCRYPTION_KEYS:
        if key_id(key) == wanted:
            try:
                return _box(key).decrypt(body)
            except InvalidToken as error:
                raise Undecryptable(
                    f"The payload was changed after key {wanted} had encrypted it."
                ) from error
    raise Undecryptable(
        f"The payload is encrypted with key {wanted:.8}, which is not among "
        "QUEUEADMIN['ENCRYPTION_KEYS']. Put the key back, then requeue."
    )


def is_current(token: str) -> bool:
    """Return whether the token was made with the key that encrypts now."""
    return is_on() and token.partition(".")[0] == key_id(settings.ENCRYPTION_KEYS[0])


@lru_cache(maxsize=32)
def key_id(key: str) -> str:
    """Return a short name of a key that tells nothing about it."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@lru_cache(maxsize=32)
def _box(key: str) -> "Fernet":
    # Imported here: a project without keys does not pay for loading the library.
    from cryptography.fernet import Fernet

    return Fernet(key)
