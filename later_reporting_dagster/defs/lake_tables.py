"""The tables that the assets are, found by their column schema: whatever has one can be loaded, queried and listed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import dagster as dg

from later_reporting_dagster.lake import Column, Table
from later_reporting_dagster.lake.columns import ColumnType

# The key of the IO manager by which other assets load these, in our definitions and in anybody's.
LAKE_IO_MANAGER = "later_lake"
_COLUMN_SCHEMA = "dagster/column_schema"


def loadable(assets: Iterable[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """Return the assets with the IO manager that loads a table of theirs where another asset has it as an input."""

    def with_io_manager(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.with_io_manager_key(LAKE_IO_MANAGER) if _COLUMN_SCHEMA in spec.metadata else spec

    return [asset.map_asset_specs(with_io_manager) for asset in assets]


def tables_of(definitions: dg.Definitions) -> Mapping[str, dg.AssetSpec]:
    """Return the tables among the assets of `definitions`, by name, as specs for a code location that only reads."""
    specs: Iterable[dg.AssetSpec] = definitions.resolve_all_asset_specs()
    without_making: dict[str, Any] = {"deps": [], "automation_condition": None}
    return {
        spec.key.path[-1]: spec.replace_attributes(**without_making)
        for spec in sorted(specs, key=lambda spec: spec.key.to_user_string())
        if _COLUMN_SCHEMA in spec.metadata
    }


def table_of(key: dg.AssetKey, metadata: Mapping[str, Any], *, is_partitioned: bool) -> Table:
    """Return the asset of this key and definition metadata as a table.

    Raises:
        ValueError: it has no column schema.
    """
    schema = metadata.get(_COLUMN_SCHEMA)
    if schema is None:
        raise ValueError(
            "it has no column schema, so nobody knows what to read: put `*later_tables().values()` among the assets"
        )
    shown: dg.TableSchema = schema.value if isinstance(schema, dg.TableSchemaMetadataValue) else schema
    columns = [
        Column(
            name=column.name,
            type=cast("ColumnType", column.type),
            nullable=column.constraints.nullable,
            description=column.description or "",
        )
        for column in shown.columns
    ]
    return Table(key.path[-1], tuple(columns), is_partitioned)


def readable(definitions: dg.Definitions) -> list[Table]:
    """Return the tables among the assets of `definitions`, for readers without Dagster."""
    specs = tables_of(definitions).values()
    return [table_of(spec.key, spec.metadata, is_partitioned=spec.partitions_def is not None) for spec in specs]
