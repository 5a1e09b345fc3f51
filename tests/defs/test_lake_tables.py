"""Tables of the lake are found among the assets by their column schema."""

import dagster as dg
import pytest

from later_reporting_dagster.defs.lake_tables import table_from_metadata, table_specs
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import POST_COLUMNS, schema_of
from tests.defs.conftest import Project


def test_tables_are_found_by_their_column_schema(project: Project) -> None:
    tables = table_specs(project.defs, DefinitionSettings())
    assert list(tables) == sorted(tables)
    spec = tables["posts_published"]
    table = table_from_metadata(spec.key, spec.metadata, is_partitioned=True)
    assert schema_of(table.columns).equals(schema_of(POST_COLUMNS))
    with pytest.raises(ValueError, match="it has no column schema"):
        table_from_metadata(dg.AssetKey("a report"), {}, is_partitioned=False)
