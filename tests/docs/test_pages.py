"""What the pages name exists: links, files, commands, flags, settings, schedules, sensors and make targets."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.definitions import defs
from tests.docs.conftest import CONTRIBUTING, PAGES, README, ROOT, section

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def current_text(page: Path) -> str:
    """Return the text of a page, without a table of old names."""
    return re.sub(r"<!-- old names -->.*?<!-- end of old names -->", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }


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


def test_contributing_names_existing_files() -> None:
    named = re.findall(r"`((?:later_reporting_dagster|tests|docs)/[\w/.-]+)`", CONTRIBUTING.read_text())
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


@every_page
def test_page_names_existing_commands_and_flags(page: Path) -> None:
    for name, rest in re.findall(r"later-reporting ([a-z][a-z-]*)((?: [^`\n|\"]*)?)", current_text(page)):
        command = main.commands[name]
        flags = {flag for option in command.params if isinstance(option, click.Option) for flag in option.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= flags, f"{name}{rest}"


@every_page
def test_page_names_existing_settings(page: Path) -> None:
    listed = (ROOT / "docs" / "settings.md").read_text() + section(ROOT / "docs" / "serving.md", "Start it")
    assert set(re.findall(r"LATER_[A-Z_]+", current_text(page))) <= set(re.findall(r"LATER_[A-Z_]+", listed))


@every_page
def test_page_names_existing_jobs_schedules_and_sensors(page: Path) -> None:
    repository = defs.get_repository_def()
    known = {each.name for each in repository.schedule_defs} | {each.name for each in repository.sensor_defs}
    known |= {each.name for each in repository.get_all_jobs()}
    known |= {"later_lake", "later_api", "later_reporting", "later_tables", "later_reporting_dagster"}
    assert set(re.findall(r"`(later_[a-z][a-z_]*)`", current_text(page))) <= known


def test_readme_names_existing_make_targets() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README.read_text(), re.MULTILINE))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "ui", "help"} <= named
    assert named <= set(re.findall(r"make ([a-z-]+)", listed))
