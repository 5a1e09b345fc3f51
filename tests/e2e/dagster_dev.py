"""Run Dagster with its UI, with or without a daemon, over a sandbox that is served over real HTTP."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from later_reporting_dagster.cli.demo import DAGSTER_YAML
from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_server, two_years_before
from tests.conftest import Service
from tests.defs.conftest import reject_instance
from tests.services import WAIT_SECONDS, free_port

REPOSITORY = Path(__file__).parents[2]
DAYS = 12
INSTANCES = ("instance_000", "instance_001", "instance_002", "instance_003")
# The API lists it. After `DagsterDev.reject`, it responds with 403 to every query that names it.
REJECTED_INSTANCE = INSTANCES[-1]

WITHOUT_DAEMON = """\
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
nux: {enabled: false}
"""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class DagsterDev:
    """A running Dagster."""

    url: str
    environment: Mapping[str, str]
    days: tuple[date, ...]
    service: Service

    def reject(self, *, rejected: bool) -> None:
        """Make the API reject `REJECTED_INSTANCE` from now on, or accept it again."""
        self.service.override = reject_instance(REJECTED_INSTANCE) if rejected else lambda request: None

    def files(self, asset: str) -> list[Path]:
        """Return the files of an asset in the lake, in the order of their partitions."""
        return sorted((Path(self.environment["LATER_LAKE_ROOT"]) / asset).rglob("*.parquet"))

    def graphql(self, query: str, **variables: Any) -> Any:
        """Run a GraphQL query, and return the `data` of its response."""
        payload = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/graphql", data=payload, headers={"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:  # noqa: S310
                body = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        if "errors" in body:
            raise AssertionError(body["errors"])
        return body["data"]


def wait_until(description: str, condition: Callable[[], _Result | None]) -> _Result:
    """Poll `condition` until it returns a true value, and return that."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_SECONDS} s: {description}")
        time.sleep(0.2)
    return result


def run(*command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in the folder of the repository, and capture its output as text."""
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )


@contextmanager
def sandbox_environment(directory: Path) -> Iterator[tuple[Service, dict[str, str]]]:
    """Serve a sandbox while the block runs; yield it, and the environment of a user whose settings select it.

    The environment holds no settings of the caller. `DAGSTER_HOME` is a folder with a `dagster.yaml`.
    """
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    options = SandboxOptions(requests_per_window=1_000_000)
    home = directory / "dagster-home"
    home.mkdir(parents=True)
    shutil.copyfile(DAGSTER_YAML, home / "dagster.yaml")
    world = World(first_day=two_years_before(yesterday), last_day=yesterday, instances=len(INSTANCES), posts_per_day=5)
    service = Service(app=create_app(world, options=options))
    with running_server(service) as base_url:
        yield (
            service,
            clean_environment()
            | {
                "DAGSTER_HOME": str(home),
                "LATER_BASE_URL": base_url,
                "LATER_CLIENT_ID": options.client_id,
                "LATER_CLIENT_SECRET": options.client_secret,
                "LATER_LAKE_ROOT": str(directory / "lake"),
                "LATER_REQUESTS_PER_MINUTE": "1000000",
                "LATER_START_DATE": str(yesterday - timedelta(days=DAYS - 1)),
                "XDG_CACHE_HOME": str(directory / "cache"),
            },
        )


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of this project or of Dagster, and with this Python first in PATH."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LATER_", "DAGSTER_", "PYTEST_", "PYTHONWARNINGS"))
    }
    return variables | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"}


@contextmanager
def dagster_dev(directory: Path, *, tables: str) -> Iterator[DagsterDev]:
    """Run `dagster dev` with these assets while the block runs, with an empty `DAGSTER_HOME` and lake."""
    with (
        sandbox_environment(directory) as (service, environment),
        _running_dagster(["dagster", "dev"], directory, service, environment | {"LATER_TABLES": tables}) as dagster,
    ):
        wait_until("the daemon is healthy", lambda: _daemon_is_healthy(dagster))
        yield dagster


@contextmanager
def dagster_webserver(directory: Path) -> Iterator[DagsterDev]:
    """Run Dagster's web server while the block runs, with an empty `DAGSTER_HOME` and lake.

    Without a daemon: runs are launched at once, and there are no backfills, schedules or sensors.
    """
    with sandbox_environment(directory) as (service, environment):
        Path(environment["DAGSTER_HOME"], "dagster.yaml").write_text(WITHOUT_DAEMON)
        with _running_dagster(["dagster-webserver"], directory, service, environment) as dagster:
            yield dagster


@contextmanager
def _running_dagster(
    command: list[str], directory: Path, service: Service, environment: Mapping[str, str]
) -> Iterator[DagsterDev]:
    """Run a command that serves the UI with the definitions while the block runs, from when it has loaded them."""
    port = free_port()
    first_day = date.fromisoformat(environment["LATER_START_DATE"])
    dagster = DagsterDev(
        url=f"http://127.0.0.1:{port}",
        environment=environment,
        days=tuple(first_day + timedelta(days=number) for number in range(DAYS)),
        service=service,
    )
    command = [*command, "-m", "later_reporting_dagster.definitions", "-h", "127.0.0.1", "-p", str(port)]
    with (directory / "dagster.log").open("wb") as log, _process_group(command, environment, log) as process:
        wait_until("Dagster responds", lambda: _responds(dagster, process))
        yield dagster


@contextmanager
def _process_group(command: list[str], environment: Mapping[str, str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command while the block runs, and then end it with all processes that it started."""
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill_group(process.pid)
            process.wait()


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _responds(dagster: DagsterDev, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"Dagster exited with {process.returncode}: see its log")
    try:
        data = dagster.graphql("{ repositoriesOrError { __typename } }")
    except (urllib.error.URLError, ConnectionError, TimeoutError, AssertionError):
        return False
    return bool(data["repositoriesOrError"]["__typename"] == "RepositoryConnection")


def _daemon_is_healthy(dagster: DagsterDev) -> bool:
    data = dagster.graphql("{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }")
    return all(
        daemon["healthy"] for daemon in data["instance"]["daemonHealth"]["allDaemonStatuses"] if daemon["required"]
    )
