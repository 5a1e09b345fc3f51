"""The sensor later_instances: the history of new instances in one run, the dimension, errors in one clear line."""

import json
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.sandbox import World, create_app
from tests.conftest import FIRST_DAY, INSTANCE_IDS, UNHURRIED, Service, problem
from tests.defs.conftest import DAYS, INSTANCES_PATH, QUIETLY, RAW_ASSETS, Project, asset_key, listed

pytestmark = pytest.mark.usefixtures("next_day")
EVERYONE = json.dumps(sorted(INSTANCE_IDS))


def tick(project: Project, *, cursor: str | None = None) -> SensorExecutionData:
    """One evaluation, as the daemon does it."""
    resources = {"later": LaterReportingResource.from_environment()}
    context = dg.build_sensor_context(
        instance=project.instance, definitions=project.defs, resources=resources, cursor=cursor
    )
    return project.defs.resolve_sensor_def("later_instances").evaluate_tick(context)


def requested_instances(data: SensorExecutionData) -> list[str]:
    """The instances of the one run that a tick requests, over all days and with nothing fetched that is there."""
    (request,) = data.run_requests or []
    assert request.run_key is None
    assert request.tags.items() >= range_tags(FIRST_DAY, DAYS[-1]).items()
    configs = [op["config"] for op in request.run_config["ops"].values()]
    assert request.run_config["ops"].keys() == {f"later__{asset}" for asset in RAW_ASSETS}
    assert configs[0] == configs[1]
    assert configs[0].keys() == {"instances", "only_missing"}
    assert configs[0]["only_missing"] is True
    instances: list[str] = configs[0]["instances"]
    return instances


def run(project: Project, data: SensorExecutionData) -> dg.ExecuteInProcessResult:
    """Executes the requested run, as the daemon does it."""
    (request,) = data.run_requests or []
    job = project.defs.resolve_job_def("later_posts")
    config = {**QUIETLY, **request.run_config}
    return job.execute_in_process(instance=project.instance, tags=request.tags, run_config=config)


def test_the_history_of_new_instances_is_requested_once(project: Project, service: Service) -> None:
    first = tick(project)
    assert requested_instances(first) == list(INSTANCE_IDS)
    assert first.cursor == EVERYONE
    assert not tick(project, cursor=first.cursor).run_requests
    service.instead = listed("new/one", *INSTANCE_IDS, "new two")
    more = tick(project, cursor=first.cursor)
    assert requested_instances(more) == ["new/one", "new two"]
    assert not tick(project, cursor=more.cursor).run_requests
    # One that was gone is new when it comes back: what it missed is missing.
    service.instead = listed(*INSTANCE_IDS, "new two")
    fewer = tick(project, cursor=more.cursor)
    assert not fewer.run_requests
    service.instead = listed(*INSTANCE_IDS, "new/one")
    assert requested_instances(tick(project, cursor=fewer.cursor)) == ["new/one"]


def test_the_requested_run_fetches_the_new_instance_alone(
    project: Project, service: Service, small_world: World
) -> None:
    service.app = create_app(
        replace(small_world, further_instances=(*INSTANCE_IDS[1:], "new"), posts_per_day=2), options=UNHURRIED
    )
    assert run(project, tick(project, cursor=EVERYONE)).success
    for asset in RAW_ASSETS:
        found = project.lake.partitions(asset)
        assert [(partition.day, partition.instance_id) for partition in found] == [(day, "new") for day in DAYS]


@pytest.mark.parametrize("cursor", [None, "", "not JSON", "5", "[[]]", "null"])
def test_a_lost_cursor_costs_a_listing_and_no_data(cursor: str | None, project: Project, service: Service) -> None:
    for asset in RAW_ASSETS:
        project.fetch(asset)
    service.requests.clear()
    data = tick(project, cursor=cursor)
    assert requested_instances(data) == list(INSTANCE_IDS)
    assert data.cursor == EVERYONE
    assert run(project, data).success
    assert (service.asked(INSTANCES_PATH), service.data_requests) == (1, 0)


def test_a_tick_refreshes_the_dimension_and_evaluates_its_check(project: Project, service: Service) -> None:
    refreshed, check = tick(project, cursor=EVERYONE).asset_events
    assert isinstance(refreshed, dg.AssetMaterialization)
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert refreshed.asset_key == check.asset_key == asset_key("instances")
    assert refreshed.metadata["dagster/row_count"].value == 4
    assert check.passed
    by_asset = project.run("instances")
    assert project.data_versions(by_asset) == {"None": refreshed.tags["dagster/data_version"]}
    service.instead = listed(*INSTANCE_IDS[:1])
    refreshed, check = tick(project, cursor=EVERYONE).asset_events
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert not check.passed
    assert refreshed.metadata["dagster/row_count"].value == 4


def test_instances_of_the_settings_are_the_wanted_ones(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, not listed")
    data = tick(project)
    assert requested_instances(data) == ["007", "not listed"]
    assert json.loads(data.cursor or "") == ["007", "not listed"]


def test_without_instances_or_days_there_is_no_run(project: Project, service: Service) -> None:
    future = replace(project, defs=definitions(LoadSettings(start_date=DAYS[-1] + timedelta(days=1))))
    assert not tick(future).run_requests
    service.instead = listed()
    data = tick(project)
    assert (data.run_requests, data.cursor) == ([], "[]")


def test_an_api_that_takes_too_long_is_skipped(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later_reporting_dagster.defs.instances.API_TIMEOUT_SECONDS", 0.1)
    service.instead = lambda request: problem(503)  # which is asked again after a wait
    data = tick(project, cursor=EVERYONE)
    assert data.skip_message == "Timed out listing instances: trying again at the next tick."
    assert not data.run_requests
    assert not data.asset_events


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LATER_CLIENT_SECRET", "no-such-secret", "LATER_CLIENT_SECRET"),
        ("LATER_CLIENT_ID", "", "LATER_CLIENT_ID is empty"),
        ("LATER_LAKE_ROOT", "/dev/null/no-such-folder", "/dev/null"),
    ],
)
def test_what_is_wrong_is_one_clear_line_without_secrets(
    variable: str, value: str, said: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Exception, match="The instances could not be refreshed: ") as caught:
        tick(project)
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__suppress_context__  # the trace of what led to it would add nothing
    assert error.__cause__ is None
    assert said in str(error)
    while error is not None:
        assert "no-such-secret" not in str(error)
        error = error.__cause__ or error.__context__


def test_it_looks_once_an_hour_and_is_off_until_turned_on(project: Project) -> None:
    sensor = project.defs.resolve_sensor_def("later_instances")
    assert (sensor.minimum_interval_seconds, sensor.job_name) == (3600, "later_posts")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
