"""The newest jobs of a state, found queue by queue.

Completed jobs have no index of their own in the order of their time, because every job would
pay for it as it completes. The newest of all of them are among the newest of each queue, and
those the index of states, queues and times has; so a page costs a few entries of that index
per queue, wherever the completed jobs lie among millions of others.
"""

from django.db import connection

from .states import JobState

#: With more queues than this the caller looks for them in another way.
MOST_QUEUES = 200


def newest(state: JobState, count: int) -> list[str] | None:
    """Return the ids of the newest jobs of a state, in the order of lists; in two queries.

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
        part = (
            "SELECT * FROM (SELECT id, enqueued_at FROM queueadmin_job WHERE state = %s "
            "AND queue = %s ORDER BY enqueued_at DESC, id LIMIT %s) AS of_one"
        )
        cursor.execute(
            " UNION ALL ".join([part] * len(queues)) + " ORDER BY enqueued_at DESC, id LIMIT %s",
            [*(value for queue in queues for value in (state.value, queue, count)), count],
        )
        return [row[0] for row in cursor.fetchall()]
