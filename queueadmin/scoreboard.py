"""A small file that tells the supervisor what each thread of a worker process runs.

It is mapped into the memory of both. The worker's side costs about a microsecond per job
and no system call; what it wrote is there for the supervisor to read when the process is
stuck in code that no Python thread can interrupt, or dead.

Each slot is written by one thread. Its first byte says whether the rest holds: it is
cleared before and set after the rest is written, so a process that is killed half-way
leaves a slot that counts as empty. The supervisor acts on what it reads of a living
process only when a second look, some time later, finds the same.

Times are those of `time.monotonic()`, which all processes of a host share on Linux and
macOS.
"""

import mmap
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

# is set, started, hard deadline, dispatch, length of the id, id
_SLOT = struct.Struct("=?ddIH256s")
# time of the last sign of life, length of the worker's id, id
_HEAD = struct.Struct("=dH256s")
_DEADLINE_AT = 9
_NEVER = float("inf")


class Running(NamedTuple):
    """What one thread runs."""

    job: str
    dispatch: int
    started: float
    hard_deadline: float


class Scoreboard:
    """The mapped file; see the module's text."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._slots = (len(memory) - _HEAD.size) // _SLOT.size
        self._lock = threading.Lock()
        self._offsets: dict[int, int] = {}

    @classmethod
    def in_memory(cls, threads: int) -> "Scoreboard":
        """Return one that nobody else sees, for a worker without a supervisor."""
        return cls(mmap.mmap(-1, _HEAD.size + threads * _SLOT.size))

    @classmethod
    def create(cls, path: Path, threads: int) -> "Scoreboard":
        """Make an empty file for a process of so many threads, and map it."""
        path.write_bytes(bytes(_HEAD.size + threads * _SLOT.size))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "Scoreboard":
        """Map a file that `create` made."""
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), 0))

    # --- The worker's side ------------------------------------------------------------
    def enter(self, job: str, dispatch: int) -> None:
        """Note what the current thread begins to run."""
        offset = self._offset()
        if offset is None:
            return
        name = job.encode()[:256]
        started = time.monotonic()
        _SLOT.pack_into(self._memory, offset, False, started, _NEVER, dispatch, len(name), name)
        self._memory[offset] = 1

    def limit(self, hard_deadline: float) -> None:
        """Note when the current thread's run has to be over at the latest."""
        offset = self._offset()
        if offset is not None:
            struct.pack_into("=d", self._memory, offset + _DEADLINE_AT, hard_deadline)

    def leave(self) -> None:
        """Note that the current thread runs nothing."""
        offset = self._offset()
        if offset is not None:
            self._memory[offset] = 0

    def sign(self, worker_id: str) -> None:
        """Show that Python code runs in this process, under this id."""
        name = worker_id.encode()[:256]
        _HEAD.pack_into(self._memory, 0, time.monotonic(), len(name), name)

    def _offset(self) -> int | None:
        thread = threading.get_ident()
        offset = self._offsets.get(thread)
        if offset is None:
            with self._lock:
                if len(self._offsets) >= self._slots:
                    return None  # not one of the worker's threads
                offset = _HEAD.size + len(self._offsets) * _SLOT.size
                self._offsets[thread] = offset
        return offset

    # --- The supervisor's side --------------------------------------------------------
    def running(self) -> list[Running]:
        """Return what the threads run, or ran when their process died."""
        found = []
        for index in range(self._slots):
            is_set, started, deadline, dispatch, length, name = _SLOT.unpack_from(
                self._memory, _HEAD.size + index * _SLOT.size
            )
            if is_set:
                job = name[:length].decode(errors="replace")
                found.append(Running(job, dispatch, started, deadline))
        return found

    def last_sign(self) -> tuple[float, str]:
        """Return when the process last showed that it lives (0.0: never), and its id."""
        at, length, name = _HEAD.unpack_from(self._memory, 0)
        return at, name[:length].decode(errors="replace")

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()
