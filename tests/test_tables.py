"""docs/tables.md lists the columns of the code. `python -m tests.test_tables` rewrites its column tables."""

import re
from collections.abc import Sequence
from pathlib import Path

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_CAMPAIGN_METRICS, METRICS
from later_reporting_dagster.ingest.coverage import COVERAGE_COLUMNS
from later_reporting_dagster.ingest.dimensions import INSTANCE_COLUMNS
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    POST_COLUMNS,
    Column,
    campaign_performance_columns,
    post_columns,
)
from later_reporting_dagster.rollups.rollup_tables import (
    BY_AGE,
    BY_CAMPAIGN,
    BY_CONTENT_TYPE,
    BY_CREATOR,
    BY_PLATFORM,
    BY_PUBLISH_DAY,
    CAMPAIGN_RESULTS,
    COSTS_BY_CAMPAIGN,
    COSTS_OVERALL,
    DAILY,
    OVERALL,
    POST_BENCHMARKS,
    WEEKLY,
)

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "tables.md"


def without(columns: Sequence[Column], others: Sequence[Column]) -> list[Column]:
    """Return the columns whose names `others` lacks."""
    names = {column.name for column in others}
    return [column for column in columns if column.name not in names]


KEYS = [column for column in BY_CAMPAIGN.columns if column.name in BY_CAMPAIGN.grain]
CHANGED_IN_OVERALL = [column for column in OVERALL.columns if column.name in ("instance_id", "days", "days_expected")]
COLUMN_TABLES: dict[str, Sequence[Column]] = {
    "columns of posts": POST_COLUMNS,
    "columns of instances": INSTANCE_COLUMNS,
    "columns of coverage": COVERAGE_COLUMNS,
    "columns of campaigns": CAMPAIGN_COLUMNS,
    "columns of campaign_performance_daily": campaign_performance_columns(DEFAULT_CAMPAIGN_METRICS),
    "columns of further campaign metrics": without(
        campaign_performance_columns(CAMPAIGN_METRICS), campaign_performance_columns(DEFAULT_CAMPAIGN_METRICS)
    ),
    "columns of further metrics": without(post_columns(METRICS), POST_COLUMNS),
    "columns of organic_paid_daily": DAILY.columns,
    "columns of further metrics of comparisons": without(DAILY.with_metrics(METRICS).columns, DAILY.columns),
    "columns of organic_paid_weekly": without(WEEKLY.columns, DAILY.columns),
    "columns of organic_paid_by_campaign": BY_CAMPAIGN.columns,
    "columns of organic_paid_by_platform": without(BY_PLATFORM.columns, BY_CAMPAIGN.columns),
    "columns of organic_paid_by_content_type": without(BY_CONTENT_TYPE.columns, BY_CAMPAIGN.columns),
    "columns of organic_paid_by_creator": without(BY_CREATOR.columns, BY_CAMPAIGN.columns),
    "columns of organic_paid_overall": without(OVERALL.columns, without(BY_CAMPAIGN.columns, CHANGED_IN_OVERALL)),
    "columns of organic_paid_by_publish_day": BY_PUBLISH_DAY.columns,
    "columns of costs_by_campaign": without(COSTS_BY_CAMPAIGN.columns, without(BY_PUBLISH_DAY.columns, KEYS)),
    "columns of costs_overall": without(COSTS_OVERALL.columns, without(COSTS_BY_CAMPAIGN.columns, CHANGED_IN_OVERALL)),
    "columns of campaign_results": CAMPAIGN_RESULTS.columns,
    "columns of post_benchmarks": POST_BENCHMARKS.columns,
    "columns of organic_paid_by_age": BY_AGE.columns,
}


def markdown_table(columns: Sequence[Column]) -> str:
    """Return a Markdown table that documents columns."""
    is_computed = any(column.computation for column in columns)
    rows = [["column", "type", "unit", "meaning", "how computed"], ["---"] * 5]
    rows += [
        [f"`{column.name}`", column.type, column.unit, column.description, column.computation] for column in columns
    ]
    return "\n".join(f"| {' | '.join(row if is_computed else row[:4])} |" for row in rows)


def with_column_tables(text: str) -> str:
    """Return the document with all column tables regenerated."""
    for name, columns in COLUMN_TABLES.items():
        marker = f"<!-- {name} -->"
        pattern = re.escape(marker) + r"\n(?:\n?\|.*\n)*"
        text = re.sub(
            pattern, lambda _, marker=marker, columns=columns: f"{marker}\n\n{markdown_table(columns)}\n", text
        )
    return text


def test_docs_tables_lists_the_columns_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert all(f"<!-- {name} -->" in text for name in COLUMN_TABLES)
    assert with_column_tables(text) == text, "rewrite them with: python -m tests.test_tables"


if __name__ == "__main__":
    DOCUMENT.write_text(with_column_tables(DOCUMENT.read_text()))
