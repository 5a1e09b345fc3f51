"""The commands of docs/use.md in a project of a user, beside the user's own definitions, and in a clone."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake
from tests.docs.conftest import ROOT, Shell, code_blocks, section
from tests.e2e.dagster_dev import clean_environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # on a busy machine

BLOCKS = code_blocks(section(ROOT / "docs" / "use.md", "In your Dagster project"))
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
# With a resource and an executor of the user. tests/defs/test_definitions.py has what else could collide.
OWN_DEFINITIONS = """
import dagster as dg


class Crm(dg.ConfigurableResource):
    url: str = "https://crm.example.com"


@dg.asset
def customers(context: dg.AssetExecutionContext, later: Crm) -> str:
    return later.url


@dg.definitions
def defs() -> dg.Definitions:
    executor = dg.multiprocess_executor.configured({"max_concurrent": 1})
    return dg.Definitions(assets=[customers], resources={"later": Crm()}, executor=executor)
"""


def run(project: Shell, command: str) -> str:
    """Run a shell command that must succeed, and return everything that it prints."""
    return project.run_process("bash", "-c", f"{command} 2>&1")


@pytest.fixture
def acme(tmp_path: Path) -> Shell:
    """A project with the user's own definitions."""
    home, root = tmp_path / "home", tmp_path / "acme"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = clean_environment() | {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(root / "src"),
        "VIRTUAL_ENV": sys.prefix,
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    run(Shell(tmp_path, environment), "create-dagster project acme --no-uv-sync")
    own = root / "src" / "acme" / "defs" / "crm" / "crm.py"
    own.parent.mkdir()
    own.write_text(OWN_DEFINITIONS)
    return Shell(root, environment)


def test_dg_checks_the_definitions_of_a_clone(tmp_path: Path) -> None:
    no_settings = {**clean_environment(), "HOME": str(tmp_path), "COLUMNS": "300"}
    assert "All definitions loaded successfully" in run(Shell(ROOT, no_settings), "dg check defs")


def test_documented_commands_add_the_component_beside_others(acme: Shell) -> None:
    assert "later_reporting_dagster.LaterReportingComponent" in run(acme, "dg list components")
    scaffold, *others = COMMANDS
    run(acme, scaffold)
    defs_yaml = acme.directory / "src" / "acme" / "defs" / "later" / "defs.yaml"
    assert "{{ env.LATER_CLIENT_SECRET }}" in defs_yaml.read_text()
    variables = {"LATER_CLIENT_ID", "LATER_CLIENT_SECRET", "LATER_LAKE_ROOT"}
    assert {*re.findall(r"LATER_\w+", run(acme, "dg list envs"))} == variables
    run(acme, "dg check yaml --validate-requirements")
    # Without credentials, and into a lake of this test.
    lake = Lake(str(acme.directory / "lake"))
    shutil.rmtree(defs_yaml.parent)
    run(acme, f"{scaffold} --demo-mode true --lake-root {lake.root}")
    run(acme, "dg check yaml --validate-requirements")
    assert "All definitions loaded successfully" in "".join(run(acme, command) for command in others)
    assert len({partition.day for partition in lake.partitions("posts_published")}) == 30

    # A second account, and the definitions of the user
    component = "later_reporting_dagster.LaterReportingComponent"
    run(acme, f"dg scaffold defs {component} later_eu --demo-mode true")
    assert '"later_eu/posts_published"' in run(acme, "dg list defs --json")
    assert "customers" in run(acme, "dg launch --assets customers")
    error = run(acme, "! later-reporting instances")
    assert error == "Error: acme.definitions has several components: choose one with --name, of later, later_eu\n"
    assert "instance_000" in run(acme, "later-reporting -m acme.definitions --name later_eu instances")
