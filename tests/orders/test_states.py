"""The states of an order are drawn as they are."""

import re
from pathlib import Path

from orders.states import TRANSITIONS, OrderState

DRAWING = Path(__file__).resolve().parents[2] / "docs/orders.md"


def test_the_drawing_shows_every_change_and_no_other() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+)$", DRAWING.read_text(), re.MULTILINE)

    assert set(drawn) == {
        (state.value, following.value)
        for state, followers in TRANSITIONS.items()
        for following in followers
    }


def test_what_ends_an_order_is_drawn_as_an_end() -> None:
    ends = set(re.findall(r"^    (\w+) --> \[\*\]$", DRAWING.read_text(), re.MULTILINE))

    assert ends == {state.value for state in OrderState if not TRANSITIONS[state]}
