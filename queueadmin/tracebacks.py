"""Writes exceptions with their stacks as Python does, from frames it has written before.

Most failures of a worker come from the same few places. For each frame of each failure `traceback`
asks the disk whether its source has changed and parses a line again to know what to underline.
"""

import sys
import traceback
from types import CodeType, TracebackType

_HEAD = "Traceback (most recent call last):\n"
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
# Python writes so many calls from one line of a function, and counts those that follow.
_REPEATED = 3
# Only code made again and again, by `exec` or a template, has more places that fail.
_MOST = 2_000

# A group has stacks within; to a NameError Python adds a name of its stack that was perhaps meant.
_WITH_MORE = (BaseExceptionGroup, NameError)

#: Texts of frames. Code is equal that differs in nothing but its file.
_Place = tuple[str, CodeType, int]
_frames: dict[_Place, str] = {}


def as_text(exception: BaseException) -> str:
    """Return what `traceback.format_exception` would, with exceptions that led to this one.

    A frame keeps the line that it was first written with, whatever becomes of its file: when a
    release is written over a running worker, that is most likely the line that runs.
    """
    parts: list[str] = []
    seen: set[int] = set()
    error: BaseException | None = exception
    while error is not None:
        frames = _stack(error.__traceback__)
        if frames is None or isinstance(error, _WITH_MORE) or hasattr(sys, "tracebacklimit"):
            return "".join(traceback.format_exception(exception))
        seen.add(id(error))
        parts.append(frames + "".join(traceback.format_exception_only(error)))
        error, link = _before(error, seen)
        if error is not None:
            parts.append(link)
    return "".join(reversed(parts))


def _before(error: BaseException, seen: set[int]) -> tuple[BaseException | None, str]:
    """Return what led to an exception, unless it has been written, and the words between."""
    cause, context = error.__cause__, error.__context__
    if cause is not None and id(cause) not in seen:
        return cause, _CAUSE
    if context is not None and not error.__suppress_context__ and id(context) not in seen:
        return context, _CONTEXT
    return None, ""


def _stack(part: TracebackType | None) -> str | None:
    """Return the text of a stack; None if Python would write it shorter than its frames."""
    texts = [_HEAD] if part is not None else []
    before, repeated = None, 0
    while part is not None:
        code = part.tb_frame.f_code
        line = code, part.tb_lineno
        repeated = repeated + 1 if line == before else 0
        if repeated >= _REPEATED:
            return None
        before = line
        place = code.co_filename, code, part.tb_lasti
        text = _frames.get(place)
        if text is None:
            if len(_frames) >= _MOST:
                _frames.clear()
            text = _frames[place] = "".join(traceback.format_tb(part, limit=1))
        texts.append(text)
        part = part.tb_next
    return "".join(texts)
