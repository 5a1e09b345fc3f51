"""Asset steps: what this project materializes in one step, before a component turns it into a Dagster definition."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Column

# Called with the step's context and the resource of the component.
RunStep = Callable[[AssetExecutionContext, LaterReportingResource], Iterable[dg.MaterializeResult[Any]]]


@dataclass(frozen=True, kw_only=True)
class AssetStep:
    """One step of a run.

    Attributes:
        name: the name of the step, which is also its key in run config.
        specs: the assets. If there are several, any subset can be materialized.
        run: materializes the selected assets. It logs its materializations itself, or yields them. An error of the API
            or the lake that it raises becomes a failure with this message.
    """

    name: str
    specs: Sequence[dg.AssetSpec]
    run: RunStep
    config: type[dg.Config] | None = None
    backfill_policy: dg.BackfillPolicy | None = None
    pool: str | None = None


def table_spec(
    settings: ComponentSettings, name: str, columns: Sequence[Column], *, sql: str = "", **attributes: Any
) -> dg.AssetSpec:
    """Return the spec of a table: an asset whose columns are known, and the SQL that computes it, if there is some."""
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
        },
        code_version=code_version(columns, sql),
        **attributes,
    )


def code_version(columns: Sequence[Column], sql: str = "") -> str:
    """Return a version that changes with the definition of a table: its columns, and the SQL that computes it."""
    definition = [*(f"{column.name} {column.type} {column.nullable}" for column in columns), sql]
    return hashlib.sha256("\n".join(definition).encode()).hexdigest()[:12]


def _description(column: Column) -> str:
    lines = [column.description]
    if column.computation:
        lines.append(f"Computed: {column.computation}")
    if column.source_columns and column.source_columns != (column.name,):
        lines.append(f"From: {', '.join(f'`{name}`' for name in column.source_columns)}")
    return "  \n".join(lines)
