"""Tasks of a host project, for Django's Tasks framework."""

import asyncio
import time
from typing import Any

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

try:
    from django.tasks import TaskContext, task
except ModuleNotFoundError:
    from django_tasks import TaskContext, task

#: What contexts said while their tasks ran.
seen: list[Any] = []
#: How often `flaky` still fails.
failures: list[Exception] = []


@task
def add(first: int, second: int = 0) -> int:
    return first + second


@task(queue_name="reports", priority=10)
def report() -> str:
    return "done"


@task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task
def fail(message: str) -> None:
    raise ValidationError(message)


@task
def flaky() -> str:
    if failures:
        raise failures.pop()
    return "at last"


@task(takes_context=True)
def tell(context: TaskContext, name: str) -> str:
    result = context.task_result
    seen.append((context.attempt, result.id, result.status, result.args, len(result.errors)))
    if failures:
        raise failures.pop()
    return f"{name} {context.attempt}"


@task
def returns_an_object() -> object:
    return object()


@task
def returns_too_much() -> str:
    return "x" * 70_000


@task
async def count_groups() -> int:
    await asyncio.sleep(0)
    return await Group.objects.acount()


@task
async def never_ends() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        seen.append("cancelled")


@task
def sleeps() -> None:
    for _ in range(100):
        time.sleep(0.05)


@task
def enqueues() -> str:
    return str(add.enqueue(1).id)
