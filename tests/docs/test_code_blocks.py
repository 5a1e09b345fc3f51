"""The code in docs/ and README.md runs as it is printed: shell commands, Python and YAML."""

import re
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.component_base import ASSET_NAMES
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.server.sandbox import World, create_app, running_server, two_years_before
from tests.conftest import NO_RATE_LIMIT, sandbox_settings
from tests.docs.conftest import (
    DOCS_PAGES,
    MISSING_PARTITION,
    ROOT,
    SHRUNK_PARTITION,
    START,
    Shell,
    code_blocks,
    split_commands,
)

pytestmark = pytest.mark.docs

OWN_TEST = ("serving.md", "start.md")  # test_serving.py, and test_commands_of_the_start_run
# Runs each block as a module of its own, so that one does not depend on the imports of another.
RUN_BLOCKS = """
import sys
for number, block in enumerate(sys.stdin.read().split("\\0"), start=1):
    print(f"block {number}", file=sys.stderr)
    exec(compile(block, f"block {number}", "exec"), {"__name__": f"block_{number}"})
"""


def pages_with(language: str) -> pytest.MarkDecorator:
    """Parametrize a test by the pages that have blocks of a language, but for those that have a test of their own."""
    pages = [page for page in DOCS_PAGES if page.name not in OWN_TEST and code_blocks(page.read_text(), language)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@pages_with("sh")
def test_shell_commands_succeed(page: Path, shell: Shell) -> None:
    before = shell.lake.read_metadata("posts_published", SHRUNK_PARTITION)
    commands = [command for block in code_blocks(page.read_text(), "sh") for command in split_commands(block)]
    printed = "".join(map(shell.run, commands))
    assert "\nFAIL" not in printed
    if page.name == "daily.md":
        assert "2024-01-31 instance_000  1  impressions must not be negative" in printed
        assert shell.lake.read_metadata("posts_published", SHRUNK_PARTITION) != before
        assert Path(shell.lake.url("posts_published", MISSING_PARTITION)).exists()


def test_commands_of_the_start_run(shell: Shell, tmp_path: Path) -> None:
    """All but the installation, the settings, which are those of a sandbox, and the UI, which does not end."""
    block = "".join(code_blocks(START.read_text(), "sh"))
    own = {"DAGSTER_HOME": str(tmp_path / "dagster"), "LATER_LAKE_ROOT": str(tmp_path / "lake")}
    skipped = ("python3 -m venv", ".venv/bin/pip", "source .venv", "export LATER_CLIENT", "dagster dev")
    skipped += tuple(f"export {name}" for name in own)
    script = "\n".join(line for line in block.splitlines() if not line.startswith(skipped))
    today = datetime.now(UTC).date()
    world = World(first_day=two_years_before(today), last_day=today, instances=2, posts_per_day=10)
    with running_server(create_app(world, options=NO_RATE_LIMIT)) as base_url:
        environment = {**shell.environment, **sandbox_settings(base_url, lake_root=""), **own}
        user = replace(shell, directory=ROOT, environment=environment)
        printed = user.run_process("bash", "-ec", script)
        assert "\nFAIL" not in printed
        # Without a warning, and without a check that failed.
        assert re.search(r"^\d+ checks passed\.$", printed, re.MULTILINE), printed
        year, month = divmod(today.year * 12 + today.month - 1 - 3, 12)  # the month three months ago
        days = today - date(year, month + 1, 1)
        assert len(user.lake.partitions("posts_published")) == days.days * 2
        counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in ASSET_NAMES if name != REPORT)
        rows = user.run_process("later-reporting", "query", "--format", "csv", counts)
        assert [line for line in rows.splitlines() if line.endswith(",0")] == []


@pages_with("python")
def test_python_programs_run(page: Path, shell: Shell) -> None:
    programs = "\0".join(code_blocks(page.read_text(), "python"))
    shell.run_process(sys.executable, "-W", "ignore", "-c", RUN_BLOCKS, stdin=programs)


def open_lake(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the lake of an object store, which needs no network, with the fields of the resource in a YAML block."""
    for name in re.findall(r"\{\{ env\.(\w+) \}\}", block):
        monkeypatch.setenv(name, "00000000")
    later = LaterReportingResource.resolve_from_dict(yaml.safe_load(block)).resolved()
    assert later.lake().root == later.lake_root


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")  # Dagster calls it when it reads YAML
@pages_with("yaml")
def test_yaml_is_valid_as_component_or_resource(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in code_blocks(page.read_text(), "yaml"):
        if block.startswith("lake_root:"):
            open_lake(block, monkeypatch)
        else:
            LaterReportingComponent.resolve_from_dict(yaml.safe_load(block)["attributes"]).build_definitions()
