"""Private names of Dagster: loading the definitions needs one of them, and commands say so if another is gone."""

import subprocess
import sys

import click
import dagster as dg
import pytest

from later_reporting_dagster.defs.dagster_private import code_location_of

MODULES = (
    "dagster._core.remote_origin",
    "dagster._core.types.loadable_target_origin",
    "dagster._core.workspace.autodiscovery",
    "dagster._core.workspace.load_target",
)
LOAD = f"""
import dagster, sys
sys.modules |= dict.fromkeys({MODULES})
import later_reporting_dagster.definitions
"""


def test_definitions_load_without_the_private_names_that_only_commands_need() -> None:
    subprocess.run([sys.executable, "-c", LOAD], check=True)


@pytest.mark.parametrize("module", MODULES[:2])
def test_command_names_the_version_of_dagster_that_lacks_a_private_name(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(click.ClickException, match=f"does not work with dagster {dg.__version__}: .*{module}"):
        code_location_of("any")
