"""The files of deploy/ and for Dagster+ are valid, agree with each other and their page, and contain no secrets."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._cli.code_server import start_command
from dagster._cli.dev import dev_command
from dagster_cloud_cli.config.models import load_dagster_cloud_yaml
from dagster_dg_cli.cli.plus import plus_group
from dagster_dg_cli.cli.utils import create_temp_dagster_cloud_yaml_file
from dagster_dg_core.context import DgContext
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.composition import (
    DEPLOY,
    DOCKERFILE,
    copy_with_env_file,
    image_environment,
    image_instruction,
    resolved_compose_file,
)
from tests.docs.conftest import code_blocks
from tests.e2e.dagster_dev import REPOSITORY, clean_environment

COMPOSE_FILE = DEPLOY / "docker-compose.yaml"


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


def test_dockerfile_copies_existing_files_that_a_builder_receives() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    received = re.findall("^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(received) == sorted(copied)
    assert all((REPOSITORY / source).exists() for source in copied)


def test_image_checks_the_hashes_of_all_that_it_downloads() -> None:
    installed = re.findall(r"pip install ([^&\n]+)", DOCKERFILE.read_text())
    assert len(installed) == 2
    for arguments in installed:
        assert {"--require-hashes", "--no-deps"} & {*arguments.split()}
        assert ("--no-deps" in arguments) == ("--no-build-isolation" in arguments)


def test_requirements_of_the_image_have_the_pinned_versions_of_all_that_it_needs() -> None:
    locked, pinned = (
        {
            canonicalize_name(name): version
            for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.M)
        }
        for path in (DEPLOY / "requirements.txt", REPOSITORY / "constraints.txt")
    )
    assert locked.items() <= pinned.items()
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    needed = [*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"]]
    for extra in extras.keys() - {"bench", "lint", "polars", "test"}:
        needed += extras[extra]
    assert {Requirement(each).name for each in needed} <= locked.keys()


def test_image_runs_as_the_user_that_kubernetes_requires(deployment: Any) -> None:
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE.read_text(), re.MULTILINE)
    (created,) = re.findall(r"useradd --uid (\d+)", DOCKERFILE.read_text())
    assert user == created == str(deployment["podSecurityContext"]["runAsUser"]) != "0"


@pytest.mark.services
def test_image_has_the_folders_that_volumes_are_mounted_on(tmp_path: Path) -> None:
    compose = resolved_compose_file(copy_with_env_file(tmp_path, {"DAGSTER_PG_PASSWORD": "x"}))
    mounted = {
        volume["target"]
        for service in compose["services"].values()
        for volume in service["volumes"]
        if volume["type"] == "volume" and "build" in service
    }
    created = set(re.findall(r"(?:^|\s)(/\S+)", re.findall(r"install --directory.*?\n(.*)", DOCKERFILE.read_text())[0]))
    assert mounted <= created
    assert image_environment()["DAGSTER_HOME"] in created


@pytest.mark.services
def test_compose_file_is_rejected_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"DAGSTER_PG_PASSWORD is missing a value: set it in deploy/\.env"):
        resolved_compose_file(copy_with_env_file(tmp_path, {}))


def test_env_file_has_each_variable_of_the_compose_file_and_no_secret() -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text())) <= example.keys()
    assert not [name for name, value in example.items() if value and ("PASSWORD" in name or "CLIENT" in name)]
    ignored = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=REPOSITORY, capture_output=True, check=False)
    assert ignored.returncode == 0


@pytest.mark.services
def test_services_publish_nothing_but_the_ui_on_loopback(tmp_path: Path) -> None:
    compose = resolved_compose_file(copy_with_env_file(tmp_path, {"DAGSTER_PG_PASSWORD": "x"}))
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert [(port["host_ip"], port["target"]) for port in published] == [("127.0.0.1", 3000)]


def test_services_are_confined() -> None:
    for service in load(COMPOSE_FILE)["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "/tmp" in service["tmpfs"]
        assert "cap_add" not in service
        assert service["mem_limit"]


def test_helm_values_start_the_code_server_of_the_image(deployment: Any) -> None:
    # The chart adds host and port.
    arguments = ["--host", "0.0.0.0", "--port", str(deployment["port"]), *deployment["codeServerArgs"]]
    start_command.make_context("start", list(arguments))
    assert ["dagster", "code-server", "start", *arguments] == image_instruction("CMD")


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


# The commands of docs/deploying.md that need Docker, a cluster or Dagster+; test_composition.py runs the others.

PAGE = REPOSITORY / "docs" / "deploying.md"
COMMANDS = [shlex.split(line) for block in code_blocks(PAGE.read_text()) for line in block.splitlines()]


def commands(*beginning: str) -> list[list[str]]:
    """Return the commands of the page that begin with these words. There must be one."""
    found = [command for command in COMMANDS if command[: len(beginning)] == list(beginning)]
    assert found, beginning
    return found


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.docs
def test_helm_installs_the_pinned_version_with_the_values() -> None:
    (install,) = commands("helm", "upgrade")
    assert f"dagster=={option(install, '--version')}\n" in (REPOSITORY / "constraints.txt").read_text()
    assert REPOSITORY / option(install, "--values") == DEPLOY / "values.yaml"


@pytest.mark.docs
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


@pytest.mark.docs
def test_dg_plus_has_each_command_and_option() -> None:
    for words in commands("dg", "plus"):
        command, rest = plus_group, words[2:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("dg", list(rest), resilient_parsing=False, ignore_unknown_options=False)


@pytest.mark.docs
def test_systemd_unit_is_valid_and_starts_an_existing_command(tmp_path: Path) -> None:
    unit = (DEPLOY / "later-reporting.service").read_text()
    installed = "/opt/later-reporting/.venv/bin/dagster"
    file = tmp_path / "later-reporting.service"
    file.write_text(unit.replace(installed, str(Path(sys.executable).parent / "dagster")))
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    (command,) = re.findall(f"^ExecStart={installed} dev (.*)$", unit, re.MULTILINE)
    dev_command.make_context("dev", shlex.split(command))
