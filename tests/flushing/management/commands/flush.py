"""The command `flush` as Django's TransactionTestCase calls it after each of its tests.

Django's own truncates sixty tables and makes all permissions again, which takes longer than
most tests. This one deletes what is there, in one transaction that checks foreign keys at its
end, and leaves the permissions alone: no test changes them.
"""

from typing import Any

from django.core.management.commands import flush
from django.db import connections, transaction

_KEPT = {"django_migrations", "django_content_type", "auth_permission"}


class Command(flush.Command):
    """Empty all tables of models but those of content types and permissions."""

    def handle(self, *args: Any, database: str, **options: Any) -> None:
        connection = connections[database]
        names = set(connection.introspection.django_table_names(include_views=False)) - _KEPT
        with transaction.atomic(using=database), connection.cursor() as cursor:
            for name in sorted(names):
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(name)}")
