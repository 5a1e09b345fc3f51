"""Metadata shown in the UI: of asset definitions and of materializations."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import Column, WriteResult
from later_reporting_dagster.rollups.rollup_columns import CHANNELS, RESULTS

# The article by Later's help center about the API; docs/api.md has all sources.
API_REFERENCE_URL = (
    "https://help-influence.later.com/hc/en-us/articles/20462385592087-Implement-the-Reporting-API-for-Later-Influence"
)
PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 40


def table_metadata(key: dg.AssetKey, columns: Sequence[Column]) -> dict[str, Any]:
    """Return a table's definition metadata: its name and its column schema, with a description of each column."""
    return {
        "dagster/table_name": ".".join(key.path),
        "dagster/storage_kind": "parquet",
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=column.type,
                    description=_description(column),
                    constraints=dg.TableColumnConstraints(nullable=column.nullable),
                    tags={"unit": column.unit} if column.unit else None,
                )
                for column in columns
            ]
        ),
    }


def code_references(function: Callable[..., object]) -> dict[str, Any]:
    """Return the definition metadata that opens the code of an asset in an editor: the file and line of a function."""
    code = function.__code__
    reference = dg.LocalFileCodeReference(
        file_path=code.co_filename, line_number=code.co_firstlineno, label=function.__name__
    )
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def code_version(columns: Sequence[Column], sql: str = "") -> str:
    """Return a version that changes with the definition of a table: its columns, and the SQL that computes it."""
    definition = [*(f"{column.name} {column.type} {column.nullable}" for column in columns), sql]
    return hashlib.sha256("\n".join(definition).encode()).hexdigest()[:12]


@cache
def package_version() -> str:
    """Return the version of the installed package."""
    return importlib.metadata.version("later-reporting-dagster")


def column_lineage(columns_by_raw_table: Mapping[dg.AssetKey, Sequence[Column]]) -> Mapping[str, dg.TableColumnLineage]:
    """Return the column lineage metadata, given the columns that are computed from each raw table."""
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for raw_key, columns in columns_by_raw_table.items():
        for column in columns:
            deps.setdefault(column.name, []).extend(
                dg.TableColumnDep(asset_key=raw_key, column_name=name) for name in column.source_columns
            )
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            deps_by_column={name: from_columns for name, from_columns in deps.items() if from_columns}
        )
    }


def written_metadata(written: WriteResult, *, is_partition: bool = True) -> dict[str, Any]:
    """Return the metadata of a written file: one partition, or a whole unpartitioned table."""
    return {
        "dagster/partition_row_count" if is_partition else "dagster/row_count": written.rows,
        "dagster/uri": written.url,
        "changed": written.changed,
    }


def plotted_totals(rows: pa.Table) -> dict[str, Any]:
    """Return the total of each result or spend in a partition, for plots in the UI; omit those that are null."""
    names = [f"{channel}_{each}" for channel in CHANNELS for each in (*RESULTS, "spend")]
    totals = {name: pc.sum(rows[name]).as_py() for name in names if name in rows.column_names}
    return {f"total/{name}": total for name, total in totals.items() if total is not None}


def preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """Return the first rows as a Markdown table. Nulls are empty cells, so that they differ from zeros."""
    head = rows.slice(0, PREVIEW_ROWS).to_pylist()
    if not head:
        return dg.MetadataValue.md("*no rows*")
    lines = [_row(rows.column_names), _row(["---"] * rows.num_columns)]
    lines += [_row([_cell(value) for value in row.values()]) for row in head]
    if rows.num_rows > len(head):
        lines.append(f"\n*{rows.num_rows - len(head)} more rows*")
    return dg.MetadataValue.md("\n".join(lines))


def _description(column: Column) -> str:
    lines = [column.description]
    if column.computation:
        lines.append(f"Computed: {column.computation}")
    if column.source_columns and column.source_columns != (column.name,):
        lines.append(f"From: {', '.join(f'`{name}`' for name in column.source_columns)}")
    return "  \n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:,.2f}" if isinstance(value, float) else str(value)
    # A creator's name must not end the cell, start markup or span several lines.
    text = " ".join(text.split())[:PREVIEW_CHARACTERS]
    return "".join(f"\\{character}" if character in "\\|`*_{}[]<>#!" else character for character in text)
