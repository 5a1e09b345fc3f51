"""The data of the page's script."""

import re
from importlib.resources import files

from later_reporting_dagster import report
from later_reporting_dagster.lake.tables import PERIODS_TABLES
from later_reporting_dagster.report.report_data import SHOWN_TABLES, QuarantinedRows
from later_reporting_dagster.report.report_page import page_data
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.report.conftest import NEWEST, report_of
from tests.rollups.reference import World


def test_campaigns_without_figures_do_not_count_as_their_instance(world: World) -> None:
    data = page_data(report_of(world, without=["organic_paid_by_campaign", "campaign_results"]))
    for name, position in (("days", "age"), ("published", "time_window")):
        columns = data[name]
        scopes = [*zip(columns["instance"], columns["campaign"], columns[position], strict=True)]
        assert {campaign for _, campaign, _ in scopes} == {None}
        assert len(scopes) == len({*scopes}) > 0


def test_instance_of_which_all_rows_are_quarantined_is_named(world: World) -> None:
    bad = QuarantinedRows("posts_published", NEWEST, "refused", "post_id: null", 3)
    assert "refused" in report_of(world, quarantined=[bad]).instances


def test_report_follows_the_tables_that_its_query_reads() -> None:
    read = {*re.findall(r"(?:FROM|JOIN) (\w+)", files(report).joinpath("report.sql").read_text("utf-8"))}
    assert {*SHOWN_TABLES} == {name for name in (*(table.name for table in TABLES), *PERIODS_TABLES) if name in read}
