"""What a new table or check must have beside its declaration. CONTRIBUTING.md says where."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml  # type: ignore[import-untyped]

from later_reporting_dagster import LaterReportingComponent, contract
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion, PerformanceQuery
from later_reporting_dagster.defs.checks.all_checks import check_steps
from later_reporting_dagster.defs.component_base import ASSET_NAMES
from later_reporting_dagster.lake.tables import PERIODS_TABLES, RAW_TABLES, RawTable, Table
from later_reporting_dagster.report.report_data import REPORT, SHOWN_TABLES
from later_reporting_dagster.rollups.rollup_tables import TABLES
from later_reporting_dagster.server.sandbox.sandbox_app import _BODIES as SANDBOX_BODIES
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, IndependentServer, Posts
from tests.rollups.worlds import REFERENCES

NOT_SHOWN = {"organic_paid_by_content_type", "organic_paid_weekly", "organic_by_age"}
"""Rollups that the report does not show."""

DAY = date(2024, 3, 1)
DOCS = Path(__file__).parents[1] / "docs"
FETCHED: Mapping[str, tuple[RawTable, Table]] = {
    **{name: (declared, declared.table) for name, declared in RAW_TABLES.items()},
    **{name: (periods.by_day, periods.table) for name, periods in PERIODS_TABLES.items()},
}
DOCUMENTS = {PAGED: "openapi.yaml", CURSOR: "openapi-cursor.yaml"}

each_fetched_table = pytest.mark.parametrize("name", FETCHED)
in_both_versions = pytest.mark.parametrize("version", DOCUMENTS, ids=str)


def section(page: str, title: str) -> str:
    """Return a section of a page of the documentation, without its heading; an empty text if there is none."""
    for text in re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]:
        heading, _, body = text.partition("\n")
        if title in heading:
            return body
    return ""


def unnamed(names: Iterable[str], text: str) -> set[str]:
    return {name for name in names if f"`{name}`" not in text}


def test_documentation_lists_every_table() -> None:
    page = (DOCS / "tables.md").read_text().partition("\n## ")[0]
    tables = "".join(row.split("|")[1] for row in page.splitlines() if row.startswith("|"))
    assert unnamed({*ASSET_NAMES} - {REPORT}, tables) == set()


@each_fetched_table
def test_documentation_has_a_section_with_the_columns_of_each_fetched_table(name: str) -> None:
    declared, table = FETCHED[name]
    own = section("tables.md", f"`{name}`")
    assert own, f"docs/tables.md has no section {name}"
    metrics = {metric.column for metric in declared.known_metrics}
    text = own + "".join(section("tables.md", f"`{other}`") for other in FETCHED if f"`{other}`" in own)
    assert unnamed({column.name for column in table.columns} - metrics, text) == set()
    assert unnamed(metrics, section("tables.md", "Metrics")) == set()


def test_every_table_has_checks_that_the_documentation_explains() -> None:
    checks: dict[str, set[str]] = {}
    for step in check_steps(LaterReportingComponent()):
        for table, of_table in step.checks.items():
            checks.setdefault(table, set()).update(check.name for check in of_table)
    assert {*ASSET_NAMES} - {REPORT, "coverage"} - checks.keys() == set()
    assert {name for name in FETCHED if "quarantine_is_empty" not in checks[name]} == set()
    assert unnamed(set().union(*checks.values()), section("daily.md", "A red check")) == set()


@in_both_versions
@each_fetched_table
def test_independent_server_answers_the_route_of_each_fetched_table(name: str, version: ApiVersion) -> None:
    declared, _ = FETCHED[name]
    route = declared.route
    posts = Posts(
        first_day=DAY - timedelta(days=2), days=3, instance_ids=("north",), seed=1, least=5, has_large_values=False
    )
    server = IndependentServer(posts, by_cursor=version.uses_cursors)
    credentials = json.dumps({"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}).encode()
    token = server.respond("POST", "/oauth/token", body=credentials).document["jwt"]
    query = PerformanceQuery(
        start_date=DAY,
        end_date=DAY,
        instance_ids=("north",),
        date_basis=declared.date_basis,
        metrics=declared.known_metrics[:4],
    )
    keys = []
    for personal_data in (True, False):
        target = f"{route.path}?{urlencode(route.parameters(query, version))}"
        reply = server.respond("GET", target, authorization=f"Bearer {token}")
        assert reply.status == 200, f"tests/independent_server.py does not answer {target}"
        page = route.parse_page(json.dumps(reply.document).encode(), query, version, personal_data=personal_data)
        # Without personal data, rows have the same keys.
        assert ([row.reason for row in page.bad_rows], route.find_problem(query, page)) == ([], None)
        keys.append(route.row_keys(page))
    assert keys[0]
    assert keys[0] == keys[1]


@in_both_versions
def test_sandbox_and_openapi_document_have_the_routes_of_all_fetched_tables(version: ApiVersion) -> None:
    paths = {declared.route.path for declared, _ in FETCHED.values()}
    assert paths - {route.path for route in SANDBOX_BODIES} == set()
    document = files(contract).joinpath(DOCUMENTS[version]).read_text(encoding="utf-8")
    assert paths - yaml.safe_load(document)["paths"].keys() == set()


def test_reference_computes_every_rollup() -> None:
    assert {table.name for table in TABLES} ^ REFERENCES.keys() == set()


def test_report_shows_each_rollup_or_is_decided_not_to() -> None:
    assert {table.name for table in TABLES} - {*SHOWN_TABLES} == NOT_SHOWN


def test_report_names_each_raw_table_in_its_own_words() -> None:
    labels = [table.label for table in RAW_TABLES.values()]
    assert all(labels)
    assert len({*labels}) == len(labels)
