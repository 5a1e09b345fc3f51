"""Run Dagster with its UI, with or without a daemon, over a sandbox that is served over real HTTP."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from later_reporting_dagster.cli.demo import DAGSTER_YAML
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.server.sandbox import World, create_app, running_server, two_years_before
from tests.conftest import NO_RATE_LIMIT, Service, sandbox_settings
from tests.services import WAIT_SECONDS, free_port, wait_until

DEFINITIONS = "later_reporting_dagster.definitions"
REPOSITORY = Path(__file__).parents[2]
DAYS = 12
INSTANCES = ("instance_000", "instance_001", "instance_002", "instance_003")

ASSETS = """{ assetNodes {
  assetKey { path }
  assetMaterializations { runId partition }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
} }"""
WITHOUT_DAEMON = """\
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
nux: {enabled: false}
"""
BACKFILL = """mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) { ... on LaunchBackfillSuccess { backfillId } }
}"""
LAUNCH = """mutation ($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) { ... on LaunchRunSuccess { run { id } } }
}"""


@dataclass(frozen=True, slots=True)
class DagsterDev:
    """A running Dagster."""

    url: str
    environment: Mapping[str, str]
    service: Service
    module: str = DEFINITIONS

    @property
    def days(self) -> list[date]:
        first = date.fromisoformat(self.environment["LATER_START_DATE"])
        return [first + timedelta(days=number) for number in range(DAYS)]

    def files(self, asset: str) -> list[Path]:
        """Return the files of an asset in the lake, in the order of their partitions."""
        return sorted((Path(self.environment["LATER_LAKE_ROOT"]) / asset).rglob("*.parquet"))

    def assets(self) -> dict[str, Any]:
        """Return the materializations, newest first, and the checks of each asset, by name."""
        return {node["assetKey"]["path"][-1]: node for node in self.graphql(ASSETS)["assetNodes"]}

    def launch(self, *assets: str, days: Sequence[date], checks: Sequence[tuple[str, str]] = ()) -> str:
        """Start a run that fetches these days, and return its id. The UI would ask the daemon for a backfill.

        Without days, it evaluates `checks` alone, each given by asset and name, as *Execute* of the UI does.
        """
        selector = {
            "repositoryLocationName": self.module,
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["later", asset]} for asset in assets],
            "assetCheckSelection": [{"assetKey": {"path": ["later", asset]}, "name": name} for asset, name in checks],
        }
        tags = [{"key": key, "value": value} for key, value in (range_tags(days[0], days[-1]) if days else {}).items()]
        parameters = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        return str(self.graphql(LAUNCH, parameters=parameters)["launchPipelineExecution"]["run"]["id"])

    def backfill(self, *assets: str, days: Sequence[date] | None = None) -> None:
        """Start a backfill of these days, or of all partitions, as the UI does."""
        backfill = {"assetSelection": [{"path": ["later", asset]} for asset in assets], "allPartitions": days is None}
        partitions = {} if days is None else {"partitionNames": [*map(str, days)]}
        launched = self.graphql(BACKFILL, backfill=backfill | partitions)
        assert "backfillId" in launched["launchPartitionBackfill"], launched

    def graphql(self, query: str, **variables: Any) -> Any:
        """Run a GraphQL query, and return the `data` of its response."""
        payload = {"query": query, "variables": variables}
        response = httpx.post(f"{self.url}/graphql", json=payload, timeout=WAIT_SECONDS)
        assert response.is_success, response.text
        assert "errors" not in response.json(), response.text
        return response.json()["data"]


@contextmanager
def sandbox_environment(directory: Path) -> Iterator[tuple[Service, dict[str, str]]]:
    """Serve a sandbox while the block runs; yield it, and the environment of a user whose settings select it.

    The environment holds no settings of the caller. `DAGSTER_HOME` is a folder with a `dagster.yaml`.
    """
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    home = directory / "dagster-home"
    home.mkdir(parents=True)
    shutil.copyfile(DAGSTER_YAML, home / "dagster.yaml")
    world = World(first_day=two_years_before(yesterday), last_day=yesterday, instances=len(INSTANCES), posts_per_day=5)
    service = Service(app=create_app(world, options=NO_RATE_LIMIT))
    with running_server(service) as base_url:
        environment = {
            **clean_environment(),
            **sandbox_settings(base_url, lake_root=str(directory / "lake")),
            "DAGSTER_HOME": str(home),
            "LATER_START_DATE": str(yesterday - timedelta(days=DAYS - 1)),
            "XDG_CACHE_HOME": str(directory / "cache"),
        }
        yield service, environment


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of this project or of Dagster, and with this Python first in PATH."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LATER_", "DAGSTER_", "PYTEST_", "PYTHONWARNINGS"))
    }
    return variables | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"}


@contextmanager
def running_dagster(
    directory: Path,
    *command: str,
    module: str = DEFINITIONS,
    dagster_yaml: str = WITHOUT_DAEMON,
    variables: Mapping[str, str] | None = None,
) -> Iterator[DagsterDev]:
    """Run Dagster's web server, or a command that starts it, with an empty `DAGSTER_HOME` and lake.

    Without a daemon: runs are launched at once, and there are no backfills, schedules or sensors.
    """
    with sandbox_environment(directory) as (service, environment):
        Path(environment["DAGSTER_HOME"], "dagster.yaml").write_text(dagster_yaml)
        environment |= variables or {}
        port = free_port()
        dagster = DagsterDev(f"http://127.0.0.1:{port}", environment, service, module)
        arguments = [*(command or ("dagster-webserver",)), "-m", module, "-h", "127.0.0.1", "-p", str(port)]
        with running_process(arguments, environment, log=directory / "dagster.log") as process:
            wait_until("Dagster responds", lambda: _responds(dagster, process))
            yield dagster


@contextmanager
def running_process(
    command: Sequence[str], environment: Mapping[str, str], *, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of Dagster while the block runs, and end the processes that it has started."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        kill_group(process.pid)
        process.wait()


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _responds(dagster: DagsterDev, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"Dagster exited with {process.returncode}: see its log"
    try:
        data = dagster.graphql("{ repositoriesOrError { __typename } }")
    except (httpx.TransportError, AssertionError):
        return False
    return bool(data["repositoriesOrError"]["__typename"] == "RepositoryConnection")


def daemon_is_healthy(dagster: DagsterDev) -> bool:
    data = dagster.graphql("{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }")
    return all(
        daemon["healthy"] for daemon in data["instance"]["daemonHealth"]["allDaemonStatuses"] if daemon["required"]
    )
