"""The component in a project of a user: the commands of docs/using.md, beside the user's own definitions."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake
from tests.docs.conftest import ROOT, section
from tests.e2e.dagster_dev import clean_environment
from tests.services import WAIT_SECONDS

pytestmark = pytest.mark.e2e

BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```$", section(ROOT / "docs" / "using.md", "In your Dagster project"), re.DOTALL | re.MULTILINE
)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines()]
# A resource, an executor and an automation sensor of the user, with names and targets that could collide.
OWN_DEFINITIONS = """
import dagster as dg


class Crm(dg.ConfigurableResource):
    url: str = "https://crm.example.com"


@dg.asset(automation_condition=dg.AutomationCondition.eager())
def customers(context: dg.AssetExecutionContext, later: Crm) -> str:
    return later.url


@dg.definitions
def defs() -> dg.Definitions:
    target = dg.AssetSelection.assets("customers")
    return dg.Definitions(
        assets=[customers],
        resources={"later": Crm()},
        executor=dg.multiprocess_executor.configured({"max_concurrent": 1}),
        jobs=[dg.define_asset_job("crm", selection="customers")],
        sensors=[dg.AutomationConditionSensorDefinition("crm_automation", target=target)],
    )
"""
DEMO_ATTRIBUTE = "    demo_mode: true\n"
INSPECT = """
from acme.definitions import defs

definitions = defs()
repository = definitions.get_repository_def()
graph = definitions.resolve_asset_graph()
sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
print(sorted(sensors))
print(sorted(key.to_user_string() for key in sensors["crm_automation"].asset_selection.resolve(graph)))
print("customers" in {key.to_user_string() for key in sensors["later_automation"].asset_selection.resolve(graph)})
print(repository.get_job("crm").executor_def.name, repository.get_job("later_posts").executor_def.name)
print(sorted(definitions.resources))
"""


class Acme:
    """A project made by `create-dagster project`, with the user's own definitions."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "acme"
        home = directory / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.environment = {
            **clean_environment(),
            "DAGSTER_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "VIRTUAL_ENV": sys.prefix,
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        self.run("create-dagster project acme --no-uv-sync", cwd=directory)
        own = self.root / "src" / "acme" / "defs" / "crm" / "crm.py"
        own.parent.mkdir()
        own.write_text(OWN_DEFINITIONS)

    def run(self, command: str, *, cwd: Path | None = None, exit_code: int = 0) -> str:
        """Run a shell command in the project, and return everything that it prints."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=cwd or self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_SECONDS,
        )
        assert done.returncode == exit_code, f"{command}: {done.stdout}"
        return done.stdout

    def defs_yaml(self, name: str) -> Path:
        return self.root / "src" / "acme" / "defs" / name / "defs.yaml"


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Acme:
    return Acme(tmp_path_factory.mktemp("own"))


def test_documented_commands_add_the_component(acme: Acme) -> None:
    assert "later_reporting_dagster.LaterReportingComponent" in acme.run("dg list components")
    scaffold, *others = COMMANDS
    acme.run(scaffold)
    defs_yaml = acme.defs_yaml("later")
    assert "{{ env.LATER_CLIENT_SECRET }}" in defs_yaml.read_text()
    # Without credentials, and into a lake of this test.
    lake = Lake(str(acme.root / "lake"))
    text = re.sub(r"lake_root: .*", f"lake_root: {lake.root}", defs_yaml.read_text())
    defs_yaml.write_text(text.rstrip() + "\n" + DEMO_ATTRIBUTE)
    acme.run("dg check yaml")
    printed = "".join(map(acme.run, others))
    assert "All definitions loaded successfully" in printed
    assert {str(partition.day) for partition in lake.partitions("posts_published")} == {
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
    }


def test_second_account_and_own_definitions_are_side_by_side(acme: Acme) -> None:
    acme.run(
        "dg scaffold defs later_reporting_dagster.LaterReportingComponent later_eu"
        " --json-params '{\"demo_mode\": true}'"
    )
    listed = acme.run("dg list defs --json")
    assert '"later_eu/posts_published"' in listed
    assert acme.run(f"python -c '{INSPECT}'").splitlines()[-5:] == [
        str(
            [
                *("crm_automation", "later_automation", "later_code_versions"),
                *("later_eu_automation", "later_eu_code_versions", "later_eu_instances", "later_instances"),
            ]
        ),
        "['customers']",
        "False",
        "multiprocess in_process",
        str(["later", "later_eu_lake", "later_eu_reporting", "later_lake", "later_reporting"]),
    ]
    assert "customers" in acme.run("dg launch --assets customers")
    error = acme.run("later-reporting instances", exit_code=1)
    assert error == "Error: acme.definitions has several components: choose one with --name, of later, later_eu\n"
    assert "instance_000" in acme.run("later-reporting -m acme.definitions --name later_eu instances")
