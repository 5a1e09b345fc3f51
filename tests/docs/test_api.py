"""docs/api.md has the sections that comments in the code refer to, and says where its facts come from."""

import re

from later_reporting_dagster.contract import METRICS, ContentType, Platform, SortProperty
from tests.docs.conftest import PACKAGE, ROOT, section

PAGE = ROOT / "docs" / "api.md"
SECTIONS = [
    "Posts performance",
    "Date basis",
    "Metrics, null and units",
    "Authentication",
    "Instances",
    "Errors",
    "Rate limit",
    "Freshness",
    "Cursor version",
    "Campaigns",
    "Impressions and views",
    "Where the sources disagree",
]
FILES = [path for path in PACKAGE.rglob("*.*") if path.suffix in {".py", ".yaml", ".sql", ".html", ".js"}]


def test_api_page_has_the_sections_that_the_code_refers_to() -> None:
    assert re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE) == SECTIONS


def test_references_to_the_api_page_name_a_section() -> None:
    for file in FILES:
        text = re.sub(r"\s*\n\s*(?:#|--)?\s*", " ", file.read_text())
        for name in re.findall(r"docs/api\.md,? \"([^\"]+)\"", text):
            assert name in SECTIONS, f"{file.name}: {name}"


def test_each_section_names_its_source() -> None:
    sources = ("API reference", "vendor's documentation", "cursor documentation", "developers.facebook.com")
    assert [name for name in SECTIONS if not any(source in section(PAGE, name) for source in sources)] == []


def test_api_page_lists_the_values_of_the_contract() -> None:
    text = PAGE.read_text()
    values = [*ContentType, *Platform, *SortProperty]
    names = [*map(str, values), *(metric.api_name for metric in METRICS)]
    assert [name for name in names if f"`{name}`" not in text and f'"{name}"' not in text] == []
