"""The instance sensor: new instances and their history in one tick, nothing taken away, errors in one clear line."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from hypothesis import given
from hypothesis import strategies as st
from later_reporting_dagster.defs.sensors import discovered, instances_sensor
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import decode_instance_id, encode_instance_id
from later_reporting_dagster.sandbox import World, create_app
from tests.conftest import FIRST_DAY, INSTANCE_IDS, UNHURRIED, Service
from tests.defs.conftest import KEYS, Project

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def tick(project: Project, *, log: logging.Handler | None = None) -> SensorExecutionData:
    """One evaluation, with the partitions that it asks for added, as the daemon does it."""
    resources = {"later": LaterReportingResource.from_environment()}
    context = dg.build_sensor_context(instance=project.instance, definitions=project.defs, resources=resources)
    if log is not None:
        context.log.addHandler(log)
    data = project.defs.resolve_sensor_def("later_instances").evaluate_tick(context)
    for request in data.dynamic_partitions_requests or []:
        assert isinstance(request, dg.AddDynamicPartitionsRequest)
        project.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return data


def registered(project: Project) -> Sequence[str]:
    return project.instance.get_dynamic_partitions("later_instance")


def listing(*instance_ids: str) -> Response:
    page = {"page": 1, "pageSize": 100, "totalItems": len(instance_ids), "totalPages": 1}
    return JSONResponse({"data": {"instanceIds": instance_ids}, "pagination": page})


@pytest.fixture
def none_registered(project: Project) -> Project:
    for key in KEYS:
        project.instance.delete_dynamic_partition("later_instance", key)
    return project


def test_new_instances_and_their_history_come_in_one_tick(none_registered: Project) -> None:
    data = tick(none_registered)
    assert registered(none_registered) == KEYS
    (request,) = data.run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == f"{FIRST_DAY}|{KEYS[0]}"
    assert request.tags["dagster/asset_partition_range_end"] == f"{YESTERDAY}|{KEYS[-1]}"


def test_only_what_is_new_is_added_and_fetched(project: Project, service: Service) -> None:
    service.instead = lambda request: (
        listing("new/one", *INSTANCE_IDS, "new two") if request.url.path == "/v2/instances" else None
    )
    data = tick(project)
    assert registered(project) == [*KEYS, "new%2Fone", "new%20two"]
    (request,) = data.run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == f"{FIRST_DAY}|new%2Fone"
    assert request.tags["dagster/asset_partition_range_end"] == f"{YESTERDAY}|new%20two"


def test_the_requested_run_fetches_just_the_new_box(project: Project, service: Service, small_world: World) -> None:
    new = World(
        first_day=small_world.first_day,
        last_day=small_world.last_day,
        instances=1,
        posts_per_day=2,
        further_instances=(*INSTANCE_IDS[1:], "new"),
    )
    service.app = create_app(new, options=UNHURRIED)
    (request,) = tick(project).run_requests or []
    # As the daemon would run it, but for the end: the history of this world is a few days.
    tags = {**request.tags, "dagster/asset_partition_range_end": "2024-03-03|new"}
    result = project.run("later_posts", "posts_published", tags=tags)
    assert result.success
    assert {str(partition.instance_id) for partition in project.lake.partitions("posts_published")} == {"new"}


def test_when_all_are_registered_it_says_so(project: Project) -> None:
    data = tick(project)
    assert data.skip_message == "All 4 instances are registered."
    assert not data.run_requests
    assert not data.dynamic_partitions_requests


def test_no_instance_at_all_is_skipped(none_registered: Project, service: Service) -> None:
    service.instead = lambda request: listing() if request.url.path == "/v2/instances" else None
    data = tick(none_registered)
    assert data.skip_message is not None
    assert not data.run_requests


def test_an_instance_that_is_gone_stays(project: Project, service: Service, small_world: World) -> None:
    service.app = create_app(small_world, options=replace(UNHURRIED, instance_scope=INSTANCE_IDS[:1]))
    assert tick(project).skip_message == "All 1 instances are registered."
    assert registered(project) == KEYS


def test_an_id_that_cannot_be_a_partition_is_told_and_the_others_added(
    none_registered: Project, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    too_long = "x" * 300
    service.instead = lambda request: listing("good", too_long) if request.url.path == "/v2/instances" else None
    tick(none_registered, log=caplog.handler)
    assert registered(none_registered) == ["good"]
    assert f"Instance {too_long!r} cannot be a partition" in caplog.text


def test_a_start_date_in_the_future_registers_and_fetches_nothing_yet(settings: None) -> None:
    sensor = instances_sensor(start_date=YESTERDAY + timedelta(days=1))
    with dg.DagsterInstance.ephemeral() as instance:
        later = LaterReportingResource.from_environment()
        context = dg.build_sensor_context(instance=instance, resources={"later": later})
        data = sensor.evaluate_tick(context)
    (request,) = data.dynamic_partitions_requests or []
    assert list(request.partition_keys) == KEYS
    assert not data.run_requests


def test_wrong_credentials_are_one_clear_line_without_secrets(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", "no-such-secret")
    with pytest.raises(Exception, match="The instances could not be listed") as caught:
        tick(project)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__  # the trace of what led to it would add nothing
    told = _whole(caught.value)
    assert "LATER_CLIENT_SECRET" in told
    assert "no-such-secret" not in told


def test_no_credentials_are_one_clear_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATER_CLIENT_SECRET")
    monkeypatch.setenv("LATER_CLIENT_ID", "")
    with pytest.raises(Exception, match="The instances could not be listed"):
        tick(project)


def _whole(error: BaseException) -> str:
    """The messages of an error and of all that led to it."""
    told = []
    current: BaseException | None = error
    while current is not None:
        told.append(str(current))
        current = current.__cause__ or current.__context__
    return "\n".join(told)


def test_it_looks_once_an_hour_and_is_off_until_turned_on(project: Project) -> None:
    sensor = project.defs.resolve_sensor_def("later_instances")
    assert sensor.minimum_interval_seconds == 3600
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


names = st.text(max_size=6)


@given(st.lists(names), st.lists(names.filter(bool)))
def test_discovery_adds_what_is_new_in_order_and_takes_nothing(listed: list[str], known: list[str]) -> None:
    known_keys = [encode_instance_id(name) for name in known]
    found = discovered(listed, registered=known_keys)
    assert [decode_instance_id(key) for key in found.new_keys] == [
        name for name in dict.fromkeys(listed) if name and name not in known
    ]
    assert set(found.refused) == {name for name in listed if not name}
