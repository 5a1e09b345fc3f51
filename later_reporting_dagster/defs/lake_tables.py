"""Find the assets that are tables of the lake. An asset is a table if it has a column schema."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import dagster as dg

from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import Column, Table
from later_reporting_dagster.lake.tables import ColumnType

_COLUMN_SCHEMA = "dagster/column_schema"


def is_table(spec: dg.AssetSpec) -> bool:
    """Return whether an asset is a table of the lake, which `LaterLake` can load into other assets."""
    return _COLUMN_SCHEMA in spec.metadata


def table_specs(definitions: dg.Definitions, settings: DefinitionSettings) -> Mapping[str, dg.AssetSpec]:
    """Return the tables of a component, by name, as specs of external assets: without dependencies or automation."""
    specs: Iterable[dg.AssetSpec] = definitions.resolve_all_asset_specs()
    external: dict[str, Any] = {"deps": [], "automation_condition": None}
    return {
        spec.key.path[-1]: spec.replace_attributes(**external)
        for spec in sorted(specs, key=lambda spec: spec.key.to_user_string())
        if is_table(spec) and spec.key == settings.asset_key(spec.key.path[-1])
    }


def table_from_metadata(key: dg.AssetKey, metadata: Mapping[str, Any], *, is_partitioned: bool) -> Table:
    """Return the table of an asset, from its definition metadata.

    Raises:
        ValueError: the asset has no column schema.
    """
    schema = metadata.get(_COLUMN_SCHEMA)
    if schema is None:
        raise ValueError("it has no column schema: add `*later_tables().values()` to the assets of your definitions")
    column_schema: dg.TableSchema = schema.value if isinstance(schema, dg.TableSchemaMetadataValue) else schema
    columns = [
        Column(
            name=column.name,
            type=cast("ColumnType", column.type),
            nullable=column.constraints.nullable,
            description=column.description or "",
        )
        for column in column_schema.columns
    ]
    return Table(key.path[-1], tuple(columns), is_partitioned)


def all_tables(definitions: dg.Definitions, settings: DefinitionSettings) -> list[Table]:
    """Return the tables of a component as `Table` objects, which contain nothing of Dagster."""
    specs = table_specs(definitions, settings).values()
    return [
        table_from_metadata(spec.key, spec.metadata, is_partitioned=spec.partitions_def is not None) for spec in specs
    ]
