"""The whole project against the sandbox: its definitions, a Dagster instance, and a lake on disk."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus, ExecuteInProcessResult
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage import event_log, runs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.rollups.rollup_tables import SINGLE_TABLES, TABLES, Cadence
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Service, parameters, problem, sandbox_settings

# Fewer days than the sandbox has, because Dagster's events are slow.
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(3)]
RAW_ASSETS = ("post_metrics_daily", "posts_published")
ROLLUPS = ("organic_paid_daily", "organic_paid_daily_by_campaign")
PERIOD_ROLLUPS = ("organic_paid_weekly", "organic_paid_monthly")
WINDOWS = tuple(table.name for table in SINGLE_TABLES)
INSTANCES_PATH = "/v2/instances"
QUIET_LOGGING = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

each_raw_asset = pytest.mark.parametrize("asset", RAW_ASSETS)


def freeze_clock(monkeypatch: pytest.MonkeyPatch, instant: datetime, *modules: str) -> None:
    """Stop the clock of the component, which decides which days exist and are due, and that of other modules.

    Dagster's own clock keeps running.
    """
    for module in ("defs.component_base", *modules):
        monkeypatch.setattr(f"later_reporting_dagster.{module}.utc_now", lambda: instant)


def fetched(at: datetime | None = None) -> dict[str, str]:
    """Return the metadata of a file that was fetched at a time, by default now."""
    return {"fetched_at": (at or datetime.now(UTC)).isoformat(timespec="milliseconds")}


def asset_key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(["later", asset])


def reject_instance(instance_id: str) -> Callable[[Request], Response | None]:
    """Return a response override that rejects requests for an instance."""
    return lambda request: problem(403) if instance_id in parameters(request).get("instanceIds", []) else None


def list_instances(*instance_ids: str) -> Callable[[Request], Response | None]:
    page = {"page": 1, "pageSize": 100, "totalItems": len(instance_ids), "totalPages": 1}
    body = {"data": {"instanceIds": instance_ids}, "pagination": page}
    return lambda request: JSONResponse(body) if request.url.path == INSTANCES_PATH else None


def restate_one_post(day: date, instance_id: str) -> Callable[[Request, Any], Any]:
    """Return a response edit that adds one engagement to one post of a day and an instance."""

    def edited(_request: Request, document: Any) -> Any:
        of_partition = [
            row for row in document["data"] if (row["postDate"][:10], row["instanceId"]) == (str(day), instance_id)
        ]
        for row in sorted(of_partition, key=lambda row: (row["campaignId"], row["postId"]))[:1]:
            row["engagements"] = (row["engagements"] or 0) + 1
        return document

    return edited


def enlarge_metrics(_request: Request, document: Any) -> Any:
    return {**document, "data": [{**post, "impressions": 1_000_000, "engagements": 5} for post in document["data"]]}


@dataclass(frozen=True)
class Project:
    """The definitions, a Dagster instance, and an empty lake."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    root: Path

    @property
    def lake(self) -> Lake:
        return Lake(str(self.root))

    def reloaded(self) -> "Project":
        """Return the project with definitions loaded from the current environment."""
        return replace(self, defs=current_definitions())

    def configured(self, *, start_date: date = FIRST_DAY, **fields: Any) -> "Project":
        """Return the project with definitions of some settings, and of the environment."""
        component = LaterReportingComponent.from_environment(start_date=start_date, **fields)
        return replace(self, defs=component.build_definitions())

    def fetch(self, asset: str, *, days: Sequence[date] = DAYS, **config: Any) -> ExecuteInProcessResult:
        """Materialize days of a raw asset in one run; `config` is its run config."""
        return self.run(asset, tags=range_tags(days[0], days[-1]), config=config)

    def roll_up(self, asset: str, *, days: Sequence[date] = DAYS) -> ExecuteInProcessResult:
        """Materialize days of a rollup in one run, or their weeks or months."""
        period = next((table.cadence for table in TABLES if table.name == asset), Cadence.DAY)
        return self.run(asset, tags=range_tags(days[0], days[-1], period=period))

    def run(
        self, *assets: str, tags: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None
    ) -> ExecuteInProcessResult:
        """Materialize assets as the UI does."""
        run_config: dict[str, Any] = dict(QUIET_LOGGING)
        if config:
            run_config["ops"] = {f"later__{asset}": {"config": dict(config)} for asset in assets}
        return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[asset_key(asset) for asset in assets],
            tags=dict(tags or {}),
            run_config=run_config,
            raise_on_error=False,
        )

    def run_job(
        self, name: str, *, tags: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None
    ) -> ExecuteInProcessResult:
        return self.defs.resolve_job_def(name).execute_in_process(
            instance=self.instance, tags=tags, run_config={**QUIET_LOGGING, **(config or {})}, raise_on_error=False
        )

    def sensor(self, name: str, *, cursor: str | None = None) -> SensorExecutionData:
        """Evaluate a sensor as the daemon does."""
        resources = {"later_reporting": LaterReportingResource.from_environment()}
        with dg.build_sensor_context(self.instance, cursor, definitions=self.defs, resources=resources) as context:
            return self.defs.resolve_sensor_def(name).evaluate_tick(context)

    def scheduled(self, at: datetime) -> dg.RunRequest:
        """Evaluate the daily schedule as the daemon does, and return the run that it requests."""
        resources = {"later_reporting": LaterReportingResource.from_environment()}
        with dg.build_schedule_context(self.instance, scheduled_execution_time=at, resources=resources) as context:
            requests = self.defs.resolve_schedule_def("later_posts_daily").evaluate_tick(context).run_requests
        (request,) = requests or []
        return request._replace(job_name="later_posts")

    def execute(self, request: dg.RunRequest) -> ExecuteInProcessResult:
        """Execute a run that was requested."""
        if request.asset_selection:
            configs = [op["config"] for op in request.run_config.get("ops", {}).values()]  # all the same
            names = [key.path[-1] for key in request.asset_selection]
            return self.run(*names, tags=request.tags, config=configs[0] if configs else None)
        return self.run_job(str(request.job_name), tags=request.tags, config=request.run_config)

    def record(
        self, request: dg.RunRequest, status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE
    ) -> dg.DagsterRun:
        """Record a run that was requested, and execute nothing."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        return self.instance.create_run_for_job(
            self.defs.resolve_job_def(request.job_name) if request.job_name else job,
            asset_selection=frozenset(request.asset_selection or ()) or None,
            run_config=request.run_config,
            tags=dict(request.tags),
            status=status,
        )

    def start(self, asset: str, *, days: Sequence[date] = DAYS) -> dg.DagsterRun:
        """Record a run of an asset that stays in progress, and execute nothing."""
        request = dg.RunRequest(asset_selection=[asset_key(asset)], tags=range_tags(days[0], days[-1]))
        return self.record(request, dg.DagsterRunStatus.STARTED)

    def write_empty(self, days: Sequence[date] = DAYS, *, at: datetime | None = None) -> None:
        """Write the files of posts of all instances, without rows, as if they had been fetched at a time."""
        files = {Partition(day, name): POSTS_SCHEMA.empty_table() for day in days for name in INSTANCE_IDS}
        for asset in RAW_ASSETS:
            self.lake.write_all(asset, files, metadata=fetched(at))

    def update_coverage(self) -> None:
        assert_success(self.run_job("later_coverage"))

    def check(self, *checks: tuple[str, str]) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """Run checks without their assets, each given by asset and name; default: all."""
        job = self.defs.resolve_job_def("later_checks")
        if checks:
            wanted = {dg.AssetCheckKey(asset_key(asset), name) for asset, name in checks}
            job = job.get_subset(asset_selection=set(), asset_check_selection=wanted)
        return self.evaluations(job.execute_in_process(instance=self.instance, run_config=QUIET_LOGGING))

    def events(self, result: ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
        entries = self.instance.all_logs(result.run_id, of_type=kind)
        return [entry.dagster_event for entry in entries if entry.dagster_event is not None]

    def warnings(self, result: ExecuteInProcessResult) -> list[str]:
        return [entry.user_message for entry in self.instance.all_logs(result.run_id) if entry.level == logging.WARNING]

    def logged(self, result: ExecuteInProcessResult) -> dict[tuple[str, str | None], dg.AssetMaterialization]:
        """Return the materializations of a run, by asset and partition; fail on duplicates."""
        events = self.events(result, dg.DagsterEventType.ASSET_MATERIALIZATION)
        logged = [event.step_materialization_data.materialization for event in events]
        found = {(each.asset_key.path[-1], each.partition): each for each in logged}
        assert len(found) == len(logged)
        return found

    def materializations(self, result: ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
        """Return the materializations of a run of one asset, by partition."""
        return {str(partition): each for (_, partition), each in self.logged(result).items()}

    def metadata(self, result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
        return {key: plain_metadata(event) for key, event in self.materializations(result).items()}

    def data_versions(self, result: ExecuteInProcessResult) -> dict[str, str]:
        return {key: event.tags["dagster/data_version"] for key, event in self.materializations(result).items()}

    def evaluations(self, result: ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """Return the check results of a run, by asset and check; fail on duplicates."""
        events = self.events(result, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        data = [event.asset_check_evaluation_data for event in events]
        found = {(each.asset_key.path[-1], each.check_name): each for each in data}
        assert len(found) == len(data)
        return found

    def planned_checks(self, result: ExecuteInProcessResult) -> set[tuple[str, str]]:
        """Return the checks that a run is expected to evaluate: without a result, the UI shows them as failed."""
        events = self.events(result, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED)
        keys = [event.asset_check_planned_data.asset_check_key for event in events]
        return {(key.asset_key.path[-1], key.name) for key in keys}

    def passed(self, result: ExecuteInProcessResult) -> dict[str, bool]:
        return {name: evaluation.passed for (_, name), evaluation in self.evaluations(result).items()}

    def is_in_sync(self, asset: str, partition: str) -> bool:
        resolver = CachingStaleStatusResolver(
            self.instance, self.defs.resolve_asset_graph(), LoadingContextForTest(self.instance)
        )
        return resolver.get_status(asset_key(asset), partition) is StaleStatus.FRESH

    def statuses(self, asset: str) -> dict[date, AssetPartitionStatus]:
        partitions_def = self.defs.resolve_assets_def(asset_key(asset)).partitions_def
        assert partitions_def is not None
        statuses = self.instance.get_status_by_partition(asset_key(asset), list(map(str, DAYS)), partitions_def) or {}
        return {day: status for day in DAYS if (status := statuses[str(day)]) is not None}


_BUILT: dict[str, dg.Definitions] = {}


def current_definitions() -> dg.Definitions:
    """Return the definitions for the current environment. Tests with the same settings share what Dagster caches."""
    component = LaterReportingComponent.from_environment(start_date=FIRST_DAY)
    # Of other variables, such as the lake's root, a component has only the name.
    key = f"{component!r} {sorted(component.resource.model_fields_set)}"
    if key not in _BUILT:
        _BUILT[key] = component.build_definitions()
    return _BUILT[key]


def plain_metadata(event: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def assert_success(result: ExecuteInProcessResult) -> None:
    """Assert that a run succeeded; the assertion shows why its steps failed."""
    assert result.success, [event.step_failure_data for event in result.all_events if event.is_step_failure]


def failure(result: ExecuteInProcessResult) -> tuple[str, Mapping[str, Any]]:
    """Return the description and metadata of the single failure of a run."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert data.description is not None
    return data.description, {name: value.value for name, value in data.metadata.items()}


@pytest.fixture
def settings(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sandbox_settings(service.base_url, lake_root=str(tmp_path / "lake")).items():
        monkeypatch.setenv(name, value)
    # Set, so that tests can count the other requests.
    monkeypatch.setenv("LATER_API_VERSION", str(service.api_version))


@pytest.fixture
def next_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze the clock that decides which days are expected at the day after `DAYS`."""
    freeze_clock(monkeypatch, datetime(2024, 3, 4, 13, tzinfo=UTC))


@pytest.fixture(scope="session", autouse=True)
def _no_schema_versions() -> Iterator[None]:
    """Do not mark databases in memory with the version of their schema, which takes longer than creating them."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (runs.in_memory, event_log.in_memory):
            patched.setattr(module, "stamp_alembic_rev", lambda config, connection: None)
        yield


@pytest.fixture
def project(settings: None, next_day: None, tmp_path: Path) -> Iterator[Project]:
    """The project with a Dagster instance in memory, which is faster than one on disk. Expected are `DAYS`."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Project(current_definitions(), instance, tmp_path / "lake")


@pytest.fixture(scope="module")
def module_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a lake that the tests of a module share; it does not exist at first."""
    return tmp_path_factory.mktemp("kept") / "lake"


def fill_once(project: Project, module_lake: Path, fill: Callable[[Project], bool]) -> Project:
    """Return the project with a lake that `fill` fills for a module's first test; later tests copy it."""
    if not module_lake.exists():
        assert fill(project)
        shutil.copytree(project.root, module_lake)
    else:
        shutil.copytree(module_lake, project.root)
    return project
