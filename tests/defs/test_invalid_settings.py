"""Invalid settings, run config and partition keys: the error is one line that names the setting and the fix."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from later_reporting_dagster.defs.resource import RENAMED, InvalidSetting, LaterReportingResource
from tests.conftest import Service
from tests.defs.conftest import Project, failure

DAY = "2024-03-01"
BASE_URL = r"LATER_BASE_URL \(base_url\): "
CREDENTIALS = r"LATER_CLIENT_ID \(client_id\), LATER_CLIENT_SECRET \(client_secret\)"
INSTANCES = r"LATER_INSTANCE_IDS \(instance_ids\): "
LAKE = r"LATER_LAKE_ROOT \(lake_root\): "


# Field, value, and a pattern of the error message.
SETTINGS_OF_RUNS = [
    (
        "base_url",
        "https://someone:pa55word@example.com",
        rf"{BASE_URL}the base URL must be a scheme, host and port only, like https://reporting\.api\.later\.com",
    ),
    ("base_url", "http://example.com", rf"{BASE_URL}.*unencrypted: use https"),
    ("client_id", "", r"no credentials: set .*\(LATER_CLIENT_ID is empty\)"),
    ("client_secret", "", r"no credentials: set .*\(LATER_CLIENT_SECRET is empty\)"),
    ("client_secret", "pa55word\udcff", rf"{CREDENTIALS}: the client secret contains .*: copy it again"),
    ("access_token", "Bearer pa55word", r"LATER_ACCESS_TOKEN \(access_token\): .*contains spaces.*: copy it again"),
    ("lake_root", "", rf"{LAKE}.*is empty: give a directory"),  # as if it were not set
    ("lake_root", "  ", rf"{LAKE}.*is empty: give a directory"),
    ("lake_root", "nowhere://someone:pa55word@lake", rf"{LAKE}.*nowhere://lake cannot .*Give a directory"),
    ("lake_root", "s3:/bucket/lake", rf"{LAKE}a URL has two slashes after its scheme, as in s3://bucket/lake"),
    ("lake_root", "/data/lake\n", rf"{LAKE}remove line breaks, .*"),
    ("instance_ids", ",", rf"{INSTANCES}',' names no instance: omit it to fetch all"),
    ("instance_ids", "a,\udcff", rf"{INSTANCES}instance id '\\udcff' is not valid Unicode"),
]
LOAD_SETTINGS = [
    ("start_date", "spring", r"Input should be a valid date or datetime, input is too short"),
    ("start_date", "0024-01-01", r"Input should be greater than or equal to 2000-01-01"),
    ("lookback_days", "0", r"Input should be greater than or equal to 1"),
    ("due_hour_utc", "24", r"Input should be less than or equal to 23"),
    ("requests_per_minute", "0", r"Input should be greater than or equal to 1"),
    ("max_row_loss_percent", "101", r"Input should be less than or equal to 100"),
    ("max_bad_rows_percent", "5%", r"Input should be a valid integer, .*"),
    ("memory_gb", "0.25", r"Input should be greater than 0.25"),
]


@pytest.mark.parametrize(("field", "value", "line"), SETTINGS_OF_RUNS)
def test_invalid_setting_of_runs_is_named_when_it_is_used(
    field: str, value: str, line: str, settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LATER_{field.upper()}", value)
    later = LaterReportingResource.from_environment().resolved()
    with pytest.raises(InvalidSetting) as rejected:  # noqa: PT012 - a run needs all of them
        later.configured_instances()
        later.lake()
        later.client()
    assert re.fullmatch(f"{line}.*", str(rejected.value.description))
    assert "pa55w" not in str(rejected.value.description)


def test_invalid_setting_of_runs_fails_the_run_and_not_loading(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, value, line = SETTINGS_OF_RUNS[0]
    monkeypatch.setenv(f"LATER_{field.upper()}", value)
    description, _ = failure(project.reloaded().run("posts_published", tags={PARTITION_TAG: DAY}))
    assert re.fullmatch(f"{line}.*", description)
    assert service.requests == []


def test_run_without_the_variables_of_settings_fails_with_their_names(project: Project) -> None:
    resource = LaterReportingResource(
        lake_root=dg.EnvVar("ALSO_NOT_SET"), requests_per_minute=dg.EnvVar.int("NOT_SET_WHEN_LOADED")
    )
    project = project.configured(resource=resource)
    result = project.run("posts_published", tags={PARTITION_TAG: DAY})
    (event,) = project.events(result, dg.DagsterEventType.RESOURCE_INIT_FAILURE)
    error = event.engine_event_data.error
    assert error is not None
    assert error.message.strip().endswith(
        "LATER_LAKE_ROOT (lake_root): the environment variable ALSO_NOT_SET is not set;"
        " LATER_REQUESTS_PER_MINUTE (requests_per_minute): the environment variable NOT_SET_WHEN_LOADED is not set"
    )


@pytest.mark.parametrize(("field", "value", "line"), LOAD_SETTINGS)
def test_invalid_load_setting_fails_loading(field: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LATER_{field.upper()}", value)
    with pytest.raises(dg.DagsterInvalidDefinitionError) as rejected:
        LaterReportingComponent.from_environment().build_definitions()
    assert re.fullmatch(rf"LATER_{field.upper()} \({field}\): {line}", str(rejected.value))


# Names that were given up

every_name = pytest.mark.parametrize(
    ("where", "old", "new"),
    [("component" if old == "restate_days" else "resource", old, new) for old, new in RENAMED.items()],
)


def refusal(old: str, new: str) -> str:
    return f"LATER_{old.upper()} ({old}): it is LATER_{new.upper()} ({new}) now: rename it"


@every_name
def test_old_name_of_a_variable_is_refused(where: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LATER_{old.upper()}", "1")
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=re.escape(refusal(old, new))):
        LaterReportingComponent.from_environment()


@every_name
def test_old_name_of_an_attribute_is_refused(where: str, old: str, new: str) -> None:
    made: Any = LaterReportingComponent if where == "component" else LaterReportingResource
    with pytest.raises((dg.DagsterInvalidDefinitionError, InvalidSetting), match=re.escape(refusal(old, new))):
        made(**{old: 1})


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")  # Dagster calls it when it reads YAML
@every_name
def test_old_name_in_yaml_is_refused(where: str, old: str, new: str) -> None:
    attributes = {old: 1} if where == "component" else {"resource": {old: 1}}
    with pytest.raises(
        dg.DagsterInvalidDefinitionError, match=rf"{old}: it is LATER_{new.upper()} \({new}\) now: rename it"
    ):
        LaterReportingComponent.resolve_from_dict(attributes)


@pytest.mark.parametrize(
    ("old", "value", "new"), [("accept_shrinking", True, "allow_row_loss"), ("pairs", {"a": [DAY]}, "days_by_instance")]
)
def test_old_name_in_run_config_is_refused(old: str, value: object, new: str, project: Project) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=rf"unexpected config entry \"{old}\".* {new}\?"):
        project.fetch("posts_published", **{old: value})


# Partition keys: run tags can be set by hand.


def range_of(start: str, end: str) -> dict[str, str]:
    return {RANGE_START_TAG: start, RANGE_END_TAG: end}


# Also after midnight.
TOO_NEW_DAY = datetime.now(UTC).date() + timedelta(days=1)
TOO_NEW = r"There is no partition \S+ yet: the newest is \S+ \(UTC\)\. Select nothing later\."


@pytest.mark.parametrize(
    ("tags", "line"),
    [
        ({}, "The run selects no partition: select one, or a range that does not end before it starts"),
        (range_of("2024-03-02", "2024-03-01"), "The run selects no partition: "),
        ({PARTITION_TAG: str(TOO_NEW_DAY)}, TOO_NEW),
        (range_of(str(TOO_NEW_DAY - timedelta(days=3)), str(TOO_NEW_DAY)), TOO_NEW),
    ],
)
def test_run_of_an_invalid_partition_fails_with_advice(
    tags: dict[str, str], line: str, project: Project, service: Service
) -> None:
    description, _ = failure(project.run("posts_published", tags=tags))
    assert re.match(line, description)
    assert "\n" not in description
    assert service.requests == []
    assert not project.root.exists()


def test_invalid_setting_is_a_value_error_and_is_not_retried() -> None:
    error = InvalidSetting("LATER_X: why")
    assert isinstance(error, ValueError)
    assert error.allow_retries is False
