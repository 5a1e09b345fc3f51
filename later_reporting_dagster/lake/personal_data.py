"""Remove names, handles, pictures and links of creators, and URLs of posts, from the files of a lake."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.personal_data import (
    HIDDEN_TEXT,
    KnownFields,
    json_without_personal_data,
    reason_without_values,
)
from later_reporting_dagster.contract.route import CAMPAIGNS, POSTS_PERFORMANCE
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.parquet_file import FileDamaged
from later_reporting_dagster.lake.paths import FILE_NAME
from later_reporting_dagster.lake.quarantine import QuarantinedRow
from later_reporting_dagster.lake.tables import CAMPAIGNS_TABLE, PERIODS_TABLES, PERSONAL_COLUMNS, RAW_TABLES

# From which a table has its rows; others have posts.
_ROUTES = {
    CAMPAIGNS_TABLE: CAMPAIGNS,
    **{name: table.route for name, table in RAW_TABLES.items()},
    **{name: table.by_day.route for name, table in PERIODS_TABLES.items()},
}


@dataclass(frozen=True, slots=True)
class RemovalSummary:
    """What was done with a table.

    Attributes:
        files: the number of its Parquet files and quarantine files.
        rewritten: the number of those that had personal data.
        damaged: why files cannot be read, and so are left as they are.
    """

    files: int
    rewritten: int
    damaged: Sequence[str]


def remove_personal_data(lake: Lake, table_name: str) -> RemovalSummary:
    """Rewrite all files of a table that have personal data, also of a table that this version does not know.

    Each file is replaced as a whole, and keeps its rows, ids and numbers. What is done stays done after an interrupt.
    """
    known = _ROUTES.get(table_name, POSTS_PERFORMANCE).known_fields
    change, change_bad_row = partial(_without, known=known), partial(_bad_row_without, known=known)
    paths = lake.storage.named_files([table_name], FILE_NAME)
    results = lake.storage.map(
        _attempt,
        [
            *(partial(lake.rewrite, path, change) for path in paths),
            *(partial(lake.quarantine.rewrite, file, change_bad_row) for file in lake.quarantine.files(table_name)),
        ],
    )
    return RemovalSummary(len(results), results.count(True), [each for each in results if isinstance(each, str)])


def _attempt(rewrite: Callable[[], bool]) -> bool | str:
    try:
        return rewrite()
    except FileDamaged as error:
        return str(error)


def _without(table: pa.Table, *, known: KnownFields) -> pa.Table:
    for index, column in enumerate(table.schema):
        if column.name in PERSONAL_COLUMNS:
            table = table.set_column(index, column, pa.nulls(table.num_rows, column.type))
        elif column.name == "error" and column.type == pa.string():
            # It may quote a value of a row.
            table = table.set_column(index, column, pc.if_else(table["error"].is_null(), None, HIDDEN_TEXT))
        elif column.name == "extra" and column.type == pa.string():
            extra = [each and json_without_personal_data(each, known) for each in table["extra"].to_pylist()]
            extra = [None if each in ("{}", '""') else each for each in extra]
            table = table.set_column(index, column, pa.array(extra, column.type))
    return table


def _bad_row_without(row: QuarantinedRow, *, known: KnownFields) -> QuarantinedRow:
    raw = json_without_personal_data(row.raw, known)
    return replace(row, raw=raw, reason=reason_without_values(row.reason))
