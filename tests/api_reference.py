"""Prints docs/api.md as the code has it."""

import os
from pathlib import Path

import django

INTRODUCTION = Path(__file__).resolve().parents[1] / "docs" / "api-introduction.md"


def text() -> str:
    from queueadmin.api import reference

    return reference.markdown(INTRODUCTION.read_text())


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    print(text(), end="")
