"""The parent of one supervised program: it ends the program's whole process group.

Run as `python -I -S guard.py GRACE ORPHAN_GRACE command …` with a pipe from the
supervisor as its standard input. It ends the program when it gets SIGTERM, and also when
the pipe closes, which happens even if the supervisor is killed with SIGKILL. It knows
only the standard library and nothing of the project, so that five of them cost little.
"""

import contextlib
import os
import select
import signal
import sys
import time
from typing import NoReturn


def _die_with_parent() -> None:
    """Ask Linux for a SIGTERM when this guard is killed; elsewhere nothing is asked."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # a slow import, and needed on Linux only

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _become(command: list[str], guard: int) -> NoReturn:
    """Turn this fresh fork into the program, in a process group of its own."""
    os.setpgid(0, 0)
    _die_with_parent()
    if os.getppid() != guard:  # killed before the request above reached the kernel
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def _has_ended(child: int) -> bool:
    # WNOWAIT leaves the process entry in place: until it is reaped, no other process
    # group can get its number, and the kill below cannot hit strangers.
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child, flags) is not None


def _kill_group(child: int) -> None:
    # macOS answers "not permitted" for a group of which only a zombie is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def guard(grace: float, orphan_grace: float, command: list[str]) -> int:
    """Run `command` and return its exit code, or 128 and more when a signal ended it.

    Args:
        grace: seconds the program gets between SIGTERM and SIGKILL.
        orphan_grace: the same when the supervisor is gone.
        command: the program and its arguments.
    """
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True

    # Before the fork, so that neither is missed; the program starts with the defaults.
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.signal(signal.SIGTERM, ask)
    me = os.getpid()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        _become(command, me)
    with contextlib.suppress(OSError):  # the child does the same; whoever comes first
        os.setpgid(child, child)

    watched: list[int] = [0, wake_read]
    deadline: float | None = None
    while not _has_ended(child):
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(watched, [], [], wait)
        if wake_read in readable:
            os.read(wake_read, 4096)
        orphaned = 0 in readable and not os.read(0, 4096)
        if orphaned:
            watched.remove(0)
        if asked or orphaned:
            limit = time.monotonic() + (orphan_grace if orphaned else grace)
            if deadline is None:
                # Only the leader: a second SIGTERM, by its own hand, would be one too
                # many for the worker processes below it.
                os.kill(child, signal.SIGTERM)
            deadline = limit if deadline is None else min(deadline, limit)
            asked = False
        if deadline is not None and time.monotonic() >= deadline:
            _kill_group(child)
            deadline = None
    _kill_group(child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
