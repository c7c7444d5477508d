"""Runs several programs as one: starts them, waits for them, restarts and stops them."""

import contextlib
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

GUARD = Path(__file__).with_name("guard.py")
#: Seconds a program gets to end when its supervisor was killed.
ORPHAN_GRACE = 4.0
#: Seconds between two looks at the programs.
LOOK = 0.1
MAX_LOG_BYTES = 5_000_000
#: First words of the line that parts one start from the one before in a log file.
STARTED = "--- started "


class StackError(Exception):
    """The stack cannot run; the text says why and what to do, for people."""


class Stopped(Exception):
    """Somebody asked the stack to end while it was starting."""


def always() -> bool:
    """Be ready as soon as the process has lived for a moment."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of the stack.

    Args:
        name: shown to people and the name of its log file.
        command: the program and its arguments.
        ready: whether it answers now.
        settle: seconds it must have lived before it counts as ready.
        grace: seconds between SIGTERM and SIGKILL.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] = always
    settle: float = 0.0
    grace: float = 10.0


@dataclass(slots=True)
class Running:
    """A program and its present process."""

    program: Program
    process: subprocess.Popen[bytes]
    since: float = field(default_factory=time.monotonic)
    crashes: int = 0
    restart_at: float | None = None

    @property
    def age(self) -> float:
        """Seconds since its process was started."""
        return time.monotonic() - self.since


class Stack:
    """Programs that live and end together.

    Args:
        logs: directory of their output, one file each.
        environment: what the programs see.
        say: shows one line to people.
    """

    def __init__(
        self, logs: Path, environment: Mapping[str, str], *, say: Callable[[str], None] = print
    ) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._say = say
        self._running: list[Running] = []
        # SimpleQueue.put may be called by a signal handler at any moment.
        self._requests: SimpleQueue[None] = SimpleQueue()
        self._stopping = False

    def request_stop(self, signum: int = 0, frame: object = None) -> None:
        """Ask for the end; fit to be a signal handler."""
        self._stopping = True
        self._requests.put(None)

    def handle_signals(self) -> None:
        """End the stack on SIGINT and SIGTERM, and when the terminal is closed."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                signal.signal(signum, self.request_stop)

    def run_once(self, program: Program) -> None:
        """Run a program to its end.

        Raises:
            StackError: it failed; the text has its last lines.
            Stopped: the end was asked for meanwhile; the program was ended.
        """
        running = Running(program, self._spawn(program))
        self._running.append(running)
        try:
            while running.process.poll() is None:
                self._pause()
        finally:
            self._end(running)
            self._running.remove(running)
        if running.process.returncode:
            raise StackError(self._obituary(running))

    def start(self, programs: Iterable[Program], *, timeout: float = 60) -> None:
        """Start programs and wait until each is ready.

        Args:
            programs: they start at once, and end in the reverse order.
            timeout: seconds all of them get to be ready.

        Raises:
            StackError: one ended or did not answer in time.
            Stopped: the end was asked for meanwhile.
        """
        started = [Running(program, self._spawn(program)) for program in programs]
        self._running += started
        deadline = time.monotonic() + timeout
        for running in started:
            program = running.program
            while running.age < program.settle or not program.ready():
                if running.process.poll() is not None:
                    raise StackError(self._obituary(running))
                if time.monotonic() > deadline:
                    raise StackError(
                        f"{program.name} did not answer within {timeout:.0f} s.\n"
                        f"{self._last_lines(program)}"
                    )
                self._pause()

    def watch(self) -> None:
        """Restart what ends, until the end is asked for."""
        with contextlib.suppress(Stopped):
            while True:
                for running in self._running:
                    self._look_after(running)
                self._pause()

    def stop(self) -> None:
        """End all programs, last started first, and wait for each."""
        self._stopping = True
        for running in reversed(self._running):
            self._end(running)
        self._running.clear()

    def _look_after(self, running: Running) -> None:
        program = running.program
        if running.restart_at is not None:
            if time.monotonic() >= running.restart_at:
                running.process = self._spawn(program)
                running.since, running.restart_at = time.monotonic(), None
            return
        if running.process.poll() is None:
            return
        # A program that ran well for a while starts its count anew.
        running.crashes = 1 if running.age > 60 else running.crashes + 1
        wait = min(2.0 ** (running.crashes - 1), 30.0)
        running.restart_at = time.monotonic() + wait
        self._close(running)
        self._say(f"{self._obituary(running)}\nIt is started again in {wait:.0f} s.")

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        path = self._log_path(program)
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        guarded = [sys.executable, "-I", "-S", str(GUARD)]
        guarded += [str(program.grace), str(min(program.grace, ORPHAN_GRACE)), *program.command]
        with path.open("ab") as log:
            log.write(f"{STARTED}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
            log.flush()
            return subprocess.Popen(  # noqa: S603  # commands come from this project only
                guarded,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C reaches this process alone, which then ends them in order.
                start_new_session=True,
            )

    def _end(self, running: Running) -> None:
        process = running.process
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=running.program.grace + 5)
        except subprocess.TimeoutExpired:  # the guard itself hangs; its program dies with it
            process.kill()
            process.wait()
        self._close(running)

    @staticmethod
    def _close(running: Running) -> None:
        if running.process.stdin is not None:
            running.process.stdin.close()

    def _pause(self) -> None:
        """Wait a moment.

        Raises:
            Stopped: the end was asked for.
        """
        with contextlib.suppress(Empty):
            self._requests.get(timeout=LOOK)
        if self._stopping:
            raise Stopped

    def _log_path(self, program: Program) -> Path:
        return self._logs / f"{program.name}.log"

    def _obituary(self, running: Running) -> str:
        code = running.process.returncode
        how = f"signal {code - 128}" if code > 128 else f"exit code {code}"
        return f"{running.program.name} ended with {how}.\n{self._last_lines(running.program)}"

    def _last_lines(self, program: Program) -> str:
        path = self._log_path(program)
        with path.open(errors="replace") as log:
            lines: deque[str] = deque(maxlen=15)
            for line in log:
                if line.startswith(STARTED):
                    lines.clear()
                else:
                    lines.append(line)
        if not lines:
            return f"It wrote nothing to {path}."
        shown = "".join(f"  {line.rstrip()}\n" for line in lines)
        return f"Its last lines, from {path}:\n{shown}".rstrip()
