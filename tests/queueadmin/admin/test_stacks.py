import pytest

from queueadmin.admin import stacks
from tests.queueadmin.rows import TRACEBACK


def test_a_stack_tells_own_frames_from_library_frames() -> None:
    stack = stacks.read(TRACEBACK)

    assert [(block.kind, block.frames) for block in stack.blocks] == [
        ("text", 1),
        ("library", 1),
        ("own", 2),
        ("text", 1),
    ]
    assert stack.summary == "channels/whatsapp.py:77 · send"


@pytest.mark.parametrize("text", ["", "no traceback at all", "\n\n", '  File "x", line 1'])
def test_any_text_can_stand_where_a_stack_should(text: str) -> None:
    shown = "\n".join(block.text for block in stacks.read(text).blocks)

    assert shown.strip() == text.strip()


def test_a_huge_stack_is_cut() -> None:
    stack = stacks.read("x" * 1_000_000)

    assert stack.is_cut
    assert sum(len(block.text) for block in stack.blocks) == stacks.LIMIT
