"""The key figures in the metadata of the report's asset."""

from later_reporting_dagster.report.report_data import ReportData
from tests.rollups.reference import World, by_window
from tests.rollups.worlds import agree


def test_key_figures_equal_the_reference(world: World, report_of_world: ReportData) -> None:
    figures = report_of_world.key_figures
    (expected,) = (row for row in by_window(world, "organic_paid_overall") if row["instance_id"] is None
                   and row["time_window"] == "28d")  # fmt: skip
    compared = figures.keys() & expected.keys()
    assert len(compared) > 10
    assert not [name for name in compared if not agree(expected[name], figures[name], name)]
