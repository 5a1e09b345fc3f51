"""The component in a project of a user: the commands of docs/using.md, beside the user's own definitions."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake
from tests.docs.conftest import ROOT, section
from tests.e2e.dagster_dev import clean_environment
from tests.services import WAIT_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # on a busy machine

BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```$", section(ROOT / "docs" / "using.md", "In your Dagster project"), re.DOTALL | re.MULTILINE
)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines()]
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


@dataclass(frozen=True)
class Project:
    """A project that `create-dagster project` makes."""

    root: Path
    environment: Mapping[str, str]

    def run(self, command: str, *, exit_code: int = 0) -> str:
        """Run a shell command in the project, and return everything that it prints."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_SECONDS,
        )
        assert done.returncode == exit_code, f"{command}: {done.stdout}"
        return done.stdout


@pytest.fixture
def acme(tmp_path: Path) -> Project:
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
    Project(tmp_path, environment).run("create-dagster project acme --no-uv-sync")
    own = root / "src" / "acme" / "defs" / "crm" / "crm.py"
    own.parent.mkdir()
    own.write_text(OWN_DEFINITIONS)
    return Project(root, environment)


def test_documented_commands_add_the_component_beside_others(acme: Project) -> None:
    assert "later_reporting_dagster.LaterReportingComponent" in acme.run("dg list components")
    scaffold, *others = COMMANDS
    acme.run(scaffold)
    defs_yaml = acme.root / "src" / "acme" / "defs" / "later" / "defs.yaml"
    assert "{{ env.LATER_CLIENT_SECRET }}" in defs_yaml.read_text()
    # Without credentials, and into a lake of this test.
    lake = Lake(str(acme.root / "lake"))
    text = re.sub(r"lake_root: .*", f"lake_root: {lake.root}", defs_yaml.read_text())
    defs_yaml.write_text(f"{text.rstrip()}\n    demo_mode: true\n")
    acme.run("dg check yaml")
    assert "All definitions loaded successfully" in "".join(map(acme.run, others))
    days = {str(partition.day) for partition in lake.partitions("posts_published")}
    assert days == {"2024-01-01", "2024-01-02", "2024-01-03"}

    # A second account, and the definitions of the user
    component = "later_reporting_dagster.LaterReportingComponent"
    acme.run(f"dg scaffold defs {component} later_eu --json-params '{{\"demo_mode\": true}}'")
    assert '"later_eu/posts_published"' in acme.run("dg list defs --json")
    assert "customers" in acme.run("dg launch --assets customers")
    error = acme.run("later-reporting instances", exit_code=1)
    assert error == "Error: acme.definitions has several components: choose one with --name, of later, later_eu\n"
    assert "instance_000" in acme.run("later-reporting -m acme.definitions --name later_eu instances")
