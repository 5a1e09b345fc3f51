"""Asset steps: what this project materializes in one step, before a component turns it into a Dagster definition."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import Column

# Called with the step's context and the resource of the component.
RunStep = Callable[[AssetExecutionContext, LaterReportingResource], Iterable[dg.MaterializeResult[Any]]]


@dataclass(frozen=True, kw_only=True)
class AssetStep:
    """One step of a run: the assets that it materializes, and how.

    Attributes:
        name: the name of the step, which is also its key in run config.
        specs: the assets. If there are several, any subset can be materialized.
        run: materializes the selected assets. It logs its materializations itself, or yields them. An error of the API
            or the lake that it raises becomes a failure with this message.
        config: the class of the step's run config; None if it has none.
        backfill_policy: how a backfill is divided into runs.
        pool: the pool that limits how many of these steps run at once.
    """

    name: str
    specs: Sequence[dg.AssetSpec]
    run: RunStep
    config: type[dg.Config] | None = None
    backfill_policy: dg.BackfillPolicy | None = None
    pool: str | None = None


def table_spec(
    settings: DefinitionSettings,
    name: str,
    columns: Sequence[Column],
    *,
    defined_by: Callable[..., object],
    sql: str = "",
    metadata: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> dg.AssetSpec:
    """Return the spec of a table: an asset whose columns are known.

    Args:
        settings: the settings of the component.
        name: the name of the table.
        columns: its columns.
        defined_by: the function that the UI opens in an editor.
        sql: what computes the table; with the columns, it is the code version.
        metadata: more metadata of the definition.
        attributes: other attributes of the spec.
    """
    key = settings.asset_key(name)
    shown = [
        dg.TableColumn(
            name=column.name,
            type=column.type,
            description=_description(column),
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
            tags={"unit": column.unit} if column.unit else None,
        )
        for column in columns
    ]
    return dg.AssetSpec(
        key,
        kinds={"parquet"},
        metadata={
            "dagster/table_name": ".".join(key.path),
            "dagster/storage_kind": "parquet",
            "dagster/column_schema": dg.TableSchema(columns=shown),
            **code_references(defined_by),
            **(metadata or {}),
        },
        code_version=code_version(columns, sql),
        **attributes,
    )


def code_references(function: Callable[..., object]) -> dict[str, Any]:
    """Return the metadata that opens a function in an editor."""
    code = function.__code__
    reference = dg.LocalFileCodeReference(
        file_path=code.co_filename, line_number=code.co_firstlineno, label=function.__name__
    )
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def code_version(columns: Sequence[Column], sql: str = "") -> str:
    """Return a version that changes with the definition of a table: its columns, and the SQL that computes it."""
    definition = [*(f"{column.name} {column.type} {column.nullable}" for column in columns), sql]
    return hashlib.sha256("\n".join(definition).encode()).hexdigest()[:12]


def column_lineage(columns_by_source: Mapping[dg.AssetKey, Sequence[Column]]) -> dict[str, Any]:
    """Return the column lineage metadata, given the columns that are computed from each table."""
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for key, columns in columns_by_source.items():
        for column in columns:
            for name in column.source_columns:
                deps.setdefault(column.name, []).append(dg.TableColumnDep(asset_key=key, column_name=name))
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


def _description(column: Column) -> str:
    lines = [column.description]
    if column.computation:
        lines.append(f"Computed: {column.computation}")
    if column.source_columns and column.source_columns != (column.name,):
        lines.append(f"From: {', '.join(f'`{name}`' for name in column.source_columns)}")
    return "  \n".join(lines)
