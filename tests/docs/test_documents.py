"""The documentation says what is so: its code runs as it is written, and what it names exists."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import click
import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from later_reporting_dagster.cli import main
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.instances import INSTANCES_CHECKS
from later_reporting_dagster.defs.organic_paid_periods import ROLLUP_CHECKS
from later_reporting_dagster.defs.organic_paid_windows import WINDOWS_CHECKS
from later_reporting_dagster.defs.posts_checks import POSTS_CHECKS, SETTLEMENT_CHECKS
from tests.docs.conftest import CHANGED, DOCUMENTS, REMOVED, ROOT, Place, blocks, commands

PACKAGE = ROOT / "later_reporting_dagster"
PAGES = [*DOCUMENTS, ROOT / "README.md", ROOT / "SECURITY.md"]
RUN_EACH = """
import sys
for number, block in enumerate(sys.stdin.read().split("\\0"), start=1):
    print(f"block {number}", file=sys.stderr)
    exec(compile(block, f"block {number}", "exec"), {"__name__": f"block_{number}"})
"""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def with_blocks(language: str) -> pytest.MarkDecorator:
    documents = [document for document in DOCUMENTS if blocks(document, language)]
    return pytest.mark.parametrize("document", documents, ids=lambda document: document.name)


@with_blocks("sh")
def test_its_commands_run_as_they_are_written(document: Path, place: Place) -> None:
    before = place.lake.facts("posts_published", CHANGED)
    typed = [command for block in blocks(document, "sh") for command in commands(block)]
    printed = "".join(map(place.type, typed))
    assert "FAIL" not in printed
    if document.name == "operations.md":
        assert "2024-01-31 instance_000  1  impressions counts something" in printed
        assert place.lake.facts("posts_published", CHANGED) != before
        assert Path(place.lake.url("posts_published", REMOVED)).exists()


@with_blocks("sql")
def test_its_queries_are_answered(document: Path, place: Place) -> None:
    for block in blocks(document, "sql"):
        answered = CliRunner().invoke(main, ["query", "-", "--format", "jsonl"], input=block)
        assert (answered.exit_code, answered.stderr) == (0, ""), block
        assert answered.stdout.splitlines()


@with_blocks("python")
def test_its_programs_run(document: Path, place: Place) -> None:
    ended = place.run(sys.executable, "-W", "ignore", "-c", RUN_EACH, text="\0".join(blocks(document, "python")))
    assert ended.returncode == 0, ended.stderr


@with_blocks("yaml")
def test_its_run_config_and_its_dagster_yaml_are_valid(document: Path, tmp_path: Path) -> None:
    job = defs.resolve_implicit_global_asset_job_def()
    for block in blocks(document, "yaml"):
        if block.startswith("run_monitoring:"):
            (tmp_path / "dagster.yaml").write_text(block)
            with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
                assert instance.run_monitoring_max_runtime_seconds == 21_600
        else:
            assert dg.validate_run_config(job, yaml.safe_load(block))


@every_page
def test_each_block_is_in_a_language_that_is_run(page: Path) -> None:
    assert set(re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)) <= {"", "python", "sh", "sql", "yaml"}


@every_page
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked), target


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }


@every_page
def test_each_command_and_flag_exists(page: Path) -> None:
    for name, rest in re.findall(r"later-reporting ([a-z]+)((?: [^`\n|\"]*)?)", page.read_text()):
        command = main.commands[name]
        known = {flag for option in command.params if isinstance(option, click.Option) for flag in option.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known, f"{name}{rest}"


@every_page
def test_each_variable_is_one_that_is_read(page: Path) -> None:
    settings = (ROOT / "README.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"LATER_[A-Z_]+", page.read_text())) <= set(re.findall(r"LATER_[A-Z_]+", settings))


@every_page
def test_what_runs_by_itself_exists(page: Path) -> None:
    repository = defs.get_repository_def()
    known = {each.name for each in [*repository.schedule_defs, *repository.sensor_defs]}
    known |= {"later_lake", "later_reporting_api", "later_tables", "later_reporting_dagster"}
    assert set(re.findall(r"`(later_[a-z_]+)`", page.read_text())) <= known


def test_each_check_is_explained() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    checks = {**POSTS_CHECKS, **SETTLEMENT_CHECKS, **INSTANCES_CHECKS, **ROLLUP_CHECKS, **WINDOWS_CHECKS}
    assert all(f"`{name}`" in text for name in checks)


@cache
def texts() -> list[str]:
    """All texts in the package's code, and its SQL."""
    return [file.read_text() for file in PACKAGE.rglob("*.sql")] + [
        node.value
        for module in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_each_reason_that_is_quoted_is_one_that_the_code_gives() -> None:
    section = (
        (ROOT / "docs" / "operations.md").read_text().partition("## When an instance fails")[2].partition("\n## ")[0]
    )
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    said = [fragment for row in rows for fragment in re.findall(r"`([^`]+)`", row)]
    assert len(said) >= len(rows) > 10
    missing = [fragment for fragment in said if not any(fragment in text for text in texts())]
    assert not missing
