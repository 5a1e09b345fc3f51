"""The version of each rollup's definition is raised with its SQL: otherwise files of the old SQL would stay."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from later_reporting_dagster.rollups.rollup_tables import TABLES, RollupTable
from later_reporting_dagster.rollups.sql_engine import facts_sql, query_sql

# By table, its version and a hash of its SQL.
DEFINITIONS = Path(__file__).with_name("definitions.json")


def sql_of(table: RollupTable) -> str:
    """Return all SQL that makes a table, without comments and layout."""
    return " ".join(re.sub(r"--[^\n]*", "", ";".join([*facts_sql(table).values(), query_sql(table)])).split())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_changed_sql_has_a_new_version(table: RollupTable) -> None:
    recorded = json.loads(DEFINITIONS.read_text()).get(table.name)
    found = hashlib.sha256(sql_of(table).encode()).hexdigest()[:16]
    assert [table.definition, found] == recorded, (
        f"The SQL of {table.name} is not as recorded. If its results change, raise RollupTable.definition: every lake"
        f" then computes the table again. Then set {DEFINITIONS.name} to {table.definition} and {found}."
    )
