"""The data of the page's script."""

import re
from importlib.resources import files

from later_reporting_dagster import report, rollups
from later_reporting_dagster.lake.tables import CAMPAIGNS_TABLE, PERIODS_TABLES
from later_reporting_dagster.report.report_data import SHOWN_TABLES, QuarantinedRows
from later_reporting_dagster.report.report_page import page_data
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.report.conftest import NEWEST, report_of
from tests.rollups.reference import World


def test_campaigns_that_the_page_does_not_know_do_not_count_as_their_instance(world: World) -> None:
    data = page_data(report_of(world, without=["organic_paid_by_campaign", "campaign_results", "posts"]))
    for name, position in (("days", "age"), ("results", "time_window"), ("networks", "platform")):
        columns = data[name]
        names = ("instance", "campaign", position, *(["time_window"] if name == "networks" else []))
        rows = (columns[each]["rows"] if isinstance(columns[each], dict) else columns[each] for each in names)
        scopes = [*zip(*rows, strict=True)]
        assert {*columns["campaign"]} == {None}
        assert len(scopes) == len({*scopes}) > 0


def test_instance_of_which_all_rows_are_quarantined_is_named(world: World) -> None:
    bad = QuarantinedRows("posts_published", NEWEST, "refused", "post_id: null", 3)
    assert "refused" in report_of(world, quarantined=[bad]).instances


def test_report_follows_the_tables_that_its_query_reads() -> None:
    queries = [each for each in files(report).iterdir() if each.name.endswith(".sql")]
    queries.append(files(rollups).joinpath("silent_platforms.sql"))
    read = {name for query in queries for name in re.findall(r"(?:FROM|JOIN) (\w+)", query.read_text("utf-8"))}
    stored = (*(table.name for table in TABLES), *PERIODS_TABLES, CAMPAIGNS_TABLE)
    assert {*SHOWN_TABLES} == {name for name in stored if name in read}
