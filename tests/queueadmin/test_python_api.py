"""The page about the Python API says what is true."""

import importlib
import re
from pathlib import Path

import dramatiq
import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text()


@pytest.mark.django_db
def test_the_examples_run_as_they_are_written(broker):
    @dramatiq.actor(queue_name="greetings", actor_name="greet")
    def greet(name: str) -> None:
        """Never run here."""

    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))

    assert code.count("assert ") > 8
    exec(compile(code, "docs/python.md", "exec"), {"greet": greet})


def test_the_names_in_the_table_are_there():
    rows = re.findall(r"^\| ((?:`queueadmin\.\w+`(?:, )?)+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 7
    for modules, words in rows:
        names = re.findall(r"`(\w+)`", words)
        found = [importlib.import_module(name) for name in re.findall(r"`([\w.]+)`", modules)]
        for name in names:
            assert any(callable(getattr(module, name, None)) for module in found), name
