"""Reads stored tracebacks so that the application's own frames come to the eye first."""

import re
from dataclasses import dataclass, field
from itertools import groupby

from django.utils.translation import gettext as _

#: Longest text of a stack that is shown; more would only slow the page.
LIMIT = 60_000

_FRAME = re.compile(r'^\s+File "(?P<path>[^"]*)", line (?P<line>\d+)(?:, in (?P<name>.*))?$')
_LIBRARY = re.compile(r"site-packages|dist-packages|[/\\]lib[/\\]python\d|^<frozen |[/\\]Lib[/\\]")


@dataclass(slots=True)
class Frame:
    """One frame with its source lines, or a line of text between frames."""

    lines: list[str]
    kind: str  # "own", "library" or "text"


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring frames of one kind."""

    kind: str
    text: str
    frames: int


@dataclass(frozen=True, slots=True)
class Stack:
    """A traceback in blocks, in its own order."""

    blocks: list[Block] = field(default_factory=list)
    is_cut: bool = False

    @property
    def summary(self) -> str:
        """Say where to look, from the innermost own frame."""
        own = [block for block in self.blocks if block.kind == "own"]
        if not own:
            return ""
        found = None
        for line in own[-1].text.splitlines():
            found = _FRAME.match(line) or found
        if found is None:
            return ""
        name = found["name"] or _("module level")
        path = "/".join(re.split(r"[/\\]", found["path"])[-2:])
        return f"{path}:{found['line']} · {name}"


def read(traceback: str) -> Stack:
    """Return a traceback in blocks; a text that is none becomes one block."""
    kept = traceback[:LIMIT]
    blocks = []
    for kind, group in groupby(_frames(kept), key=lambda frame: frame.kind):
        frames = list(group)
        text = "\n".join(line for frame in frames for line in frame.lines)
        if text.strip():
            blocks.append(Block(kind, text, len(frames)))
    return Stack(blocks, is_cut=len(traceback) > LIMIT)


def _frames(text: str) -> list[Frame]:
    """Split a traceback into frames; their source lines are indented by four or more."""
    frames: list[Frame] = []
    for line in text.splitlines():
        if found := _FRAME.match(line):
            kind = "library" if _LIBRARY.search(found["path"]) else "own"
            frames.append(Frame([line], kind))
        elif frames and frames[-1].kind != "text" and line.startswith("    "):
            frames[-1].lines.append(line)
        else:
            frames.append(Frame([line], "text"))
    return frames
