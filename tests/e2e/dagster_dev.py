"""A real Dagster for the browser: `dagster dev` with its daemon, over a sandbox that is served over real HTTP."""

import json
import os
import signal
import socket
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
from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_sandbox, two_years_before
from tests.conftest import Service
from tests.defs.conftest import without

REPOSITORY = Path(__file__).parents[2]
DAYS = 10
INSTANCES = ("instance_000", "instance_001", "instance_002", "instance_003")
# Listed, but refused while `DagsterDev.refuse` says so: the API responds with 403 to whatever names it.
REFUSED_INSTANCE = INSTANCES[-1]

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class DagsterDev:
    """A Dagster that runs: where its UI is, the settings of its user, its partitions, and the API behind it."""

    url: str
    environment: Mapping[str, str]
    days: tuple[date, ...]
    service: Service

    def refuse(self, *, refused: bool) -> None:
        """Have the API refuse `REFUSED_INSTANCE` from now on, or have it respond again."""
        self.service.instead = without(REFUSED_INSTANCE) if refused else lambda request: None

    def files(self, asset: str) -> list[Path]:
        """The files of an asset in the lake, in the order of their partitions."""
        return sorted((Path(self.environment["LATER_LAKE_ROOT"]) / asset).rglob("*.parquet"))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, as the user of this Dagster types it."""
        return run(*command, environment=self.environment)

    def ask(self, query: str, **variables: Any) -> Any:
        """The data that GraphQL answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/graphql", data=body, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            answered = json.load(answer)
        if "errors" in answered:
            raise AssertionError(answered["errors"])
        return answered["data"]


def until(what: str, condition: Callable[[], _Found | None], *, seconds: float = 60) -> _Found:
    """Asks `condition` until it finds something, and gives that; fails with `what` when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)
    return found


def run(*command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of this Python's in the folder of the repository, to its end; its output is text."""
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@contextmanager
def sandbox_environment(directory: Path) -> Iterator[tuple[Service, dict[str, str]]]:
    """Serve a sandbox while the block runs; yield it, and the environment of a user whose settings point at it.

    The environment holds no setting of whoever runs the tests. `DAGSTER_HOME` is a folder with a `dagster.yaml`.
    """
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    options = SandboxOptions(requests_per_window=1_000_000)
    home = directory / "dagster-home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    world = World(first_day=two_years_before(yesterday), last_day=yesterday, instances=len(INSTANCES), posts_per_day=5)
    service = Service(app=create_app(world, options=options))
    with running_sandbox(service) as base_url:
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
    """The environment less what is a setting of this project or of Dagster, with this Python's commands first."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LATER_", "DAGSTER_", "PYTEST_", "PYTHONWARNINGS"))
    }
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


@contextmanager
def dagster_dev(directory: Path) -> Iterator[DagsterDev]:
    """Run `dagster dev` while the block runs, on an empty home and lake."""
    with sandbox_environment(directory) as (service, environment):
        port = _free_port()
        command = ["dagster", "dev", "-m", "later_reporting_dagster.definitions", "-h", "127.0.0.1", "-p", str(port)]
        first_day = date.fromisoformat(environment["LATER_START_DATE"])
        dagster = DagsterDev(
            url=f"http://127.0.0.1:{port}",
            environment=environment,
            days=tuple(first_day + timedelta(days=number) for number in range(DAYS)),
            service=service,
        )
        with (directory / "dagster-dev.log").open("wb") as log, _process_group(command, environment, log) as process:
            until("Dagster answers and its daemon is healthy", lambda: _is_healthy(dagster, process), seconds=90)
            yield dagster


@contextmanager
def _process_group(command: list[str], environment: Mapping[str, str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command, and ends it with all the processes that it started."""
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
            _kill_group(process.pid)
            process.wait()


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _is_healthy(dagster: DagsterDev, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"dagster dev ended with {process.returncode}: see its log")
    try:
        data = dagster.ask(
            """{
              instance { daemonHealth { allDaemonStatuses { required healthy } } }
              repositoriesOrError { __typename }
            }"""
        )
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    return data["repositoriesOrError"]["__typename"] == "RepositoryConnection" and all(
        daemon["healthy"] for daemon in daemons if daemon["required"]
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
