"""Column types of the ledger's tables."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField


class JobIdField(CharField):  # type: ignore[type-arg]  # not subscriptable at run time
    """A job's id: up to 64 characters, compared byte by byte.

    On PostgreSQL the C collation makes comparisons cheap and lets the one index serve
    prefix searches too; Django's second index for LIKE, which a plain CharField key
    would get here and in every foreign key, would double the cost of each write.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 64
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Leave out the length, which is fixed."""
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_length"]
        return name, path, list(args), dict(kwargs)

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the column type."""
        if connection.vendor == "postgresql":
            return 'character varying(64) COLLATE "C"'
        return super().db_type(connection)
