"""The key figures in the metadata of the report's asset."""

from later_reporting_dagster.report.kpis import KPIS, VERDICTS, key_figures, kpis_markdown
from later_reporting_dagster.report.report_data import ReportData
from tests.rollups.reference import World, by_window
from tests.rollups.worlds import agree


def test_key_figures_equal_the_reference(world: World, report_of_world: ReportData) -> None:
    figures = key_figures(report_of_world)
    (expected,) = (row for row in by_window(world, "organic_paid_overall") if row["instance_id"] is None
                   and row["time_window"] == "28d")  # fmt: skip
    names = {name for name, *_ in KPIS} | {*VERDICTS}
    assert not [name for name in names & expected.keys() if not agree(expected[name], figures[name], name)]
    assert names <= figures.keys()


def test_kpis_markdown_shows_the_previous_period(report_of_world: ReportData) -> None:
    figures = key_figures(report_of_world)
    lines = kpis_markdown(figures | {"paid_ad_spend": None, "paid_lift": 0.001}).splitlines()
    assert (
        f"| Organic impressions | {figures['organic_impressions']:,} | {figures['previous_organic_impressions']:,} |"
        in lines
    )
    assert {"| Ad spend | not available |  |", "| Paid lift | <0.01\u00a0× |  |"} <= {*lines}
