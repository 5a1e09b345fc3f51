"""Pages list the columns and the settings of the code. `python -m tests.test_tables` rewrites these tables."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from later_reporting_dagster import LaterReportingComponent, LaterReportingResource
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
    BY_CREATOR,
    BY_PUBLISH_DAY,
    CAMPAIGN_RESULTS,
    DAILY,
    POST_BENCHMARKS,
    WEEKLY,
)

ROOT = Path(__file__).parents[1]
TABLES_PAGE, SETTINGS_PAGE = ROOT / "docs" / "tables.md", ROOT / "docs" / "settings.md"
SETTINGS = {
    "settings of the component": LaterReportingComponent.model_fields,
    "settings of the resource": LaterReportingResource.model_fields,
}


def without(columns: Sequence[Column], others: Sequence[Column]) -> list[Column]:
    """Return the columns whose names `others` lacks."""
    names = {column.name for column in others}
    return [column for column in columns if column.name not in names]


KEYS = [column for column in DAILY.columns if column.name in DAILY.grain]
COLUMN_TABLES: dict[str, Sequence[Column]] = {
    "columns of posts": POST_COLUMNS,
    "columns of instances": INSTANCE_COLUMNS,
    "columns of coverage": COVERAGE_COLUMNS,
    "columns of campaigns": CAMPAIGN_COLUMNS,
    "columns of campaign_performance_daily": without(
        campaign_performance_columns(DEFAULT_CAMPAIGN_METRICS), without(POST_COLUMNS, CAMPAIGN_COLUMNS)
    ),
    "columns of further campaign metrics": without(
        campaign_performance_columns(CAMPAIGN_METRICS),
        [*campaign_performance_columns(DEFAULT_CAMPAIGN_METRICS), *post_columns(METRICS)],
    ),
    "columns of further metrics": without(post_columns(METRICS), POST_COLUMNS),
    "columns of organic_paid_daily": DAILY.columns,
    "columns of organic_paid_weekly": without(WEEKLY.columns, DAILY.columns),
    "columns of organic_paid_by_campaign": [
        column for column in without(BY_CAMPAIGN.columns, DAILY.columns) if not column.name.startswith("previous_")
    ],
    "columns of organic_paid_by_creator": without(BY_CREATOR.columns, BY_CAMPAIGN.columns),
    "columns of organic_paid_by_publish_day": without(BY_PUBLISH_DAY.columns, KEYS),
    "columns of campaign_results": without(
        CAMPAIGN_RESULTS.columns, [*BY_CAMPAIGN.columns, *campaign_performance_columns(CAMPAIGN_METRICS)]
    ),
    "columns of post_benchmarks": without(POST_BENCHMARKS.columns, [each for each in POST_COLUMNS if not each.unit]),
    "columns of organic_paid_by_age": without(BY_AGE.columns, POST_COLUMNS),
}


def markdown_table(columns: Sequence[Column]) -> str:
    """Return a Markdown table that documents columns, with one row for columns that differ only in what they count."""
    is_computed = any(column.computation for column in columns)
    groups: dict[tuple[str, ...], list[Column]] = {}
    for column in columns:
        groups.setdefault(tuple(map(_common_text, (column.name, *_cells(column)))), []).append(column)
    rows = [["column", "type", "unit", "meaning", "how computed"], ["---"] * 5]
    for common, group in groups.items():
        cells = (
            _cells(group[0])
            if len(group) == 1
            else [common[1], common[2], common[3][:1].upper() + common[3][1:], common[4]]
        )
        rows.append([", ".join(f"`{column.name}`" for column in group), *cells])
    return "\n".join(f"| {' | '.join(row if is_computed else row[:4])} |" for row in rows)


def _cells(column: Column) -> list[str]:
    description = column.description.removesuffix("; null when not available; 0 is a measured zero")
    return [column.type, column.unit, description, column.computation]


def _common_text(text: str) -> str:
    """Return a text without the channel and the percentage of a quartile."""
    text = re.sub(r"(organic|paid)_|\b(organic|paid) ", "", text, flags=re.IGNORECASE)
    return re.sub(r"(?<=_p)\d\d\b|\b[257][05](?= % of)", "…", text)


def settings_table(fields: Mapping[str, FieldInfo]) -> str:
    """Return a Markdown table of the fields that have an environment variable."""
    rows = [["environment variable", "default", "meaning"], ["---"] * 3]
    for name, field in fields.items():
        if name not in ("translation", "resource"):
            is_stated = isinstance(field.default, str | int | float | date) and field.default != ""
            default = f"`{str(field.default).lower()}`" if is_stated else ""
            rows.append([f"`LATER_{name.upper()}`", default, str(field.description)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


GENERATED = {
    TABLES_PAGE: {name: markdown_table(columns) for name, columns in COLUMN_TABLES.items()},
    SETTINGS_PAGE: {name: settings_table(fields) for name, fields in SETTINGS.items()},
}


def with_generated_tables(page: Path) -> str:
    """Return the text of a page with its tables generated anew."""
    text = page.read_text()
    for name, table in GENERATED[page].items():
        text, count = re.subn(
            rf"<!-- {name} -->\n(?:\n?\|.*\n)*", f"<!-- {name} -->\n\n{table}\n".replace("\\", r"\\"), text
        )
        assert count == 1, name
    return text


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_page_lists_what_the_code_has(page: Path) -> None:
    assert with_generated_tables(page) == page.read_text(), "rewrite it with: python -m tests.test_tables"


if __name__ == "__main__":
    for each in GENERATED:
        each.write_text(with_generated_tables(each))
