"""Metadata: what the UI shows of a table's definition, and of each partition that was written."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import Column, Written
from later_reporting_dagster.rollups.rollup_columns import COMPARED, RESULTS

# Where all dictionaries stand, in the repository.
TABLES_DOCUMENT = "docs/tables.md"
PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 40


def table_metadata(asset: str, columns: Sequence[Column]) -> dict[str, Any]:
    """Return the definition metadata of any table: its name, its column schema, and where that is documented."""
    return {
        "dagster/table_name": f"later.{asset}",
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
        "documentation": dg.MetadataValue.path(f"{TABLES_DOCUMENT}#{asset}"),
    }


def column_lineage(columns_by_asset: Mapping[str, Sequence[Column]]) -> Mapping[str, dg.TableColumnLineage]:
    """Metadata: from which raw columns each column is made, given for each raw asset the columns that it fills."""
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for asset, columns in columns_by_asset.items():
        for column in columns:
            deps.setdefault(column.name, []).extend(
                dg.TableColumnDep(asset_key=dg.AssetKey(["later", asset]), column_name=name)
                for name in column.made_from
            )
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            deps_by_column={name: from_columns for name, from_columns in deps.items() if from_columns}
        )
    }


def written_metadata(written: Written, *, is_partition: bool = True) -> dict[str, Any]:
    """Return the metadata of a partition, or of a table without partitions, that is one file."""
    return {
        "dagster/partition_row_count" if is_partition else "dagster/row_count": written.rows,
        "dagster/uri": written.url,
        "changed": written.changed,
    }


def plotted_totals(rollup: pa.Table) -> dict[str, Any]:
    """Return the results of a whole partition, which the UI plots; those that no post reports are left out."""
    totals = {
        name: pc.sum(rollup[name]).as_py() for channel in COMPARED for name in (f"{channel}_{each}" for each in RESULTS)
    }
    return {f"total/{name}": total for name, total in totals.items() if total is not None}


def preview(table: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table. A null is shown as an empty cell, never as 0."""
    head = table.slice(0, PREVIEW_ROWS).to_pylist()
    if not head:
        return dg.MetadataValue.md("*no rows*")
    lines = [_row(table.column_names), _row(["---"] * table.num_columns)]
    lines += [_row([_cell(value) for value in row.values()]) for row in head]
    if table.num_rows > len(head):
        lines.append(f"\n*{table.num_rows - len(head)} more rows*")
    return dg.MetadataValue.md("\n".join(lines))


def _description(column: Column) -> str:
    lines = [column.description]
    if column.computed:
        lines.append(f"Computed: {column.computed}")
    if column.made_from and column.made_from != (column.name,):
        lines.append(f"From: {', '.join(f'`{name}`' for name in column.made_from)}")
    return "  \n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:,.2f}" if isinstance(value, float) else str(value)
    # A creator's name is data: it must not end the cell, start markup or run over several lines.
    text = " ".join(text.split())[:PREVIEW_CHARACTERS]
    return "".join(f"\\{character}" if character in "\\|`*_{}[]<>#!" else character for character in text)
