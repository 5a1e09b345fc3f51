"""What the UI shows of a table: its dictionary, as column schema."""

from collections.abc import Mapping, Sequence

import dagster as dg

from later_reporting_dagster.lake import Column


def column_schema(columns: Sequence[Column]) -> Mapping[str, dg.TableSchema]:
    """Definition metadata: the table's dictionary as the UI's column schema."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=column.type,
                    description=column.description,
                    constraints=dg.TableColumnConstraints(nullable=column.nullable),
                )
                for column in columns
            ]
        )
    }
