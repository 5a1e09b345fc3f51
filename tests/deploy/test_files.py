"""The programs that read the files of deploy/ and for Dagster+ accept them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster_cloud_cli.config.models import load_dagster_cloud_yaml
from dagster_dg_cli.cli.plus import plus_group
from dagster_dg_cli.cli.utils import create_temp_dagster_cloud_yaml_file
from dagster_dg_core.context import DgContext
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client

from tests.deploy.composition import DEPLOY, DOCKERFILE, copy_with_env_file, resolved_compose_file
from tests.docs.conftest import code_blocks
from tests.e2e.dagster_dev import REPOSITORY, clean_environment


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def values() -> Any:
    return load(DEPLOY / "values.yaml")


@pytest.fixture(scope="module")
def deployment(values: Any) -> Any:
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    return deployment


def test_dockerfile_passes_the_linter() -> None:
    linted = subprocess.run(["hadolint", str(DOCKERFILE)], env=clean_environment(), capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_images_and_actions_of_others_are_pinned_by_digest() -> None:
    workflows = sorted((REPOSITORY / ".github" / "workflows").iterdir())
    lines = [
        line.split()
        for path in (DOCKERFILE, DEPLOY / "docker-compose.yaml", *workflows)
        for line in path.read_text().splitlines()
    ]
    named = [words[words.index(key) + 1] for words in lines for key in ("FROM", "image:", "uses:") if key in words]
    digest = re.compile(r"[a-z0-9./:-]+@(sha256:[0-9a-f]{64}|[0-9a-f]{40})")
    assert len(named) == 8
    assert [name for name in named if not digest.fullmatch(name)] == ["later-reporting-dagster"]  # its own


@pytest.mark.services
def test_compose_file_is_rejected_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"DAGSTER_PG_PASSWORD is missing a value: set it in deploy/\.env"):
        resolved_compose_file(copy_with_env_file(tmp_path, {}))


def test_helm_values_for_pods_are_those_of_kubernetes(values: Any, deployment: Any) -> None:
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    for model, written in (
        (client.V1PodSecurityContext, deployment["podSecurityContext"]),
        (client.V1SecurityContext, deployment["securityContext"]),
        (client.V1ResourceRequirements, deployment["resources"]),
        (client.V1ResourceRequirements, launcher["resources"]),
        (client.V1JobSpec, launcher["runK8sConfig"]["jobSpecConfig"]),
        *((client.V1SecretEnvSource, secret) for secret in deployment["envSecrets"]),
    ):
        # A job needs a template, which Dagster adds.
        required = {"template": {}} if model is client.V1JobSpec else {}
        k8s_model_from_dict(model, k8s_snake_case_dict(model, {**written, **required}))


def test_pods_of_runs_have_the_security_contexts_of_the_code_server(values: Any, deployment: Any) -> None:
    run = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    contexts = deployment["podSecurityContext"], deployment["securityContext"]
    assert (run["podSpecConfig"]["securityContext"], run["containerConfig"]["securityContext"]) == contexts
    (location,) = load(REPOSITORY / "dagster_cloud.yaml")["locations"]
    kubernetes = location["container_context"]["k8s"]
    server, run = (kubernetes[f"{name}_k8s_config"] for name in ("server", "run"))
    for kind in ("pod_spec_config", "container_config"):
        assert server[kind]["security_context"] == run[kind]["security_context"]


def test_dagster_plus_accepts_its_files_and_generates_the_same(tmp_path: Path) -> None:
    written = REPOSITORY / "dagster_cloud.yaml"
    load_dagster_cloud_yaml(written.read_text())
    context = DgContext.for_project_environment(REPOSITORY, {})

    generated = load(Path(create_temp_dagster_cloud_yaml_file(context, str(tmp_path))))

    (location,) = generated["locations"]
    assert location["build"].pop("directory") == str(REPOSITORY)
    location["build"]["directory"] = "."
    assert generated == load(written)
    K8sContainerContext.create_from_config(location["container_context"])


# The commands of docs/deploy.md: test_composition.py runs those of the composition.

PAGE = REPOSITORY / "docs" / "deploy.md"
COMMANDS = [shlex.split(line) for block in code_blocks(PAGE.read_text()) for line in block.splitlines()]


def commands(*beginning: str) -> list[list[str]]:
    """Return the commands of the page that begin with these words. There must be one."""
    found = [command for command in COMMANDS if command[: len(beginning)] == list(beginning)]
    assert found, beginning
    return found


@pytest.mark.docs
def test_dg_plus_has_each_command_and_option() -> None:
    for words in commands("dg", "plus"):
        command, rest = plus_group, words[2:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("dg", list(rest), resilient_parsing=False, ignore_unknown_options=False)


@pytest.mark.docs
def test_systemd_unit_is_valid(tmp_path: Path) -> None:
    unit = (DEPLOY / "later-reporting.service").read_text()
    installed = "/opt/later-reporting/.venv/bin/dagster"
    file = tmp_path / "later-reporting.service"
    file.write_text(unit.replace(installed, str(Path(sys.executable).parent / "dagster")))
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
