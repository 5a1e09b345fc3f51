"""A lake that an earlier release has written: what it lacks is said, and the command that is named brings it."""

import re

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, Lake
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS
from tests.cli.conftest import User
from tests.cli.test_backfill import RANGE

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
