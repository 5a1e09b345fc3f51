"""What the pages name exists: links, commands, flags, settings, schedules, checks and error messages."""

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from later_reporting_dagster.cli import main
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.instances import INSTANCES_CHECKS
from later_reporting_dagster.defs.organic_paid_periods import ROLLUP_CHECKS
from later_reporting_dagster.defs.organic_paid_windows import WINDOWS_CHECKS
from later_reporting_dagster.defs.posts_checks import POSTS_CHECKS, SETTLED_POSTS_CHECKS
from tests.docs.conftest import CHANGELOG, PACKAGE, PAGES, ROOT, section

README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
# Languages whose blocks are run or parsed by a test, and those that only a reader sees.
TESTED_LANGUAGES = {"python", "sh", "sql", "yaml", "diff"}
OTHER_LANGUAGES = {"", "json", "mermaid"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def current_text(page: Path) -> str:
    """Return the text of a page, without the table of old names in the changelog."""
    return re.sub(r"<!-- old names -->.*?<!-- end of old names -->", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }


@every_page
def test_page_has_blocks_of_known_languages_only(page: Path) -> None:
    languages = set(re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE))
    assert languages <= TESTED_LANGUAGES | OTHER_LANGUAGES


@every_page
def test_page_has_no_broken_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@every_page
def test_page_names_existing_commands_and_flags(page: Path) -> None:
    for name, rest in re.findall(r"later-reporting ([a-z]+)((?: [^`\n|\"]*)?)", current_text(page)):
        command = main.commands[name]
        flags = {flag for option in command.params if isinstance(option, click.Option) for flag in option.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= flags, f"{name}{rest}"


@every_page
def test_page_names_settings_of_the_readme_only(page: Path) -> None:
    settings = set(re.findall(r"LATER_[A-Z_]+", section(README, "Settings")))
    assert set(re.findall(r"LATER_[A-Z_]+", current_text(page))) <= settings


@every_page
def test_page_names_existing_schedules_and_sensors(page: Path) -> None:
    repository = defs.get_repository_def()
    known = {each.name for each in [*repository.schedule_defs, *repository.sensor_defs]}
    known |= {
        "later_lake",
        "later_api",
        "later_reporting",
        "later_tables",
        "later_reporting_dagster",
        "later_reporting_rate_limit",
    }
    assert set(re.findall(r"`(later_[a-z_]+)`", current_text(page))) <= known


def test_operations_explains_each_check() -> None:
    text = OPERATIONS.read_text()
    checks = {**POSTS_CHECKS, **SETTLED_POSTS_CHECKS, **INSTANCES_CHECKS, **ROLLUP_CHECKS, **WINDOWS_CHECKS}
    assert [name for name in checks if f"`{name}`" not in text] == []


@cache
def package_texts() -> list[str]:
    """Return all SQL of the package, and all string constants of its Python code."""
    return [file.read_text() for file in PACKAGE.rglob("*.sql")] + [
        node.value
        for module in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_operations_quotes_existing_messages() -> None:
    rows = [line for line in section(OPERATIONS, "When an instance fails").splitlines() if line.startswith("| `")]
    quoted = [fragment for row in rows for fragment in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(quoted) >= len(rows) > 10
    assert [fragment for fragment in quoted if not any(fragment in text for text in package_texts())] == []


def test_changelog_sections_are_those_of_keep_a_changelog() -> None:
    text = CHANGELOG.read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def test_changelog_gives_existing_new_names() -> None:
    table = CHANGELOG.read_text().partition("<!-- old names -->")[2].partition("<!-- end of old names -->")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", table, re.MULTILINE)
    assert len(rows) > 5
    code = "\n".join(file.read_text() for file in [*PACKAGE.rglob("*.py"), README])
    for old, new in rows:
        name = new.rpartition(".")[2]
        assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", code), f"{old} was renamed to {new}, which does not exist"
