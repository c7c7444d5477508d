"""The newest jobs of a state, found queue by queue.

Completed jobs have no index of their own in the order of their time, because every job would
pay for it as it completes. The newest of all of them are among the newest of each queue, and
those the index of states, queues and times has; so a page costs a few entries of that index
per queue, wherever the completed jobs lie among millions of others.
"""

from datetime import datetime

from django.db import connection

from .states import JobState

#: With more queues than this the caller looks for them in another way.
MOST_QUEUES = 200


def newest(
    state: JobState, count: int, *, beyond: datetime | None = None, is_backwards: bool = False
) -> list[str] | None:
    """Return the ids of the newest jobs of a state, in the order of lists; in two queries.

    Args:
        state: of the jobs.
        count: how many at most.
        beyond: only those that come after the jobs of this time.
        is_backwards: in the opposite order, the oldest first; `beyond` is meant in it too.

    Returns:
        None where jobs of the state are in more than MOST_QUEUES queues.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE found (queue) AS ("
            "SELECT MIN(queue) FROM queueadmin_job WHERE state = %s UNION ALL "
            "SELECT (SELECT MIN(queue) FROM queueadmin_job WHERE state = %s "
            "AND queue > found.queue) FROM found WHERE found.queue IS NOT NULL) "
            "SELECT queue FROM found WHERE queue IS NOT NULL LIMIT %s",
            [state.value, state.value, MOST_QUEUES + 1],
        )
        queues = [row[0] for row in cursor.fetchall()]
        if len(queues) > MOST_QUEUES or not queues:
            return None if queues else []
        order = "enqueued_at, id DESC" if is_backwards else "enqueued_at DESC, id"
        bound, values = "", []
        if beyond is not None:
            bound = f"AND enqueued_at {'>' if is_backwards else '<'} %s "
            values = [connection.ops.adapt_datetimefield_value(beyond)]
        part = (
            "SELECT * FROM (SELECT id, enqueued_at "  # noqa: S608  # no values
            f"FROM queueadmin_job WHERE state = %s AND queue = %s {bound}"
            f"ORDER BY {order} LIMIT %s) AS of_one"
        )
        cursor.execute(
            " UNION ALL ".join([part] * len(queues)) + f" ORDER BY {order} LIMIT %s",
            [
                *(one for queue in queues for one in (state.value, queue, *values, count)),
                count,
            ],
        )
        return [row[0] for row in cursor.fetchall()]
