"""Pages list the columns and the settings of the code. `python -m tests.test_tables` rewrites these tables."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from later_reporting_dagster import LaterReportingComponent, LaterReportingResource
from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.rows import Campaign, CreatorProfile, Post
from later_reporting_dagster.defs.component_base import WITHOUT_VARIABLE
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, POST_COLUMNS, Column, post_columns
from later_reporting_dagster.rollups.rollup_tables import (
    BY_CONTENT_TYPE,
    CAMPAIGN_RESULTS,
    CAMPAIGNS_MONTHLY,
    DAILY,
    POSTS,
    TABLES,
)
from later_reporting_dagster.rollups.templates import PREVIOUS

ROOT = Path(__file__).parents[1]
TABLES_PAGE, SETTINGS_PAGE = ROOT / "docs" / "tables.md", ROOT / "docs" / "settings.md"
SETTINGS = {
    "settings of the component": LaterReportingComponent.model_fields,
    "settings of the resource": LaterReportingResource.model_fields,
}


def test_every_field_of_a_row_has_a_column() -> None:
    """A field without a column would be lost: it is not in `extra`."""
    of_posts = {*Post.__struct_fields__} - {"creator_profile"}
    of_posts |= {f"creator_{name}" for name in CreatorProfile.__struct_fields__}
    assert of_posts == {column.name for column in post_columns([])} - {"platform"}
    seen = {"first_seen", "last_seen", "listed_now"}
    assert {*Campaign.__struct_fields__} == {column.name for column in CAMPAIGN_COLUMNS} - seen


def without(columns: Sequence[Column], others: Sequence[Column]) -> list[Column]:
    """Return the columns that have another meaning than those of the same name, or no other of that name."""
    meanings = {(column.name, column.description) for column in others}
    return [column for column in columns if (column.name, column.description) not in meanings]


PREVIOUS_COLUMNS = {f"previous_{name}" for name in PREVIOUS}
GROUPS = ("platform", "content_type")
COLUMN_TABLES: dict[str, Sequence[Column]] = {
    "columns of organic_paid_daily": without(DAILY.columns, POST_COLUMNS),
    "columns of windows": [
        column
        for column in without(BY_CONTENT_TYPE.columns, DAILY.columns)
        if column.name not in (*PREVIOUS_COLUMNS, *GROUPS)
    ],
    "columns of the table posts": without(POSTS.columns, POST_COLUMNS),
    "columns of campaign_results": [
        column
        for column in without(CAMPAIGN_RESULTS.columns, [*DAILY.columns, *BY_CONTENT_TYPE.columns])
        if not column.name.startswith(("api_", "tracking_links", "affiliate_links", "paid_clicks"))
    ],
    "columns of campaigns_monthly": without(CAMPAIGNS_MONTHLY.columns, CAMPAIGN_RESULTS.columns),
}


def metrics_table() -> str:
    """Return a Markdown table of the metrics, in one row those that the same tables have."""
    available: dict[str, dict[str, str]] = {}
    for table, words, metrics in (
        ("of posts", "if named", METRICS),
        ("of posts", "by default", DEFAULT_METRICS),
        ("of campaigns", "if named", CAMPAIGN_METRICS),
        ("of campaigns", "by default", DEFAULT_CAMPAIGN_METRICS),
        ("of account days", "yes", OVER_TIME_METRICS),
        ("of account periods", "yes", ACCOUNT_METRICS),
    ):
        for metric in metrics:
            available.setdefault(metric.column, {})[table] = words
    tables = ["of posts", "of campaigns", "of account days", "of account periods"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for column, cells in available.items():
        groups.setdefault(tuple(cells.get(table, "") for table in tables), []).append(f"`{column}`")
    return markdown_rows([["metrics", *tables], *([", ".join(names), *cells] for cells, names in groups.items())])


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    header, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, f"|{' --- |' * len(rows[0])}", *others])


def markdown_table(columns: Sequence[Column]) -> str:
    """Return a Markdown table that documents columns, with one row for columns that differ only in what they count."""
    groups: dict[tuple[str, ...], list[tuple[Column, list[str]]]] = {}
    for column in columns:
        cells = [column.type, column.unit, column.description]
        common = tuple(_without_metric(_common_text(text), column) for text in (column.name, *cells))
        groups.setdefault(common, []).append((column, cells))
    rows = [["column", "type", "unit", "meaning"]]
    for (_, *common), group in groups.items():
        cells = group[0][1]
        if len(group) > 1:
            is_of_one_metric = len({_metric(column) for column, _ in group}) == 1
            cells = [_common_text(cell) for cell in cells] if is_of_one_metric else common
            cells[2] = cells[2][:1].upper() + cells[2][1:]
        rows.append([", ".join(f"`{column.name}`" for column, _ in group), *cells])
    return markdown_rows(rows)


def _common_text(text: str) -> str:
    """Return a text without the channel."""
    return re.sub(r"(organic|paid)_|\b(organic|paid) ", "", text, flags=re.IGNORECASE)


def _metric(column: Column) -> str:
    return re.sub(r"^(organic|paid)_|_(posts|percentile)$", "", column.name)


def _without_metric(text: str, column: Column) -> str:
    name = _metric(column).replace("_", "[_ ]")
    return re.sub(rf"(?<![a-z]){name}(?![a-z])", "…", text, flags=re.IGNORECASE)


def settings_table(fields: Mapping[str, FieldInfo]) -> str:
    """Return a Markdown table of the fields that have an environment variable."""
    rows = [["environment variable", "default", "meaning"]]
    for name, field in fields.items():
        if name not in WITHOUT_VARIABLE:
            is_stated = isinstance(field.default, str | int | float | date) and field.default != ""
            default = f"`{str(field.default).lower()}`" if is_stated else ""
            rows.append([f"`LATER_{name.upper()}`", default, str(field.description)])
    return markdown_rows(rows)


GENERATED = {
    TABLES_PAGE: {
        "columns of metrics": metrics_table(),
        **{name: markdown_table(columns) for name, columns in COLUMN_TABLES.items()},
    },
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


def test_tables_page_names_every_column() -> None:
    page = TABLES_PAGE.read_text()
    columns = {column.name for table in TABLES for column in table.columns}
    assert {name for name in columns - PREVIOUS_COLUMNS if f"`{name}`" not in page} == set()


if __name__ == "__main__":
    for each in GENERATED:
        each.write_text(with_generated_tables(each))
