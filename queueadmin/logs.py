"""A handler that writes many lines with one system call."""

import logging
import os
import select
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What several processes write to one pipe is not mixed up to this length.
_PIPE_BYTES = select.PIPE_BUF
_OTHER_BYTES = 64 * 1024

_thread = threading.local()


@contextmanager
def together() -> Iterator[None]:
    """Hold back what this thread logs through a `BatchHandler` until the end, and write it then."""
    held: dict[BatchHandler, list[str]] = {}
    _thread.held = held
    try:
        yield
    finally:
        _thread.held = None
        for handler, lines in held.items():
            handler.write(lines)


class BatchHandler(logging.StreamHandler[Any]):
    """A `StreamHandler` whose lines of one batch are written together.

    A worker's threads wait for each other at a handler, and each write lets another of them
    run: a line per job costs more than the job's place in the ledger.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or hold it back within `together`."""
        held = getattr(_thread, "held", None)
        if held is None:
            super().emit(record)
            return
        try:
            held.setdefault(self, []).append(self.format(record) + self.terminator)
        except Exception:  # logging must not break what is logged
            self.handleError(record)

    def write(self, lines: list[str]) -> None:
        """Write lines with as few calls as there are pieces that stay whole."""
        most = self._most_characters()
        piece: list[str] = []
        length = 0
        for line in [*lines, ""]:
            if piece and (not line or length + len(line) > most):
                self._write_piece("".join(piece))
                piece, length = [], 0
            piece.append(line)
            length += len(line)

    def _write_piece(self, text: str) -> None:
        with self.lock or threading.RLock():
            try:
                self.stream.write(text)
                self.flush()
            except Exception:  # as above; there is no one record to blame
                self.handleError(logging.makeLogRecord({"msg": "lines of a batch"}))

    def _most_characters(self) -> int:
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(self.stream.fileno()).st_mode)
        except (OSError, AttributeError, ValueError):
            return _OTHER_BYTES
        return _PIPE_BYTES if is_pipe else _OTHER_BYTES
