"""Where TASKS finds the backend: `"BACKEND": "queueadmin.tasks.DramatiqBackend"`.

Workers import every module named `tasks`, so this one can be imported without a framework
of tasks; the backend itself is imported when it is asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .task_backend import DramatiqBackend

__all__ = ["DramatiqBackend"]


def __getattr__(name: str) -> object:
    if name == "DramatiqBackend":
        from .task_backend import DramatiqBackend

        return DramatiqBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
