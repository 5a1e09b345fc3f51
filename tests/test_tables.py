"""docs/tables.md says what is so: its dictionaries are the code's. `python -m tests.test_tables` writes them anew."""

import re
from collections.abc import Sequence
from pathlib import Path

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.ingest.instance_dimension import INSTANCE_COLUMNS
from later_reporting_dagster.lake import POST_COLUMNS, Column, post_columns
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, BY_CREATOR, BY_DAY, BY_PLATFORM, TABLES, WEEKLY

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "tables.md"


def beyond(columns: Sequence[Column], others: Sequence[Column]) -> list[Column]:
    """The columns that others do not have."""
    names = {column.name for column in others}
    return [column for column in columns if column.name not in names]


DAILY, BY_PUBLISH_DAY = BY_DAY
DICTIONARIES: dict[str, Sequence[Column]] = {
    "columns of posts": POST_COLUMNS,
    "columns of instances": INSTANCE_COLUMNS,
    "columns of further metrics": beyond(post_columns(METRICS), POST_COLUMNS),
    "columns of organic_paid_daily": DAILY.columns,
    "columns of spend": beyond(BY_PUBLISH_DAY.columns, DAILY.columns),
    "columns of organic_paid_weekly": beyond(WEEKLY.columns, DAILY.columns),
    "columns of organic_paid_by_campaign": BY_CAMPAIGN.columns,
    "columns of organic_paid_by_creator": beyond(BY_CREATOR.columns, BY_CAMPAIGN.columns),
    "columns of organic_paid_by_platform": beyond(BY_PLATFORM.columns, BY_CAMPAIGN.columns),
}


def dictionary(columns: Sequence[Column]) -> str:
    """A table's dictionary as Markdown."""
    is_computed = any(column.computed for column in columns)
    rows = [["column", "type", "unit", "meaning", "how computed"], ["---"] * 5]
    rows += [[f"`{each.name}`", each.type, each.unit, each.description, each.computed] for each in columns]
    return "\n".join(f"| {' | '.join(row if is_computed else row[:4])} |" for row in rows)


def with_dictionaries(text: str) -> str:
    """The document with each dictionary as the code has it."""
    for name, columns in DICTIONARIES.items():
        marker = f"<!-- {name} -->"
        pattern = re.escape(marker) + r"\n(?:\n?\|.*\n)*"
        text = re.sub(pattern, lambda _, marker=marker, columns=columns: f"{marker}\n\n{dictionary(columns)}\n", text)
    return text


def test_the_dictionaries_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert all(f"<!-- {name} -->" in text for name in DICTIONARIES)
    assert with_dictionaries(text) == text, "write them anew: python -m tests.test_tables"


def test_every_table_has_its_heading() -> None:
    headings = set(re.findall(r"^##+ `(\w+)`$", DOCUMENT.read_text(), re.MULTILINE))
    assert headings == {"post_metrics_daily", "posts_published", "instances", *(table.name for table in TABLES)}


def test_the_readme_names_every_table_and_leads_here() -> None:
    section = (ROOT / "README.md").read_text().partition("## Tables")[2].partition("\n## ")[0]
    assert {table.name for table in TABLES} <= set(re.findall(r"`(\w+)`", section))
    assert "(docs/tables.md)" in section


if __name__ == "__main__":
    DOCUMENT.write_text(with_dictionaries(DOCUMENT.read_text()))
