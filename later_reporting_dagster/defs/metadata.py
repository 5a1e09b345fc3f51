"""Metadata: what the UI shows of a table's definition, and of each partition that was written."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.lake import Column, Written
from later_reporting_dagster.rollups.columns import COMPARED, RESULTS
from later_reporting_dagster.rollups.sums import total as sum_of

# Where all dictionaries stand, in the repository.
TABLES_DOCUMENT = "docs/tables.md"
PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 40


def table_metadata(asset: str, columns: Sequence[Column]) -> dict[str, Any]:
    """Return the definition metadata of any table: its name, its column schema, and where that is documented."""
    return {
        "dagster/table_name": f"later.{asset}",
        "dagster/storage_kind": "parquet",
        **column_schema(columns),
        "dictionary": dg.MetadataValue.md(dictionary(columns)),
        "documentation": dg.MetadataValue.path(f"{TABLES_DOCUMENT}#{asset}"),
    }


def column_schema(columns: Sequence[Column]) -> Mapping[str, dg.TableSchema]:
    """Definition metadata: the table's dictionary as the UI's column schema."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=column.type,
                    description=_told(column),
                    constraints=dg.TableColumnConstraints(nullable=column.nullable),
                    tags={"unit": column.unit} if column.unit else None,
                )
                for column in columns
            ]
        )
    }


def dictionary(columns: Sequence[Column]) -> str:
    """A table's dictionary as Markdown."""
    is_computed = any(column.computed for column in columns)
    head = ["column", "type", "unit", "meaning", *(["how computed"] if is_computed else [])]
    lines = [_row(head), _row(["---"] * len(head))]
    lines += [
        _row(
            [
                f"`{column.name}`",
                column.type,
                column.unit,
                column.description,
                *([column.computed] if is_computed else []),
            ]
        )
        for column in columns
    ]
    return "\n".join(lines)


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
    """The results of a whole rolled-up partition: numbers, which the UI plots; none of a channel that has none.

    The coverage is how many of 100 posts report organic and paid impressions, in the posts that there are.
    """
    told: dict[str, Any] = {}
    posts = sum_of(rollup["posts"]) or 0
    for channel in COMPARED:
        for measure in RESULTS:
            name = f"{channel}_{measure}"
            if (found := sum_of(rollup[name])) is not None:
                told[f"total/{name}"] = found
        reported = sum_of(rollup[f"{channel}_impressions_posts"]) or 0
        if posts:
            told[f"coverage_percent/{channel}_impressions"] = round(100 * reported / posts, 2)
    return told


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


def _told(column: Column) -> str:
    told = [column.description]
    if column.computed:
        told.append(f"Computed: {column.computed}")
    if column.made_from and column.made_from != (column.name,):
        told.append(f"From: {', '.join(f'`{name}`' for name in column.made_from)}")
    return "  \n".join(told)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:,.2f}" if isinstance(value, float) else str(value)
    # A creator's name is data: it must not end the cell, start markup or run over several lines.
    text = " ".join(text.split())[:PREVIEW_CHARACTERS]
    return "".join(f"\\{character}" if character in "\\|`*_{}[]<>#!" else character for character in text)
