"""The whole project over the small world: its definitions, a Dagster instance, and a lake on disk."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus, ExecuteInProcessResult
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG, box_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.lake import Lake, encode_instance_id
from tests.conftest import FIRST_DAY, INSTANCE_IDS, UNHURRIED, Service

# Fewer than the service has: Dagster's events are what takes time here.
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(3)]
RAW_ASSETS = ("post_metrics_daily", "posts_published")
ROLLUPS = ("organic_paid_daily", "organic_paid_by_publish_day")
SPANS = ("organic_paid_weekly", "organic_paid_monthly")
WINDOWS = ("organic_paid_by_campaign", "organic_paid_by_creator", "organic_paid_by_platform")
QUIETLY = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
KEYS = [encode_instance_id(instance_id) for instance_id in INSTANCE_IDS]
Cell = tuple[date, str]


def asset_key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(["later", asset])


@dataclass(frozen=True)
class Project:
    """What a user has: definitions, an instance on which `INSTANCE_IDS` are registered, and an empty lake."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    root: Path

    @property
    def lake(self) -> Lake:
        return Lake(str(self.root))

    def fetch(self, asset: str, *, days: Sequence[date] = DAYS, keys: Sequence[str] = KEYS) -> ExecuteInProcessResult:
        """Materializes a box of a raw asset in one run."""
        return self.run("later_posts", asset, tags=box_tags(days[0], days[-1], keys))

    def fetch_one(self, asset: str, day: date, key: str) -> ExecuteInProcessResult:
        """Materializes one partition of a raw asset, as a click on its cell does."""
        return self.run("later_posts", asset, partition=dg.MultiPartitionKey({"date": str(day), "instance": key}))

    def roll_up(self, asset: str, *, days: Sequence[date] = DAYS) -> ExecuteInProcessResult:
        """Materializes days of a rollup in one run."""
        tags = {RANGE_START_TAG: str(days[0]), RANGE_END_TAG: str(days[-1])}
        return self.run("later_organic_paid", asset, tags=tags)

    def roll_up_span(self, asset: str, first: date, last: date) -> ExecuteInProcessResult:
        """Materializes the weeks or months from the one that begins on `first` to the one that begins on `last`."""
        return self.run(f"later_{asset}", asset, tags={RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)})

    def roll_up_windows(self, *assets: str) -> ExecuteInProcessResult:
        """Materializes tables of windows in one run; all of them, unless some are named."""
        return self.run("later_organic_paid_by_window", *(assets or WINDOWS))

    def run(
        self, job: str, *assets: str, tags: Mapping[str, str] | None = None, partition: str | None = None
    ) -> ExecuteInProcessResult:
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            asset_selection=[asset_key(asset) for asset in assets],
            tags=dict(tags or {}),
            partition_key=partition,
            run_config=QUIETLY,
            raise_on_error=False,
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
        """What a run materialized, by partition; each once."""
        events = self.events(result, dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = {str(event.partition): event.step_materialization_data.materialization for event in events}
        assert len(found) == len(events)
        return found

    def data_versions(self, result: ExecuteInProcessResult) -> dict[str, str]:
        return {key: event.tags["dagster/data_version"] for key, event in self.materializations(result).items()}

    def evaluations(self, result: ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """What a run told of checks, by asset and check; each once."""
        events = self.events(result, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        data = [event.asset_check_evaluation_data for event in events]
        found = {(each.asset_key.path[-1], each.check_name): each for each in data}
        assert len(found) == len(data)
        return found

    def verdicts(self, result: ExecuteInProcessResult) -> dict[str, bool]:
        """Which checks a run told of, and whether they passed."""
        return {name: evaluation.passed for (_, name), evaluation in self.evaluations(result).items()}

    def is_in_sync(self, asset: str, partition: str | None = None) -> bool:
        """Whether the UI calls what is there made from what it comes from as that is now."""
        resolver = CachingStaleStatusResolver(
            self.instance, self.defs.resolve_asset_graph(), LoadingContextForTest(self.instance)
        )
        return resolver.get_status(asset_key(asset), partition) is StaleStatus.FRESH

    def statuses(self, asset: str) -> dict[Cell, AssetPartitionStatus]:
        """The cells of the UI's grid that are not empty."""
        partitions_def = self.defs.resolve_assets_def(asset_key(asset)).partitions_def
        assert partitions_def is not None
        keys = [dg.MultiPartitionKey({"date": str(day), "instance": key}) for day in DAYS for key in KEYS]
        statuses = self.instance.get_status_by_partition(asset_key(asset), keys, partitions_def) or {}
        return {
            (day, instance_id): status
            for day in DAYS
            for instance_id, key in zip(INSTANCE_IDS, KEYS, strict=True)
            if (status := statuses[dg.MultiPartitionKey({"date": str(day), "instance": key})]) is not None
        }


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
    for name, value in {
        "LATER_BASE_URL": service.base_url,
        "LATER_CLIENT_ID": UNHURRIED.client_id,
        "LATER_CLIENT_SECRET": UNHURRIED.client_secret,
        "LATER_LAKE_ROOT": str(tmp_path / "lake"),
        "LATER_REQUESTS_PER_MINUTE": "1000000",
    }.items():
        monkeypatch.setenv(name, value)


def _project(instance: dg.DagsterInstance, root: Path) -> Project:
    instance.add_dynamic_partitions("later_instance", KEYS)
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
def later(settings: None) -> LaterReportingResource:
    """The resource as an asset has it."""
    resource: LaterReportingResource = LaterReportingResource.from_environment().process_config_and_initialize()
    return resource
