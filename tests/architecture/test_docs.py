import re
import subprocess
import tomllib
from collections import Counter
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from queueadmin.conf import DEFAULTS
from queueadmin.policies import Breaker, Policy, exponential
from queueadmin.states import TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Pieces, so that this file is not among those that name one.
REGISTRIES = re.compile(
    "|".join(
        [
            r"\bpypi\.[a-z]",
            r"pythonhosted\.[a-z]",
            r"registry\.(npmjs|yarnpkg)\.",
            r"conda\.anaconda\.",
            r"\bcrates\.io",
        ]
    )
)


def committed_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def dependencies() -> set[str]:
    project = PROJECT["project"]
    listed = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *(line for group in PROJECT["dependency-groups"].values() for line in group),
    ]
    return {re.match(r"[A-Za-z0-9._-]+", line).group() for line in listed}


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readme_names_both_commands(command):
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("dependency", sorted(dependencies()))
def test_every_dependency_says_why_it_is_there(dependency):
    reasons = (ROOT / "docs/decisions/0002-dependencies.md").read_text()

    assert f"**{dependency}**" in reasons


@pytest.mark.parametrize("setting", sorted(DEFAULTS))
def test_the_readme_names_every_setting(setting):
    assert f"| `{setting}` |" in (ROOT / "README.md").read_text()


def test_the_installation_guide_names_every_variable_the_settings_read():
    settings = (ROOT / "config" / "settings.py").read_text()
    guide = (ROOT / "docs" / "installation.md").read_text()
    variables = re.findall(r"""env\.\w+\(\s*"([A-Z_]+)""", settings)

    assert variables
    assert [name for name in variables if f"`{name}`" not in guide] == []


def test_the_states_in_the_docs_are_those_of_the_code():
    rows = re.findall(
        r"^\| (\w+) \| ([\w, –]+) \|$",
        (ROOT / "docs" / "architecture.md").read_text().split("## States")[1],
        re.MULTILINE,
    )
    documented = {state: set(re.findall(r"\w+", following)) for state, following in rows}
    documented.pop("from")

    assert documented == {
        state.value: {other.value for other in following}
        for state, following in TRANSITIONS.items()
    }


def test_no_committed_file_names_a_package_registry():
    naming = [
        str(path.relative_to(ROOT))
        for path in committed_files()
        if REGISTRIES.search(path.read_text(errors="replace"))
    ]

    assert naming == []


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_every_requirement_is_locked_by_hash_and_nothing_else_is_said(name):
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")

    for line in text.splitlines():
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z,]+\])?==\S+.* --hash=sha256:", line), line


def test_what_runs_is_locked_alike_for_development():
    locked = [
        set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("run.txt", "dev.txt")
    ]

    assert locked[0] <= locked[1]


def test_links_between_documents_lead_somewhere():
    broken = []
    for document in (path for path in committed_files() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            is_picture_to_come = target == "docs/images/dead-letters.png"
            if "://" not in target and not is_picture_to_come:
                found = document.parent / target
                broken += [] if found.exists() else [f"{document.name}: {target}"]

    assert broken == []


def test_the_rooms_in_the_docs_are_those_of_the_import_contract():
    guide = (ROOT / "docs" / "architecture.md").read_text()
    rooms = re.findall(r"^\| [\w ]+ \| (`.*?) \|", guide.split("## The way")[0], re.MULTILINE)
    (contract,) = (
        each
        for each in PROJECT["tool"]["importlinter"]["contracts"]
        if each.get("containers") == ["queueadmin"]
    )
    modules = {name for layer in contract["layers"] for name in re.findall(r"\w+", layer)}
    there = {path.stem for path in (ROOT / "queueadmin").iterdir()}

    assert set(re.findall(r"`(\w+)`", " ".join(rooms))) == modules & there


@pytest.mark.parametrize("kind", [Policy, Breaker])
def test_the_guide_names_every_field_of_a_policy_with_its_default(kind):
    guide = (ROOT / "docs" / "policies.md").read_text()
    section = guide.split(f"\n## {kind.__name__}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, re.MULTILINE))

    assert rows == {each.name: _default_of(each) for each in fields(kind)}


def _default_of(field):
    if field.default is MISSING:
        assert field.default_factory() == exponential(5)
        return "exponential(5)"
    return str(field.default) if field.name != "weight" else f"Weight.{field.default.name}"


def test_no_two_checks_share_an_id():
    ids = Counter(
        found
        for path in (ROOT / "queueadmin").rglob("*.py")
        for found in re.findall(r"""id="(queueadmin\.[A-Z]\d+)""", path.read_text())
    )

    assert ids
    assert [found for found, count in ids.items() if count > 1] == []
