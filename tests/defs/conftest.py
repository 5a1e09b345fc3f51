"""The whole project over the small world: its definitions, a Dagster instance, and a lake on disk."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus, ExecuteInProcessResult
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import RevisionMemory, remembered_revision_path
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.conftest import FIRST_DAY, Service, parameters, problem, settings_of

# Fewer than the service has: Dagster's events are what takes time here.
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(3)]
RAW_ASSETS = ("post_metrics_daily", "posts_published")
ROLLUPS = ("organic_paid_daily", "organic_paid_by_publish_day")
SPANS = ("organic_paid_weekly", "organic_paid_monthly")
WINDOWS = ("organic_paid_by_campaign", "organic_paid_by_creator", "organic_paid_by_platform")
INSTANCES_PATH = "/v2/instances"
QUIETLY = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

both_assets = pytest.mark.parametrize("asset", RAW_ASSETS)


class StoppedClock(datetime):
    """A clock on the wall that stands still, at an instant that a test may move."""

    instant: datetime

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        # Without a zone the local time, as ever: who asks for that has a bug, which is to be seen.
        return cls.instant.astimezone(tz) if tz else cls.instant.astimezone().replace(tzinfo=None)


def stop_clock(monkeypatch: pytest.MonkeyPatch, instant: datetime, *modules: str) -> None:
    """Stops the clock of modules of the package; Dagster's own goes on."""
    monkeypatch.setattr(StoppedClock, "instant", instant, raising=False)
    for module in modules:
        monkeypatch.setattr(import_module(f"later_reporting_dagster.{module}"), "datetime", StoppedClock)


def asset_key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(["later", asset])


def without(instance_id: str, status: int = 403) -> Callable[[Request], Response | None]:
    """Responses of a service that refuses whatever concerns an instance."""

    def instead(request: Request) -> Response | None:
        return problem(status) if instance_id in parameters(request).get("instanceIds", []) else None

    return instead


def listing(*instance_ids: str) -> Response:
    """The response of a service that lists these instances."""
    page = {"page": 1, "pageSize": 100, "totalItems": len(instance_ids), "totalPages": 1}
    return JSONResponse({"data": {"instanceIds": instance_ids}, "pagination": page})


def listed(*instance_ids: str) -> Callable[[Request], Response | None]:
    """Responses of a service that lists these instances, and is as ever otherwise."""
    return lambda request: listing(*instance_ids) if request.url.path == INSTANCES_PATH else None


def restated(day: date, instance_id: str) -> Callable[[Request, Any], Any]:
    """Responses of a service that counts one engagement more for one post of a day and an instance."""

    def edited(_request: Request, document: Any) -> Any:
        of_cell = [
            row for row in document["data"] if (row["postDate"][:10], row["instanceId"]) == (str(day), instance_id)
        ]
        for row in sorted(of_cell, key=lambda row: (row["campaignId"], row["postId"]))[:1]:
            row["engagements"] = (row["engagements"] or 0) + 1
        return document

    return edited


def enlarged(_request: Request, document: Any) -> Any:
    """Responses of a service that has the same large numbers for every post."""
    return {**document, "data": [{**post, "impressions": 1_000_000, "engagements": 5} for post in document["data"]]}


@dataclass(frozen=True)
class Project:
    """What a user has: definitions, a Dagster instance, and an empty lake."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    root: Path

    @property
    def lake(self) -> Lake:
        return Lake(str(self.root))

    def again(self) -> "Project":
        """The project as it loads now, when a test has changed the environment."""
        return replace(self, defs=definitions(LoadSettings(start_date=FIRST_DAY)))

    def fetch(self, asset: str, *, days: Sequence[date] = DAYS, **config: Any) -> ExecuteInProcessResult:
        """Materializes days of a raw asset in one run; `config` is its run config."""
        return self.run(asset, tags=range_tags(days[0], days[-1]), config=config)

    def roll_up(self, asset: str, *, days: Sequence[date] = DAYS) -> ExecuteInProcessResult:
        """Materializes days of a rollup in one run, or the weeks or months that they are in."""
        span = next((table.span for table in TABLES if table.name == asset), Span.DAY)
        return self.run(asset, tags=range_tags(days[0], days[-1], span=span))

    def roll_up_windows(self, *assets: str) -> ExecuteInProcessResult:
        """Materializes tables of windows in one run; all of them, unless some are named."""
        return self.run(*(assets or WINDOWS))

    def run(
        self,
        *assets: str,
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        resource: Mapping[str, Any] | None = None,
    ) -> ExecuteInProcessResult:
        """Materializes assets as a click in the UI does; `resource` is what the Launchpad says of the resource."""
        run_config: dict[str, Any] = dict(QUIETLY)
        if config:
            run_config["ops"] = {f"later__{asset}": {"config": dict(config)} for asset in assets}
        if resource:
            run_config["resources"] = {"later": {"config": dict(resource)}}
        return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[asset_key(asset) for asset in assets],
            tags=dict(tags or {}),
            run_config=run_config,
            raise_on_error=False,
        )

    def start(self, asset: str, *, days: Sequence[date] = DAYS) -> dg.DagsterRun:
        """Records a run of days of an asset that is under way, and does nothing."""
        return self.instance.create_run_for_job(
            self.defs.resolve_implicit_global_asset_job_def(),
            asset_selection=frozenset({asset_key(asset)}),
            tags=range_tags(days[0], days[-1]),
            status=dg.DagsterRunStatus.STARTED,
        )

    def check(self, *checks: tuple[str, str]) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """Runs checks alone, each given by its asset and name; all where none is given."""
        job = self.defs.resolve_job_def("later_checks")
        if checks:
            wanted = {dg.AssetCheckKey(asset_key(asset), name) for asset, name in checks}
            job = job.get_subset(asset_selection=set(), asset_check_selection=wanted)
        return self.evaluations(job.execute_in_process(instance=self.instance, run_config=QUIETLY))

    def events(self, result: ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
        """The events of a run as the instance keeps them: those of a run that failed are there too."""
        entries = self.instance.all_logs(result.run_id, of_type=kind)
        return [entry.dagster_event for entry in entries if entry.dagster_event is not None]

    def materializations(self, result: ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
        """What a run of one asset materialized, by partition; each once."""
        events = self.events(result, dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = {str(event.partition): event.step_materialization_data.materialization for event in events}
        assert len(found) == len(events)
        return found

    def metadata(self, result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
        """The metadata of what a run of one asset materialized, by partition."""
        return {key: values(event) for key, event in self.materializations(result).items()}

    def data_versions(self, result: ExecuteInProcessResult) -> dict[str, str]:
        return {key: event.tags["dagster/data_version"] for key, event in self.materializations(result).items()}

    def evaluations(self, result: ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """The check results of a run, by asset and check; each once."""
        events = self.events(result, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        data = [event.asset_check_evaluation_data for event in events]
        found = {(each.asset_key.path[-1], each.check_name): each for each in data}
        assert len(found) == len(data)
        return found

    def passed(self, result: ExecuteInProcessResult) -> dict[str, bool]:
        """Which checks a run evaluated, and whether they passed."""
        return {name: evaluation.passed for (_, name), evaluation in self.evaluations(result).items()}

    def is_in_sync(self, asset: str, partition: str | None = None) -> bool:
        """Whether the UI calls what is there made from what it comes from as that is now."""
        resolver = CachingStaleStatusResolver(
            self.instance, self.defs.resolve_asset_graph(), LoadingContextForTest(self.instance)
        )
        return resolver.get_status(asset_key(asset), partition) is StaleStatus.FRESH

    def statuses(self, asset: str) -> dict[date, AssetPartitionStatus]:
        """The days that are not empty in the UI."""
        partitions_def = self.defs.resolve_assets_def(asset_key(asset)).partitions_def
        assert partitions_def is not None
        statuses = self.instance.get_status_by_partition(asset_key(asset), list(map(str, DAYS)), partitions_def) or {}
        return {day: status for day in DAYS if (status := statuses[str(day)]) is not None}


def values(event: dg.AssetMaterialization) -> dict[str, Any]:
    """The metadata of an event, as plain values."""
    return {name: value.value for name, value in event.metadata.items()}


def failure(result: ExecuteInProcessResult) -> tuple[str, Mapping[str, Any]]:
    """The description and metadata of the one failure of a run."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert data.description is not None
    return data.description, {name: value.value for name, value in data.metadata.items()}


@pytest.fixture
def settings(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user who points the project at the service."""
    for name, value in settings_of(service.base_url, lake_root=str(tmp_path / "lake")).items():
        monkeypatch.setenv(name, value)
    # To find the revision out costs the first listing of a machine one request more, whichever test comes first.
    RevisionMemory(remembered_revision_path(service.base_url)).keep(service.revision)


def _project(instance: dg.DagsterInstance, root: Path) -> Project:
    return Project(definitions(LoadSettings(start_date=FIRST_DAY)), instance, root)


@pytest.fixture
def project(settings: None, tmp_path: Path) -> Iterator[Project]:
    """A Dagster that keeps its events in memory, because on disk each costs more than fetching what it tells of."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield _project(instance, tmp_path / "lake")


@pytest.fixture(scope="module")
def kept_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of a module keep a lake that is only read; there is nothing at first."""
    return tmp_path_factory.mktemp("kept") / "lake"


def filled_once(project: Project, kept_lake: Path, fill: Callable[[Project], bool]) -> Project:
    """The project with the lake that `fill` fills, which is done for the first test of a module alone."""
    if not kept_lake.exists():
        assert fill(project)
        shutil.copytree(project.root, kept_lake)
    else:
        shutil.copytree(kept_lake, project.root)
    return project


@pytest.fixture
def project_on_disk(settings: None, tmp_path: Path) -> Iterator[Project]:
    """A Dagster as a user has it."""
    home = tmp_path / "dagster-home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
        yield _project(instance, tmp_path / "lake")


@pytest.fixture
def next_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The morning after the days of the tests, for the instances: so that these are all days there are."""
    stop_clock(monkeypatch, datetime(2024, 3, 4, 3, tzinfo=UTC), "defs.instances")


@pytest.fixture
def later(settings: None) -> LaterReportingResource:
    """The resource as an asset has it."""
    resource: LaterReportingResource = LaterReportingResource.from_environment().process_config_and_initialize()
    return resource
