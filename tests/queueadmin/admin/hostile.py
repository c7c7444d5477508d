"""Texts that must come out of every page as text."""

import re
from typing import Any

HOSTILE = [
    "<script>alert(1)</script>",
    "</textarea></pre><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "{{ 7|add:7 }}{% load x %}",
    "\u202egnp.exe\u2066 \u200b",
    "NUL \0 and bell \x07",
    "=cmd|' /C calc'!A0",
    "x" * 100_000,
    "",
]
_TAG = re.compile(
    r"<(script|img)\b(?![^>]*\bsrc=\"/static/)|\bon(error|mouseover)=\"", re.IGNORECASE
)


def assert_text_only(response: Any) -> None:
    """Fail if the page broke, or shows markup or marks of a hostile text as such."""
    assert response.status_code == 200
    html = response.content.decode()
    inner = html.split('id="content"', 1)[1].split("</main>", 1)[0]
    assert not _TAG.search(inner), _TAG.search(inner)
    for mark in "\u202e\u2066\u200b\x00\x07":
        place = inner.find(mark)
        assert place < 0, inner[place - 200 : place + 50]
