"""Fetches a picture from an address somebody typed, and from nowhere inside our network.

The name is resolved once; every address behind it must be public, and the connection goes
to one of those very addresses, so that a name server cannot answer differently the second
time. Redirects are not followed, proxies of the environment not used, and no more is read
than a picture may have.
"""

from urllib.parse import SplitResult, urlsplit

import httpx2
from django.utils.translation import gettext as _

from queueadmin.addresses import is_public, resolve

from .exceptions import PictureRefused, PictureUnreachable

TIMEOUT = httpx2.Timeout(connect=5, read=10, write=5, pool=5)


def fetch(url: str, *, max_bytes: int) -> bytes:
    """Return what is at an address.

    Raises:
        PictureRefused: the address is none we call, or there is no picture of our size.
        PictureUnreachable: the server is away; a later attempt may succeed.
    """
    parts = _parse(url)
    host = parts.hostname or ""
    address = _public_address(host, parts.port or (443 if parts.scheme == "https" else 80))
    literal = f"[{address}]" if ":" in address else address
    netloc = f"{literal}:{parts.port}" if parts.port else literal
    target = parts._replace(netloc=netloc, fragment="").geturl()
    name = f"[{host}]" if ":" in host else host
    headers = {
        "Host": name if parts.port is None else f"{name}:{parts.port}",
        "Accept": "image/*",
        # Pictures are packed already; what unpacks to more than was read is not unpacked.
        "Accept-Encoding": "identity",
    }
    try:
        with (
            httpx2.Client(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client,
            client.stream(
                "GET", target, headers=headers, extensions={"sni_hostname": host}
            ) as answer,
        ):
            if answer.status_code != httpx2.codes.OK:
                raise _unexpected(answer.status_code)
            return _read(answer, max_bytes)
    except httpx2.TransportError as error:
        raise PictureUnreachable(f"{host} cannot be reached: {error}") from error


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise PictureRefused(_("This is no address of a picture.")) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise PictureRefused(_("The address must begin with https:// or http://."))
    if parts.username or parts.password:
        raise PictureRefused(_("The address must not contain a log-in."))
    return parts


def _public_address(host: str, port: int) -> str:
    try:
        found = resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise PictureUnreachable(f"{host} cannot be found: {error}") from error
    if not found or not all(is_public(address) for address in found):
        raise PictureRefused(_("The address leads into a private network."))
    return found[0]


def _unexpected(status: int) -> Exception:
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status == httpx2.codes.TOO_MANY_REQUESTS:
        return PictureUnreachable(f"The server answered {status}.")
    return PictureRefused(_("There is no picture at this address (%(code)s).") % {"code": status})


def _read(answer: httpx2.Response, max_bytes: int) -> bytes:
    chunks, size = [], 0
    for chunk in answer.iter_raw():
        size += len(chunk)
        if size > max_bytes:
            raise PictureRefused(_("The picture is too large."))
        chunks.append(chunk)
    return b"".join(chunks)
