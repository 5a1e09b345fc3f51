"""The tables that the assets are, found by their column schema: whatever has one can be loaded, queried and listed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import dagster as dg

from later_reporting_dagster.lake import Column
from later_reporting_dagster.lake.columns import ColumnType
from later_reporting_dagster.reading import Table

# The key of the IO manager by which other assets load these, in our definitions and in anybody's.
LAKE_IO_MANAGER = "later_lake"
_COLUMN_SCHEMA = "dagster/column_schema"


def loadable(assets: Iterable[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """The assets, so that whoever takes a table of theirs as an input has it loaded from the lake."""
    return [asset.map_asset_specs(_loaded_from_the_lake) for asset in assets]


def tables_of(definitions: dg.Definitions) -> Mapping[str, dg.AssetSpec]:
    """The tables among the assets of `definitions`, by name, as specs for a code location that does not make them."""
    return {spec.key.path[-1]: _without_its_making(spec) for spec in _specs_of_tables(definitions)}


def table_of(key: dg.AssetKey, metadata: Mapping[str, Any], *, is_partitioned: bool) -> Table | None:
    """The asset of this key and definition metadata as a table, with the dictionary that the UI shows, if it is one."""
    schema = metadata.get(_COLUMN_SCHEMA)
    if schema is None:
        return None
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
    """The tables among the assets of `definitions`, for who reads them without Dagster."""
    specs = tables_of(definitions).values()
    found = (table_of(spec.key, spec.metadata, is_partitioned=spec.partitions_def is not None) for spec in specs)
    return [table for table in found if table is not None]


def _specs_of_tables(definitions: dg.Definitions) -> Iterator[dg.AssetSpec]:
    specs: Iterable[dg.AssetSpec] = definitions.resolve_all_asset_specs()
    yield from (spec for spec in sorted(specs, key=lambda spec: spec.key.to_user_string()) if _is_table(spec))


def _loaded_from_the_lake(spec: dg.AssetSpec) -> dg.AssetSpec:
    return spec.with_io_manager_key(LAKE_IO_MANAGER) if _is_table(spec) else spec


def _is_table(spec: dg.AssetSpec) -> bool:
    return _COLUMN_SCHEMA in spec.metadata


def _without_its_making(spec: dg.AssetSpec) -> dg.AssetSpec:
    without: dict[str, Any] = {"deps": [], "automation_condition": None}
    return spec.replace_attributes(**without)
