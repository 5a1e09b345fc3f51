"""The commands of docs/deploying.md that need Docker, a cluster or Dagster+ name what exists.

`test_composition.py` runs those that are run inside of a container.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster._cli.dev import dev_command
from dagster_dg_cli.cli.plus import plus_group

from tests.deploy.composition import DEPLOY
from tests.e2e.dagster_dev import REPOSITORY

pytestmark = pytest.mark.docs

PAGE = REPOSITORY / "docs" / "deploying.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
COMMANDS = [shlex.split(line) for language, block in BLOCKS if not language for line in block.splitlines()]


def commands(*beginning: str) -> list[list[str]]:
    """Return the commands of the page that begin with these words. There must be one."""
    found = [command for command in COMMANDS if command[: len(beginning)] == list(beginning)]
    assert found, beginning
    return found


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_helm_installs_the_pinned_version_with_the_values() -> None:
    (install,) = commands("helm", "upgrade")
    assert f"dagster=={option(install, '--version')}\n" in (REPOSITORY / "constraints.txt").read_text()
    assert REPOSITORY / option(install, "--values") == DEPLOY / "values.yaml"


def test_kubectl_creates_the_secrets_that_the_values_name() -> None:
    created = {
        command[6]: set(re.findall(r"--from-literal=([\w-]+)", " ".join(command)))
        for command in commands("kubectl", "--namespace", "dagster", "create", "secret", "generic")
    }
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert created == {
        values["global"]["postgresqlSecretName"]: {"postgresql-password"},
        deployment["envSecrets"][0]["name"]: {"LATER_CLIENT_ID", "LATER_CLIENT_SECRET"},
    }


def test_dg_plus_has_each_command_and_option() -> None:
    for words in commands("dg", "plus"):
        command, rest = plus_group, words[2:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("dg", list(rest), resilient_parsing=False, ignore_unknown_options=False)


def test_systemd_unit_is_valid_and_starts_an_existing_command(tmp_path: Path) -> None:
    unit = (DEPLOY / "later-reporting.service").read_text()
    installed = "/opt/later-reporting/.venv/bin/dagster"
    file = tmp_path / "later-reporting.service"
    file.write_text(unit.replace(installed, str(Path(sys.executable).parent / "dagster")))
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    (command,) = re.findall(f"^ExecStart={installed} dev (.*)$", unit, re.MULTILINE)
    dev_command.make_context("dev", shlex.split(command))
