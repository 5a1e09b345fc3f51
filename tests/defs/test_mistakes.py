"""What a user can get wrong in a setting, in the Launchpad or in a partition's key: one line names it and the fix."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from later_reporting_dagster.defs.resource import LaterReportingResource, SettingIsWrong
from later_reporting_dagster.defs.settings import LoadSettings
from tests.conftest import Service
from tests.defs.conftest import QUIETLY, Project, asset_key, failure

DAY = "2024-03-01"
NOT_A_BASE_URL = (
    r"LATER_BASE_URL \(base_url\): the base URL is a scheme and a host, as https://reporting\.api\.later\.com"
)
IN_THE_CLEAR = r"LATER_BASE_URL \(base_url\): .*in the clear: use https"
CREDENTIALS = r"LATER_CLIENT_ID \(client_id\), LATER_CLIENT_SECRET \(client_secret\)"
INSTANCES = r"LATER_INSTANCE_IDS \(instance_ids\): "
LAKE = r"LATER_LAKE_ROOT \(lake_root\): "


@dataclass(frozen=True)
class Mistake:
    """A setting with a wrong value, as the resource's field has it, and the line that is due."""

    field: str
    value: str
    line: str

    def __str__(self) -> str:
        return f"{self.field}={self.value[:30]!r}"

    @property
    def variable(self) -> str:
        return f"LATER_{self.field.upper()}"


OF_THE_CLIENT = [
    Mistake("base_url", "example.com", NOT_A_BASE_URL),
    Mistake("base_url", "https://example.com/v2", NOT_A_BASE_URL),
    Mistake("base_url", "https://someone:pa55word@example.com", NOT_A_BASE_URL),
    Mistake("base_url", "http://127.0.0.1:99999", NOT_A_BASE_URL),
    Mistake("base_url", "http://example.com", IN_THE_CLEAR),
    Mistake("base_url", "http://localhost.evil.com", IN_THE_CLEAR),
    Mistake("client_id", "", r"no credentials: set .*\(LATER_CLIENT_ID is empty\)"),
    Mistake("client_secret", "", r"no credentials: set .*\(LATER_CLIENT_SECRET is empty\)"),
    Mistake("client_id", "copied\u2026", rf"{CREDENTIALS}: the client id holds .*: copy it anew"),
    Mistake("client_secret", "pa55word\n", rf"{CREDENTIALS}: the client secret holds a line break.*: copy it anew"),
    Mistake("client_secret", "pa55w\u00f6rd", rf"{CREDENTIALS}: the client secret holds .*ASCII: copy it anew"),
    Mistake("client_secret", "pa55word\udcff", rf"{CREDENTIALS}: the client secret holds .*: copy it anew"),
    Mistake("access_token", "Bearer pa55word", r"LATER_ACCESS_TOKEN \(access_token\): .*holds spaces.*: copy it anew"),
    Mistake("access_token", "pa55word\n", r"LATER_ACCESS_TOKEN \(access_token\): .*line breaks.*: copy it anew"),
]
OF_THE_LAKE = [
    Mistake("lake_root", "  ", rf"{LAKE}.*is empty: give a directory"),
    Mistake("lake_root", "nowhere://someone:pa55word@lake", rf"{LAKE}.*nowhere://lake cannot .*Give a directory"),
    Mistake("lake_root", "dropbox://lake", rf"{LAKE}.*dropbox://lake cannot .*package for it installed"),
    Mistake("lake_root", "s3:/bucket/lake", rf"{LAKE}a URL has two slashes after its scheme, as s3://bucket/lake"),
    Mistake("lake_root", "/data/lake\n", rf"{LAKE}it has a line break.*: give it without"),
    Mistake("lake_root", "/data/la\0ke", rf"{LAKE}it has .*another control character.*: give it without"),
]
OF_THE_INSTANCES = [
    Mistake("instance_ids", ",", rf"{INSTANCES}',' names no instance: leave it empty to mean all"),
    Mistake("instance_ids", "a," + "x" * 300, rf"{INSTANCES}instance id 'xxx.*has room for"),
    Mistake("instance_ids", "a,\udcff", rf"{INSTANCES}instance id '\\udcff' is not valid Unicode"),
]
AT_LOAD = [
    Mistake("start_date", "spring", "LATER_START_DATE is a day as YYYY-MM-DD, not 'spring'"),
    Mistake("start_date", "2024-02-30", "LATER_START_DATE is a day as YYYY-MM-DD, not '2024-02-30'"),
    Mistake("start_date", "0024-01-01", "LATER_START_DATE is a day from 2000-01-01 on, not '0024-01-01'"),
    Mistake("restate_days", "0", "LATER_RESTATE_DAYS is a whole number from 1 to 730, not '0'"),
    Mistake("restate_days", "731", "LATER_RESTATE_DAYS is a whole number from 1 to 730, not '731'"),
    Mistake("restate_days", "\u00b2", "LATER_RESTATE_DAYS is a whole number from 1 to 730, not '\u00b2'"),
    Mistake("restate_days", "9" * 5000, r"LATER_RESTATE_DAYS is a whole number from 1 to 730, not '9{40}'…"),
    Mistake("restate_days", "28\n", r"LATER_RESTATE_DAYS is a whole number from 1 to 730, not '28\\n'"),
    Mistake("due_hour_utc", "24", "LATER_DUE_HOUR_UTC is a whole number from 0 to 23, not '24'"),
    Mistake("requests_per_minute", "many", "LATER_REQUESTS_PER_MINUTE is a whole number from 1 to 1000000, not 'many'"),
    Mistake("requests_per_minute", "0", "LATER_REQUESTS_PER_MINUTE is a whole number from 1 to 1000000, not '0'"),
    Mistake("shrink_limit_percent", "101", "LATER_SHRINK_LIMIT_PERCENT is a whole number from 0 to 100, not '101'"),
    Mistake("bad_rows_limit_percent", "5%", "LATER_BAD_ROWS_LIMIT_PERCENT is a whole number from 0 to 100, not '5%'"),
    Mistake("memory_gb", "0.25", "LATER_MEMORY_GB is a number of GB above 0.25, such as 2 or 1.5, not '0.25'"),
    Mistake("memory_gb", "2 GB", "LATER_MEMORY_GB is a number of GB above 0.25, such as 2 or 1.5, not '2 GB'"),
]


def set_wrong(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, mistake.variable, mistake.value.replace("\0", "\x01"))  # no environment holds a NUL


@pytest.mark.parametrize("mistake", [*OF_THE_CLIENT, *OF_THE_LAKE], ids=str)
def test_a_run_from_the_launchpad_fails_with_the_line(mistake: Mistake, project: Project, service: Service) -> None:
    config = {**QUIETLY, "resources": {"later": {"config": {mistake.field: mistake.value}}}}
    result = launched(project, config=config, tags={PARTITION_TAG: DAY})
    description, _ = failure(result)
    assert re.fullmatch(f"{mistake.line}.*", description)
    assert "pa55w" not in description
    assert service.requests == []


@pytest.mark.parametrize(
    ("field", "value", "takes"),
    [
        ("requests_per_minute", 0, "1 to 1000000"),
        ("shrink_limit_percent", 101, "0 to 100"),
        ("bad_rows_limit_percent", -1, "0 to 100"),
    ],
)
def test_a_number_from_the_launchpad_fails_with_the_line(field: str, value: int, takes: str, project: Project) -> None:
    config = {**QUIETLY, "resources": {"later": {"config": {field: value}}}}
    description, _ = failure(launched(project, config=config, tags={PARTITION_TAG: DAY}))
    assert description == f"LATER_{field.upper()} ({field}): a whole number from {takes}, not {value}"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"requests_per_minute": "many"}, 'requests_per_minute. Value "many"'),
        ({"requests_per_minutes": 60}, 'unexpected config entry "requests_per_minutes"'),
        ({"instance_ids": ["a"]}, "root:resources:later:config:instance_ids"),
        ({"client_secret": {"env": "NO_SUCH_VARIABLE"}}, 'environment variable "NO_SUCH_VARIABLE" which is not set'),
        ({"requests_per_minute": {"env": "LATER_CLIENT_SECRET"}}, '"LATER_CLIENT_SECRET" cannot be coerced'),
    ],
)
def test_a_field_that_dagster_refuses_is_named_before_anything_runs(
    config: dict[str, Any], named: str, project: Project, service: Service
) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError) as refused:
        launched(project, config={**QUIETLY, "resources": {"later": {"config": config}}}, tags={PARTITION_TAG: DAY})
    assert named in str(refused.value)
    assert "sandbox-secret" not in str(refused.value)
    assert service.requests == []


@pytest.mark.parametrize("mistake", AT_LOAD, ids=str)
def test_what_shapes_the_definitions_is_named_when_they_load(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    set_wrong(mistake, monkeypatch)
    with pytest.raises(ValueError, match=mistake.variable) as refused:
        definitions(LoadSettings.from_environment())
    assert re.fullmatch(mistake.line, str(refused.value))


@pytest.mark.parametrize("mistake", [*OF_THE_CLIENT, *OF_THE_LAKE, *OF_THE_INSTANCES], ids=str)
def test_definitions_load_whatever_only_a_run_needs(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    set_wrong(mistake, monkeypatch)
    resource = LaterReportingResource.from_environment()
    assert mistake.value == "" or getattr(resource, mistake.field) == dg.EnvVar(mistake.variable)


# Partition keys, as tags that anyone can type.


def launched(
    project: Project, *, config: dict[str, Any], tags: dict[str, str], asset: str = "posts_published"
) -> dg.ExecuteInProcessResult:
    return project.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=project.instance,
        asset_selection=[asset_key(asset)],
        tags=tags,
        run_config=config,
        raise_on_error=False,
    )


def range_of(start: str, end: str) -> dict[str, str]:
    return {RANGE_START_TAG: start, RANGE_END_TAG: end}


TODAY = datetime.now(UTC).date()
NOT_OVER = r"The day \S+ is not over yet: the newest partition is \S+ \(UTC\)\. End the range there\."


@pytest.mark.parametrize("asset", ["posts_published", "organic_paid_by_publish_day"])
@pytest.mark.parametrize(
    ("tags", "line"),
    [
        ({}, "The run names no partition: select those"),
        (range_of("2024-03-02", "2024-03-01"), "The range 2024-03-02 to 2024-03-01 holds no .* before its start"),
        (range_of("2024-02-01", "2024-03-01"), "There is no partition 2024-02-01 to 2024-03-01: .*YYYY-MM-DD"),
        ({PARTITION_TAG: str(TODAY)}, NOT_OVER),
        (range_of("2024-03-01", str(TODAY + timedelta(days=400))), NOT_OVER),
    ],
)
def test_a_partition_that_is_none_fails_the_run_with_the_line(
    asset: str, tags: dict[str, str], line: str, project: Project, service: Service
) -> None:
    description, _ = failure(launched(project, config=QUIETLY, tags=tags, asset=asset))
    assert re.match(line, description)
    assert "\n" not in description
    assert service.requests == []
    assert not project.root.exists()


@pytest.mark.parametrize(
    ("tags", "named"), [(range_of("x", "y"), "'x' does not match"), ({RANGE_START_TAG: DAY}, RANGE_START_TAG)]
)
def test_a_range_that_dagster_refuses_is_named_before_anything_runs(
    tags: dict[str, str], named: str, project: Project, service: Service
) -> None:
    with pytest.raises(Exception, match=re.escape(named)):  # of another kind each time
        launched(project, config=QUIETLY, tags=tags)
    assert service.requests == []


@pytest.mark.parametrize(
    ("config", "named"),
    [({"instance": ["a"]}, 'unexpected config entry "instance"'), ({"only_missing": "yes"}, "only_missing")],
)
def test_run_config_that_is_none_is_named_before_anything_runs(
    config: dict[str, Any], named: str, project: Project, service: Service
) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=named):
        project.fetch("posts_published", **config)
    assert service.requests == []


def test_a_wrong_setting_is_a_value_error_and_fails_a_run_for_good() -> None:
    wrong = SettingIsWrong("LATER_X: why")
    assert isinstance(wrong, ValueError)
    assert (str(wrong), wrong.description, wrong.allow_retries) == ("LATER_X: why", "LATER_X: why", False)
