"""The services of deploy/docker-compose.yaml, run as processes: a backfill, automation, checks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from tests.deploy.composition import Composition, running_composition
from tests.deploy.test_files import commands
from tests.e2e.dagster_dev import DagsterDev, sandbox_environment
from tests.services import wait_until

pytestmark = pytest.mark.services

BACKFILL = """mutation ($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message stack }
  }
}"""
BACKFILL_STATUS = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status runs(limit: 10) { id status } }
  }
}"""


@dataclass(frozen=True)
class Deployment:
    composition: Composition
    dagster: DagsterDev


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """All services of the compose file over a sandbox, with nothing materialized yet."""
    directory = tmp_path_factory.mktemp("composition")
    with sandbox_environment(directory / "sandbox") as (service, environment):
        settings = {
            name: value
            for name, value in environment.items()
            if name.startswith("LATER_") and name != "LATER_LAKE_ROOT"
        }
        settings["DAGSTER_PG_PASSWORD"] = "postgres-password"
        with running_composition(directory, settings) as composition:
            url, variables = f"http://127.0.0.1:{composition.ports['3000']}", composition.environment("code-location")
            yield Deployment(composition, DagsterDev(url, variables, service))


@pytest.fixture(scope="module")
def backfilled(deployment: Deployment) -> Sequence[date]:
    """The first days, with both raw assets materialized by one backfill."""
    days, dagster = deployment.dagster.days[:5], deployment.dagster
    parameters = {
        "assetSelection": [{"path": ["later", asset]} for asset in ("post_metrics_daily", "posts_published")],
        "partitionNames": [str(day) for day in days],
    }
    launched = dagster.graphql(BACKFILL, parameters=parameters)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> Any:
        """Return the backfill once the daemon has carried it out."""
        current = dagster.graphql(BACKFILL_STATUS, id=launched["backfillId"])["partitionBackfillOrError"]
        return current["status"] not in ("REQUESTED", "CANCELING", "FAILING") and current

    assert [run["status"] for run in wait_until("the backfill ends", ended)["runs"]] == ["SUCCESS"]
    return days


def test_composition_gives_the_credentials_of_the_api_to_the_code_location_only(deployment: Deployment) -> None:
    secrets = {name for name in deployment.composition.environment("code-location") if name.startswith("LATER_CLIENT_")}
    assert secrets == {"LATER_CLIENT_ID", "LATER_CLIENT_SECRET"}
    for name in ("webserver", "daemon"):
        assert not [each for each in deployment.composition.environment(name) if each.startswith("LATER_")]


def test_composition_uses_postgres_a_queue_and_a_pool_limit(deployment: Deployment, backfilled: Sequence[date]) -> None:
    instance = deployment.dagster.graphql(
        """{
          instance {
            info
            runQueueConfig { maxConcurrentRuns }
            poolConfig { defaultPoolLimit poolGranularity }
            concurrencyLimits { concurrencyKey limit }
          }
        }"""
    )["instance"]

    assert "sqlite" not in instance["info"].lower()
    assert instance["runQueueConfig"] == {"maxConcurrentRuns": 4}
    assert instance["poolConfig"] == {"defaultPoolLimit": 2, "poolGranularity": "run"}
    assert [each["limit"] for each in instance["concurrencyLimits"] if each["concurrencyKey"].endswith("_api")] == [2]


def test_composition_rolls_up_a_backfill_and_evaluates_its_checks(
    deployment: Deployment, backfilled: Sequence[date]
) -> None:
    def are_rolled_up() -> bool:
        assets, days = deployment.dagster.assets(), {str(day) for day in backfilled}
        return all(
            days <= {event["partition"] for event in assets[rollup]["assetMaterializations"]}
            for rollup in ("organic_paid_daily", "organic_paid_daily_by_campaign")
        )

    def checks_succeeded() -> bool:
        executions = {
            (asset, check["name"]): check["executionForLatestMaterialization"] or {}
            for asset, node in deployment.dagster.assets().items()
            for check in node["assetChecksOrError"].get("checks", [])
        }
        names = (("post_metrics_daily", "rows_unique_by_key"), ("organic_paid_daily", "is_current"))
        return all(executions[name].get("status") == "SUCCEEDED" for name in names)

    wait_until("the rollups follow", are_rolled_up)
    wait_until("the checks have succeeded", checks_succeeded)


def test_services_write_only_to_their_volumes(deployment: Deployment, backfilled: Sequence[date]) -> None:
    """The file systems of the containers are read-only."""
    composition = deployment.composition
    mounted = {volume["target"] for service in composition.services.values() for volume in service["volumes"]}
    outside = [
        path
        for path in composition.root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(f"{composition.root}{target}") for target in mounted)
    ]
    assert sorted(outside) == sorted(composition.log(name) for name in composition.processes)


def test_composition_runs_the_commands_of_the_page(deployment: Deployment) -> None:
    for words in commands("docker", "compose"):
        if "exec" in words:
            service, *command = words[words.index("exec") + 1 :]
            done = deployment.composition.run(service, *command)
            assert done.returncode == 0, done.stdout + done.stderr
