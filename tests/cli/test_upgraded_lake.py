"""What a lake of an earlier release, or of other settings, lacks is said, and the command that is named brings it."""

import re

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, Lake, partition_path
from later_reporting_dagster.lake.coverage import COVERAGE_SCHEMA
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS, COVERAGE_TABLE, POSTS_NAMES
from tests.cli.conftest import User
from tests.cli.test_backfill import RANGE
from tests.conftest import Service

OF_CAMPAIGNS = ("campaign_results", "campaigns_monthly")
FETCH_PERIODS = "later-reporting backfill --asset campaign_performance_periods"


def run_named_commands(user: User, text: str) -> list[str]:
    """Run the commands that a text names, and return them."""
    commands = re.findall(r"`(later-reporting [^`]+)`", text)
    for command in commands:
        result = user.run(*command.split()[1:])
        assert result.exit_code == 0, result.output
    return commands


def without_recorded_months(lake: Lake) -> None:
    """Rewrite the periods of campaigns as 1.0.0rc1 wrote them, with one kind of month."""
    rows = lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema)
    assert rows is not None
    rows = rows.filter(pc.field("period") != "recorded_month")
    names = pa.array(["month" if name == "published_month" else name for name in rows["period"].to_pylist()])
    index = rows.schema.get_field_index("period")
    rows = rows.set_column(index, rows.schema.field(index), names)
    metadata = lake.read_metadata(CAMPAIGN_PERIODS_TABLE)
    assert metadata is not None
    lake.write_table(CAMPAIGN_PERIODS_TABLE, rows, metadata={"months": metadata.key_values["months"]})


@pytest.fixture
def upgraded(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user of campaigns who has upgraded, and refreshed the lake."""
    fetched = ("campaigns", CAMPAIGN_PERIODS_TABLE, CAMPAIGN_PERFORMANCE_TABLE)
    monkeypatch.setenv("LATER_TABLES", ",".join((*OF_CAMPAIGNS, *fetched)))
    for asset in fetched:
        days = RANGE if asset == CAMPAIGN_PERFORMANCE_TABLE else ()
        assert user.run("backfill", "--asset", asset, *days).exit_code == 0
    without_recorded_months(Lake(str(user.lake)))
    assert user.run("refresh").exit_code == 0
    return user


def test_query_says_that_months_of_campaigns_are_not_fetched_yet(upgraded: User) -> None:
    sql = "SELECT month, count(recorded_until) AS recorded FROM campaigns_monthly GROUP BY ALL"
    found = upgraded.run("query", "--format", "csv", sql)
    assert found.stdout.splitlines()[1:] == []
    note = f"lacks what the API totals for calendar months: an earlier release has fetched {CAMPAIGN_PERIODS_TABLE}"
    for name in (*OF_CAMPAIGNS, CAMPAIGN_PERIODS_TABLE):
        stderr = upgraded.run("query", f"SELECT count(*) FROM {name}").stderr
        assert stderr.splitlines()[0].startswith(f"{name} {note}. Next step: ")
    doctor = upgraded.run("doctor").stdout
    assert f"without calendar months: run `{FETCH_PERIODS}`" in doctor

    assert run_named_commands(upgraded, found.stderr) == [FETCH_PERIODS, "later-reporting refresh"]
    found = upgraded.run("query", "--format", "csv", sql)
    assert found.stderr == ""
    assert {line.split(",")[0] for line in found.stdout.splitlines()[1:]} >= {"2024-02-01", "2024-03-01"}
    assert "without calendar months" not in upgraded.run("doctor").stdout


POSTS = "post_metrics_daily"
COMMAND = "later-reporting backfill --start 2024-03-01 --end 2024-03-01"
WITHOUT = f"requested without likes on 1 day (2024-03-01), which sums lack: run `{COMMAND}`"


def counted_days(user: User) -> list[str]:
    """Return the days of which the rollup sums likes."""
    sql = "SELECT date FROM organic_paid_daily GROUP BY ALL HAVING sum(organic_likes) > 0 ORDER BY ALL"
    return user.run("query", "--format", "csv", sql).stdout.splitlines()[1:]


@pytest.fixture
def with_added_metric(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user who has fetched two days, has added a metric, and has then fetched the second day again."""
    monkeypatch.setenv("LATER_TABLES", ",".join((POSTS, COVERAGE_TABLE, "organic_paid_daily")))
    monkeypatch.setenv("LATER_START_DATE", "2024-03-01")
    assert user.run("backfill", *RANGE).exit_code == 0
    monkeypatch.setenv("LATER_METRICS", ",".join((*(metric.api_name for metric in DEFAULT_METRICS), "likes")))
    assert user.run("backfill", "--start", "2024-03-02", "--end", "2024-03-02").exit_code == 0
    return user


@pytest.mark.parametrize("service", [CURSOR], indirect=True)
def test_days_before_a_metric_was_added_are_named_until_they_are_fetched(with_added_metric: User) -> None:
    user = with_added_metric
    assert counted_days(user) == ["2024-03-02"]
    assert f"{WITHOUT}\n" in user.run("doctor").stdout
    result = user.run("backfill", "--start", "2024-03-02", "--end", "2024-03-02")
    assert f"WARN  {POSTS}: files_have_requested_metrics: {WITHOUT}\n" in result.stdout

    assert run_named_commands(user, WITHOUT) == [COMMAND]
    assert counted_days(user) == ["2024-03-01", "2024-03-02"]
    assert "requested without" not in user.run("doctor").stdout
    assert "files_have_requested_metrics" not in user.run("backfill", *RANGE).stdout


@pytest.mark.parametrize("service", [CURSOR], indirect=True)
def test_refresh_records_the_metrics_of_files_that_an_earlier_release_fetched(
    with_added_metric: User, service: Service
) -> None:
    user, lake = with_added_metric, Lake(str(with_added_metric.lake))
    stored = lake.read_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    assert stored is not None
    lake.write_table(COVERAGE_TABLE, stored.drop_columns(["metrics"]))
    assert "requested without" not in user.run("doctor").stdout
    service.requests.clear()
    assert user.run("refresh").exit_code == 0
    assert service.data_requests == 0
    assert f"{WITHOUT}\n" in user.run("doctor").stdout
    again = lake.read_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    assert again is not None
    assert again["metrics"].equals(stored["metrics"])


@pytest.mark.parametrize("service", [CURSOR], indirect=True)
def test_networks_that_an_earlier_release_did_not_know_are_named_without_a_request(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_network = ("organic_paid_by_platform", "organic_paid_daily", "organic_paid_by_content_type", "posts")
    monkeypatch.setenv("LATER_TABLES", ",".join((*POSTS_NAMES, *by_network)))
    assert user.run("backfill", *RANGE).exit_code == 0
    lake = Lake(str(user.lake))

    def as_an_earlier_release_wrote_it(rows: pa.Table) -> pa.Table:
        for name, value in (("content_type", "twitch_stream"), ("platform", None)):
            position = rows.schema.get_field_index(name)
            column = pa.array([value] * len(rows), pa.string())
            rows = rows.set_column(position, rows.schema.field(position), column)
        return rows

    for name in POSTS_NAMES:
        for partition in lake.partitions(name):
            lake.rewrite(partition_path(name, partition), as_an_earlier_release_wrote_it)
    service.requests.clear()
    assert user.run("refresh").exit_code == 0
    for name in (*POSTS_NAMES, *by_network):
        found = user.run("query", "--format", "csv", f"SELECT DISTINCT platform, 'each scope' AS scope FROM {name}")
        assert (found.stdout.splitlines()[1:], name) == (["twitch,each scope"], name)
    assert service.requests == []
