"""What the UI shows of a table: its dictionary, as column schema and to read, and where each column comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from later_reporting_dagster.lake import Column

# Where all dictionaries stand, in the repository.
TABLES_DOCUMENT = "docs/tables.md"


def table_metadata(asset: str, columns: Sequence[Column]) -> dict[str, Any]:
    """Definition metadata of any table: its dictionary as the UI's column schema, and the way to it."""
    return {
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


def _told(column: Column) -> str:
    told = [column.description]
    if column.computed:
        told.append(f"Computed: {column.computed}")
    if column.made_from and column.made_from != (column.name,):
        told.append(f"From: {', '.join(f'`{name}`' for name in column.made_from)}")
    return "  \n".join(told)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
