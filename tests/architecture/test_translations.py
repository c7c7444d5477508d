"""What people read has German words: every text of pages and messages, complete and compiled."""

import ast
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
#: Sources -> the catalogue that has their words. The console of queueadmin speaks English.
CATALOGUES = {
    "config": ("config", "templates"),
    "orders": ("orders",),
    "notifications": ("notifications",),
}
MARKS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext", "translate"}
PLACES = re.compile(r"%\(\w+\)[ds]")


def catalogue(name: str) -> Path:
    return ROOT / name / "locale" / "de" / "LC_MESSAGES" / "django.po"


def called(source: str) -> Iterator[str]:
    """Yield the first text of each call that marks it for translation."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in MARKS and isinstance(node.args[0].value, str):
                yield node.args[0].value


def in_template(source: str) -> Iterator[str]:
    """Yield the texts of a template, as Django turns it into calls."""
    for call in re.finditer(
        r"\b(?:n?gettext|_)\((u?(['\"]).*?(?<!\\)\2)[,)]", templatize(source), re.S
    ):
        yield ast.literal_eval(call[1])


def marked(name: str) -> set[str]:
    found: set[str] = set()
    for folder in CATALOGUES[name]:
        for path in (ROOT / folder).rglob("*"):
            if "migrations" in path.parts or "management" in path.parts:
                continue
            if path.suffix == ".py":
                found.update(called(path.read_text()))
            elif path.suffix in (".html", ".txt"):
                found.update(in_template(path.read_text()))
    return found


def written(path: Path) -> dict[str, list[str]]:
    """Return each text of a .po file with its translations."""
    found = {}
    for entry in path.read_text().split("\n\n")[1:]:
        texts: dict[str, str] = {}
        for line in entry.splitlines():
            if match := re.fullmatch(r'(msg\w+(?:\[\d\])?) (".*")', line):
                key = match[1]
                texts[key] = ast.literal_eval(match[2])
            elif line.startswith('"'):
                texts[key] += ast.literal_eval(line)
        if "msgid" in texts:
            found[texts["msgid"]] = [
                text for key, text in texts.items() if key.startswith("msgstr")
            ]
        assert "fuzzy" not in entry, entry
    return found


def compiled(path: Path) -> gettext.GNUTranslations:
    with path.with_suffix(".mo").open("rb") as file:
        return gettext.GNUTranslations(file)


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_text_has_german_words(name: str) -> None:
    texts, german = marked(name), written(catalogue(name))

    assert len(texts) > 20
    assert not {text for text in texts if not all(german.get(text, [""]))}


@pytest.mark.parametrize("name", CATALOGUES)
def test_no_words_are_kept_for_texts_that_are_gone(name: str) -> None:
    assert set(written(catalogue(name))) - marked(name) == set()


@pytest.mark.parametrize("name", CATALOGUES)
def test_what_is_compiled_is_what_is_written(name: str) -> None:
    german = compiled(catalogue(name))

    for text, words in written(catalogue(name)).items():
        if len(words) == 1:
            assert german.gettext(text) == words[0]
        else:
            assert [german.ngettext(text, "", count) for count in (1, 2)] == words


@pytest.mark.parametrize("name", CATALOGUES)
def test_words_have_the_places_of_their_text(name: str) -> None:
    for text, words in written(catalogue(name)).items():
        for word in words:
            assert set(PLACES.findall(word)) == set(PLACES.findall(text)), text
