"""The seam to the host project: what a job is about and who may act on it."""

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from .conf import settings

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

    from .models import Job

logger = logging.getLogger(__name__)

# The first address of a process imports the site's URLconf with all that it needs. Two threads
# of a worker that do so at once, as for two people whom one note names, can see each other's
# modules half made.
_addressing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Link:
    """A page of the host project, to be shown beside a job."""

    label: str
    url: str


class Resolver:
    """Override what you need and name the class in QUEUEADMIN["RESOLVER"]."""

    def describe(self, job: "Job") -> str:
        """Return one line saying what the job does, for people."""
        return job.actor

    def links(self, job: "Job") -> list[Link]:
        """Return links to the business objects the job is about."""
        return []

    def mask(self, job: "Job", name: str, value: Any) -> Any:
        """Return what may be shown of the payload field `name`."""
        return value

    def address(self, path: str) -> str:
        """Return the whole address of a page on this site, for mails; the path alone as it is."""
        return path

    def may(self, user: "AbstractBaseUser | AnonymousUser", verb: str, target: Any = None) -> bool:
        """Return whether `user` may do `verb`, one of the `queueadmin.<verb>` permissions."""
        return bool(user.is_active) and user.has_perm(f"queueadmin.{verb}")  # type: ignore[union-attr]


def get_resolver() -> Resolver:
    """Return the host project's resolver."""
    resolver: Resolver = import_string(settings.RESOLVER)()
    return resolver


def console_address(page: str, *args: Any, query: str = "") -> str:
    """Return the whole address of a page of the console, for mails; empty where it has none."""
    try:
        with _addressing:
            path = reverse(f"admin:queueadmin_{page}", args=args)
        return get_resolver().address(path) + query
    except NoReverseMatch:  # the host has its admin under another name
        return ""
    except Exception:
        # Boundary: a site whose pages do not even load must still be able to tell of it.
        logger.exception("A message goes out without the address of %s.", page)
        return ""
