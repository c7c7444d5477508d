"""Runs the tasks of Django's Tasks framework as jobs of the ledger.

Every task function is an actor under its dotted path, so that it has policies, attempts, dead
letters and statistics like any other. The framework is `django.tasks` where Django has it, else
the package `django-tasks`.
"""

import asyncio
import importlib
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core import checks
from django.db import DatabaseError, InterfaceError
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.module_loading import import_string
from dramatiq import Actor, get_broker
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from . import clock, events, exceptions, execution, payloads
from .brokers.base import LedgerBroker
from .conf import settings
from .exceptions import PermanentError, Undecryptable
from .execution import Execution
from .models import Job
from .results import MOST_CHARACTERS
from .retries import PolicyRetries
from .states import JobState

if TYPE_CHECKING:
    from django_tasks import task_backends
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started
    from django_tasks.utils import normalize_json
else:
    try:
        from django.tasks import task_backends
        from django.tasks.backends.base import BaseTaskBackend
        from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
        from django.tasks.exceptions import InvalidTask as InvalidTaskError
        from django.tasks.exceptions import TaskResultDoesNotExist
        from django.tasks.signals import task_enqueued, task_finished, task_started
        from django.utils.json import normalize_json
    except ModuleNotFoundError:
        if find_spec("django_tasks") is None:
            raise exceptions.ConfigurationError(
                "Tasks need Django 6, or the package django-tasks: pip install 'queueadmin[tasks]'."
            ) from None
        from django_tasks import task_backends
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
        from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
        from django_tasks.signals import task_enqueued, task_finished, task_started
        from django_tasks.utils import normalize_json

logger = logging.getLogger(__name__)
#: Held while a broker gets what tells of the ends of tasks: each broker once.
_lock = Lock()

#: The message's option that says which task it is: backend, priority, run_after.
OPTION = "task"
_LONGEST_NAME = 200
# How often a coroutine's thread looks up, so that a time limit or a cancel can strike.
_BREATH_SECONDS = 0.5
_STATUS = {
    JobState.SCHEDULED: TaskResultStatus.READY,
    JobState.WAITING: TaskResultStatus.READY,
    JobState.RETRYING: TaskResultStatus.READY,
    JobState.ACTIVE: TaskResultStatus.RUNNING,
    JobState.COMPLETED: TaskResultStatus.SUCCESSFUL,
    JobState.DEAD: TaskResultStatus.FAILED,
    JobState.CANCELLED: TaskResultStatus.FAILED,
}

# Generic in the package, and not in Django.
AnyTask = Any
AnyResult = Any


class UnkeepableResult(PermanentError, TypeError):
    """A task returned what cannot be kept; to run it again would not change that."""


class DramatiqBackend(BaseTaskBackend):
    """Enqueues tasks as jobs; see docs/tasks.md.

    `QUEUES` in its settings are consumed by every worker. `OPTIONS` are options of Dramatiq's
    actors for all its tasks, such as `max_retries`; without them the queue's policy decides.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._declare_queues()

    # --- The framework's interface --------------------------------------------------------
    def validate_task(self, task: AnyTask) -> None:
        """Check the task and make it known to the broker.

        Raises:
            InvalidTaskError (`InvalidTask` in Django): it cannot be run; it says why.
        """
        super().validate_task(task)
        if len(task.module_path) > _LONGEST_NAME:
            raise InvalidTaskError(
                f"The path of a task has at most {_LONGEST_NAME} characters: {task.module_path}."
            )
        self._declare(task)

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any) -> Any:
        """Add the job on the current connection; it is pushed after commit.

        Raises:
            InvalidTaskError: the task cannot be run by this backend.
            TypeError: an argument cannot be expressed as JSON.
            InvalidMessage: the arguments do not fit the function's signature.
        """
        self.validate_task(task)
        actor = self._declare(task)
        message: Message[Any] = Message(
            queue_name=task.queue_name,
            actor_name=actor.actor_name,
            args=tuple(normalize_json(list(args))),
            kwargs=normalize_json(dict(kwargs)),
            options=self._message_options(task),
        )
        broker = _broker()
        broker.declare_queue(task.queue_name)
        message = broker.enqueue(message)
        result: AnyResult = TaskResult(
            task=task,
            id=message.message_id,
            status=TaskResultStatus.READY,
            enqueued_at=_moment(message.message_timestamp),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return what the ledger says of a task's job.

        Raises:
            TaskResultDoesNotExist: there is no such job, or none of a task of this backend;
                it may be gone by retention.
        """
        job = None
        if isinstance(result_id, str) and "\0" not in result_id:
            job = Job.objects.filter(pk=result_id).first()
        about = _about(job) if job is not None else None
        if job is None or about is None or about.get("backend") != self.alias:
            raise TaskResultDoesNotExist(result_id)
        return self._result(job, self._task(job, about))

    def check(self, **kwargs: Any) -> Iterable[checks.CheckMessage]:
        """Return what is wrong with the backend's settings."""
        unknown = sorted(set(self.options) - _broker().actor_options)
        return [
            *super().check(**kwargs),
            *(
                checks.Error(
                    f"TASKS[{self.alias!r}]['OPTIONS'] has {name!r}, which is no option of an actor.",
                    hint="Options of tasks are those of Dramatiq's actors, such as max_retries.",
                    id="queueadmin.E003",
                )
                for name in unknown
            ),
        ]

    # --- Tasks as actors ------------------------------------------------------------------
    def _declare_queues(self) -> None:
        broker = _broker()
        # Without QUEUES a task may name any; those with a policy are consumed at least.
        for queue in self.queues or settings.QUEUES:
            broker.declare_queue(queue)

    def _declare(self, task: AnyTask) -> "Actor[Any, Any]":
        """Return the task's actor on the current broker, which tests replace."""
        broker = _broker()
        known = broker.actors.get(task.module_path)
        if known is not None:
            if isinstance(known.fn, _Run) and known.fn.task.func is task.func:
                return known
            # A module that was loaded again has made the function anew.
            del broker.actors[task.module_path]
        with _lock:
            if not any(isinstance(each, _Finish) for each in broker.middleware):
                broker.add_middleware(_Finish(), before=PolicyRetries)
        return Actor(
            _Run(self, task),
            broker=broker,
            actor_name=task.module_path,
            queue_name=task.queue_name,
            priority=0,
            options=dict(self.options),
        )

    def _message_options(self, task: AnyTask) -> dict[str, Any]:
        about: dict[str, Any] = {"backend": self.alias}
        options: dict[str, Any] = {OPTION: about}
        if task.priority:
            about["priority"] = task.priority
            options["priority"] = "high" if task.priority > 0 else "low"
        if task.run_after is not None:
            after = task.run_after
            if timezone.is_naive(after):
                after = timezone.make_aware(after)
            about["run_after"] = after.isoformat()
            options["eta"] = max(round(after.timestamp() * 1000), 0)
        return options

    def _task(self, job: Job, about: Mapping[str, Any]) -> AnyTask:
        actor = _actor_of(job.actor)
        if actor is None:
            raise TaskResultDoesNotExist(
                f"The result {job.pk} is of the task {job.actor}, which is no longer there."
            )
        after = about.get("run_after")
        run: Any = actor.fn
        return run.task.using(
            priority=about.get("priority", 0),
            queue_name=job.queue,
            run_after=parse_datetime(after) if after else None,
            backend=self.alias,
        )

    def _result(self, job: Job, task: AnyTask) -> Any:
        attempts = list(
            job.attempt_set.order_by("pk").values_list(
                "started_at", "worker", "error_class", "traceback"
            )
        )
        payload = job.payload or {}
        started = [at for at, *_ in attempts] + ([job.started_at] if job.started_at else [])
        result: AnyResult = TaskResult(
            task=task,
            id=job.pk,
            status=_STATUS[JobState(job.state)],
            enqueued_at=job.enqueued_at,
            started_at=min(started, default=None),
            finished_at=job.finished_at,
            last_attempted_at=max(started, default=None),
            args=list(payload.get("args") or ()),
            kwargs=dict(payload.get("kwargs") or {}),
            backend=self.alias,
            errors=[
                TaskError(exception_class_path=_class_path(name, stack), traceback=stack)
                for _, _, name, stack in attempts
                if name
            ],
            worker_ids=[worker for _, worker, _, _ in attempts],
        )
        if job.state == JobState.ACTIVE:
            result.worker_ids.append(job.worker)
        elif job.state == JobState.CANCELLED or (job.state == JobState.DEAD and not result.errors):
            result.errors.append(_ending_error(job))
        elif job.state == JobState.COMPLETED and job.result is not None:
            object.__setattr__(result, "_return_value", _returned(job))
        return result


# --- Running --------------------------------------------------------------------------------
class _Run:
    """A task as a function for its actor."""

    def __init__(self, backend: DramatiqBackend, task: AnyTask) -> None:
        self.backend_class = type(backend)
        self.task = task
        self.__name__ = task.name
        self.__qualname__ = task.func.__qualname__
        self.__module__ = task.func.__module__
        self.__doc__ = task.func.__doc__
        self.__globals__ = task.func.__globals__
        # Who enqueues it gives no context, and is checked against the rest.
        found = inspect.signature(task.func)
        parameters = list(found.parameters.values())
        self.__signature__ = found.replace(parameters=parameters[bool(task.takes_context) :])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; return its result as JSON has it.

        Raises:
            UnkeepableResult: the result cannot be kept.
        """
        run = execution.current()
        if run is None:
            raise RuntimeError(f"{self.task.module_path} is run by workers; else call the task.")
        try:
            result = self.result_of(run, args, kwargs)
        except (DatabaseError, InterfaceError):
            # As an actor would, a task that does not ask for it runs without the ledger.
            if self.task.takes_context:
                raise
            logger.warning("Nobody is told that job %s has begun.", run.job, exc_info=True)
        else:
            task_started.send(self.backend_class, task_result=result)
            if self.task.takes_context:
                args = (TaskContext(task_result=result), *args)
        if inspect.iscoroutinefunction(self.task.func):
            value = _await(self.task.func, args, kwargs)
        else:
            value = self.task.func(*args, **kwargs)
        return _keepable(value, self.task.module_path)

    def result_of(self, run: Execution, args: Any, kwargs: Any) -> Any:
        """Return the result as it stands while the task runs."""
        job = Job.objects.get(pk=run.job)
        about = _about(job) or {"backend": self.task.backend}
        backend = self.task.using(backend=about["backend"]).get_backend()
        result = backend._result(job, backend._task(job, about))
        for name, value in {
            "status": TaskResultStatus.RUNNING,
            "args": list(args),
            "kwargs": dict(kwargs),
            "started_at": result.started_at or run.started_at,
            "last_attempted_at": run.started_at,
        }.items():
            object.__setattr__(result, name, value)
        if job.state != JobState.ACTIVE:
            result.worker_ids.append(_worker())
        return result


def _await(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a coroutine function to its end in a loop of its own.

    What it asks of the database runs in this thread, so that a task sees its connection. An
    interrupt that strikes this thread does not reach the loop's: it is told.
    """
    abandoned, ended = Event(), Event()
    try:
        return async_to_sync(_breathing)(func, args, kwargs, abandoned, ended)
    except BaseException:
        abandoned.set()
        # Or its next attempt might begin beside the rest of this one.
        ended.wait(4 * _BREATH_SECONDS)
        raise


async def _breathing(
    func: Callable[..., Any], args: Any, kwargs: Any, abandoned: Event, ended: Event
) -> Any:
    """Await the coroutine function, and let the waiting thread run now and then.

    The thread waits in C code where no time limit, cancel or shutdown can interrupt it. The
    interrupt may strike in the breath, which passes it on, or in the code around it; then the
    breath never ends, and `abandoned` is set.
    """
    work = asyncio.ensure_future(func(*args, **kwargs))
    breath = None
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=_BREATH_SECONDS)
            if abandoned.is_set():
                raise asyncio.CancelledError
            if breath is not None and breath.done():
                breath.result()
                breath = None
            if breath is None and not work.done():
                breath = asyncio.ensure_future(sync_to_async(_breathe)())
        return work.result()
    finally:
        if breath is not None:
            breath.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=_BREATH_SECONDS)
        ended.set()


def _breathe() -> None:
    """Be a line of Python between which an interrupt can strike."""


def _keepable(value: Any, path: str) -> Any:
    try:
        kept = normalize_json(value)
        size = len(json.dumps(kept, separators=(",", ":"), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnkeepableResult(f"What {path} returned is no JSON: {error}") from error
    if size > MOST_CHARACTERS:
        raise UnkeepableResult(
            f"What {path} returned has {size} characters; at most {MOST_CHARACTERS} are kept."
        )
    return kept


class _Finish(Middleware):
    """Sends the framework's signal when a task has ended for good.

    It stands before PolicyRetries, so its hook comes after that has decided.
    """

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Tell who listens, before the outcome is recorded."""
        run = execution.current()
        if OPTION not in message.options or run is None:
            return
        if exception is not None and not (message.failed or run.cancelled):
            return
        actor = broker.actors.get(message.actor_name)
        if actor is None or not isinstance(actor.fn, _Run):
            return
        ended = actor.fn.result_of(run, message.args, message.kwargs)
        status = TaskResultStatus.SUCCESSFUL if exception is None else TaskResultStatus.FAILED
        object.__setattr__(ended, "status", status)
        object.__setattr__(ended, "finished_at", clock.now())
        if exception is None:
            object.__setattr__(ended, "_return_value", result)
        else:
            kind = type(exception)
            ended.errors.append(
                TaskError(
                    exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
                    traceback=run.trace(exception),
                )
            )
        task_finished.send(actor.fn.backend_class, task_result=ended)


# --- Finding --------------------------------------------------------------------------------
def find(message: Message[Any]) -> None:
    """Import the module of a task that this process has not met; a finder of the broker's.

    Only for messages that name a backend of this kind, as `TASKS` has it.
    """
    about = message.options.get(OPTION)
    if isinstance(about, dict) and about.get("backend") in _aliases():
        _import(message.actor_name)


def prepare() -> None:
    """Make the backends of this kind, so that this process consumes their queues."""
    for alias in _aliases():
        _ = task_backends[alias]


def _aliases() -> list[str]:
    return [
        alias
        for alias in task_backends
        if issubclass(import_string(task_backends.settings[alias]["BACKEND"]), DramatiqBackend)
    ]


LedgerBroker.finders.append(find)
# Their lines carry the stack of a failed task.
for _name in ("django.tasks", "django_tasks"):
    logging.getLogger(_name).addFilter(events.REDACTION)


def _actor_of(path: str) -> "Actor[Any, Any] | None":
    broker = _broker()
    if path not in broker.actors:
        _import(path)
    actor = broker.actors.get(path)
    return actor if actor is not None and isinstance(actor.fn, _Run) else None


def _import(path: str) -> None:
    """Import the module of a task, which declares it."""
    name = path.rpartition(".")[0]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        logger.warning("The module of task %s cannot be imported: %s", path, error)
        return
    for value in vars(module).values():
        # Declared on the broker there was when it was imported; a test may have another one.
        if isinstance(value, Task) and value.module_path == path:
            backend = value.get_backend()
            if isinstance(backend, DramatiqBackend):
                backend._declare(value)


def _broker() -> LedgerBroker:
    broker = get_broker()
    if not isinstance(broker, LedgerBroker):
        raise exceptions.ConfigurationError(
            f"queueadmin.tasks.DramatiqBackend needs a broker of queueadmin.brokers, not {broker!r}."
        )
    return broker


def _worker() -> str:
    return str(_broker().transport.worker_id.rsplit(":", 1)[0])


# --- Reading the ledger ---------------------------------------------------------------------
def _about(job: Job) -> dict[str, Any] | None:
    """Return what the message says of its task; it is readable in a sealed one, too."""
    try:
        found = json.loads(bytes(job.message))["options"][OPTION]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _returned(job: Job) -> Any:
    try:
        return json.loads(payloads.open_result(str(job.result)))
    except Undecryptable as error:
        logger.warning("The result of job %s cannot be shown: %s", job.pk, error)
        return None


def _class_path(name: str, stack: str) -> str:
    """Return the dotted path of an attempt's exception class.

    The ledger keeps the class's name; the module stands in the stack's last lines, where
    Python leaves it out for built-in exceptions.
    """
    line = rf"^(?:([\w.]+)\.)?{re.escape(name)}(?::|$)"
    found = re.findall(line, stack, re.MULTILINE)
    if found and found[-1]:
        return f"{found[-1]}.{name}"
    for module in ("builtins", exceptions.__name__):
        if hasattr(importlib.import_module(module), name):
            return f"{module}.{name}"
    return name


def _ending_error(job: Job) -> Any:
    """Return the error of a job that ended without an attempt of its own."""
    name = job.error_class or ("Cancelled" if job.state == JobState.CANCELLED else "")
    path = _class_path(name, "") if name else ""
    if "." not in path:
        path = f"{exceptions.__name__}.QueueadminError"
    text = job.error_message or "The job was cancelled."
    return TaskError(exception_class_path=path, traceback=f"{name or 'QueueadminError'}: {text}\n")


def _moment(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
