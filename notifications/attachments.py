"""Files that go with an e-mail: named in the delivery's context, read when it is sent."""

import mimetypes
from collections.abc import Iterable
from pathlib import PurePosixPath

from django.core.files.storage import default_storage

from .exceptions import MessageRejected
from .rendering import Attachment

#: Providers take some 20 to 30 MB with everything around; nobody wants that in a mailbox.
MAX_BYTES = 5_000_000


def load(names: Iterable[str]) -> tuple[Attachment, ...]:
    """Return the stored files of these names, as many as fit; the mail has a link to all.

    Raises:
        MessageRejected: a file is gone.
    """
    loaded: list[Attachment] = []
    size = 0
    for name in names:
        if not default_storage.exists(name):
            raise MessageRejected(f"The attachment {name!r} does not exist.", code="attachment")
        size += default_storage.size(name)
        if size > MAX_BYTES:
            break
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with default_storage.open(name) as file:
            loaded.append(Attachment(PurePosixPath(name).name, kind, file.read()))
    return tuple(loaded)
