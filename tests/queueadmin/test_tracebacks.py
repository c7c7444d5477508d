"""Exceptions as text: the same as Python's, whatever led to them."""

import gc
import traceback
import weakref
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

from queueadmin import tracebacks


def fail(text: str = "no answer") -> None:
    raise ConnectionError(text)


def divide(of: dict[str, list[int]]) -> float:
    return 1 + 2 / of["a"][0]  # underlined in part


def caused() -> None:
    try:
        divide({"a": [0]})
    except ZeroDivisionError as error:
        raise RuntimeError("with a cause") from error


def during(before: Callable[[], object] = caused) -> None:
    try:
        before()
    except Exception:
        fail("meanwhile")


def unchained() -> None:
    try:
        fail()
    except ConnectionError:
        raise LookupError("alone") from None


def circular() -> None:
    first, second = KeyError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    raise first


def caused_by_context() -> None:
    try:
        fail()
    except ConnectionError as error:
        again = OSError("twice")
        again.__context__ = error
        raise again from error


def noted() -> None:
    error = ValueError("several\nlines")
    error.add_note("and a note\nof two")
    raise error


def grouped() -> None:
    errors: list[Exception] = []
    for number in range(3):
        try:
            fail(str(number))
        except ConnectionError as error:
            errors.append(error)
    raise ExceptionGroup("three", errors)


def during_a_group() -> None:
    during(grouped)


def unreadable() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("nothing to say")

    raise Mute


def misspelt() -> None:
    compile("a b", "somewhere.py", "exec")


def unknown() -> None:
    for number in range(3):
        print(number, numbre)  # type: ignore[name-defined]  # noqa: F821


def unfound() -> None:
    [].apend(1)  # type: ignore[attr-defined]


def deep(left: int) -> None:
    if left:
        deep(left - 1)
    fail(str(left))


def endless() -> None:
    endless()


def without_source() -> None:
    exec(compile("def f():\n    raise OSError('x')\nf()", "<made>", "exec"), {})


FAILURES: list[Callable[[], Any]] = [
    *(fail, lambda: divide({"a": [0]}), lambda: divide({}), caused, during, unchained),
    *(
        circular,
        caused_by_context,
        noted,
        grouped,
        during_a_group,
        unreadable,
        misspelt,
        unfound,
        unknown,
    ),
    *(lambda: deep(2), lambda: deep(3), lambda: deep(4), lambda: deep(9), endless, without_source),
    lambda: during(endless),
]


def raised(act: Callable[[], Any]) -> BaseException:
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("It did not fail.")


@pytest.mark.parametrize("act", FAILURES)
def test_it_is_what_python_writes_the_first_time_and_again(act: Callable[[], Any]) -> None:
    for _ in range(2):
        error = raised(act)

        assert tracebacks.as_text(error) == "".join(traceback.format_exception(error))


def test_an_exception_that_was_never_raised_has_no_stack() -> None:
    error = ValueError("made")
    error.__cause__ = raised(fail)

    assert tracebacks.as_text(error) == "".join(traceback.format_exception(error))


def test_it_is_no_longer_than_the_project_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.tracebacklimit", 1, raising=False)
    error = raised(lambda: deep(2))

    assert tracebacks.as_text(error).count("  File ") == 1
    assert tracebacks.as_text(error) == "".join(traceback.format_exception(error))


def test_the_same_code_in_two_files_is_told_apart() -> None:
    source = "def f():\n    raise OSError('x')\nf()"
    for name in ("one.py", "two.py"):
        error = raised(lambda name=name: exec(compile(source, name, "exec"), {}))  # type: ignore[misc]

        assert f'"{name}"' in tracebacks.as_text(error)


def test_places_of_code_that_is_made_again_and_again_are_forgotten() -> None:
    for number in range(tracebacks._MOST + 10):
        name = f"made-{number}.py"
        error = raised(lambda name=name: exec(compile("1 / 0", name, "exec"), {}))  # type: ignore[misc]
        assert f'"{name}"' in tracebacks.as_text(error)

    assert len(tracebacks._frames) <= tracebacks._MOST


def test_it_keeps_nothing_of_a_run_alive() -> None:
    class Argument:
        pass

    kept: list[weakref.ref[Argument]] = []

    def hold(argument: Argument) -> None:
        kept.append(weakref.ref(argument))
        fail("with an argument")

    tracebacks.as_text(raised(lambda: hold(Argument())))
    gc.collect()

    assert [argument() for argument in kept] == [None]


def test_it_shows_the_line_that_ran_though_its_file_has_changed(tmp_path: Any) -> None:
    path = tmp_path / "changed.py"
    path.write_text(
        dedent("""\
        def f():
            raise OSError("as it was")
    """)
    )
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    before = tracebacks.as_text(raised(names["f"]))

    path.write_text("# nothing\n\n\n")

    assert 'raise OSError("as it was")' in before
    assert tracebacks.as_text(raised(names["f"])) == before
