"""The campaigns of a lake: those that the API listed when the table `campaigns` was last refreshed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import pyarrow as pa

from later_reporting_dagster.contract.parameters import ProblemType
from later_reporting_dagster.endpoint.problem_responses import ProblemError
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, CAMPAIGNS_TABLE, FileDamaged, Lake, schema_of
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.serve.lake_state import (
    LakeChanged,
    LakeState,
    RowsNotRead,
    unknown_instances,
    version_of_files,
)
from later_reporting_dagster.serve.snapshots import ROW, TIE, Tables

_PATH = table_path(CAMPAIGNS_TABLE)
_SCHEMA = pa.schema([(ROW, pa.string()), (TIE, pa.int64())])
_FIELDS: Mapping[str, str] = {
    "campaignId": "campaign_id",
    "campaignName": "campaign_name",
    "description": "description",
    "firstPostDate": "first_post_date",
    "instanceId": "instance_id",
    "lastPostDate": "last_post_date",
    "startDate": "start_date",
    "status": "status",
}


@dataclass(frozen=True, slots=True)
class CampaignRows:
    """The listed campaigns of some instances; None: of all."""

    instance_ids: tuple[str, ...] | None

    def inspect(self, lake: Lake, now: datetime) -> LakeState:  # noqa: ARG002
        """Return the state of the table; see `RowSource`.

        Raises:
            ProblemError: 404, if the lake does not have the table.
        """
        if not lake.table_exists(CAMPAIGNS_TABLE):
            detail = f"this lake has no table {CAMPAIGNS_TABLE}"
            raise ProblemError(HTTPStatus.NOT_FOUND, ProblemType.NOT_FOUND, detail)
        return LakeState(
            version=version_of_files(lake, [_PATH]),
            unknown_instances=unknown_instances(lake, self.instance_ids or (), ()),
        )

    def write(self, lake: Lake, state: LakeState, tables: Tables, name: str) -> bytes:
        """Write the campaigns to a table; see `RowSource`."""
        try:
            table = lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
        except FileDamaged as error:
            raise RowsNotRead(f"the table {CAMPAIGNS_TABLE} cannot be read: materialize it again") from error
        if table is None or version_of_files(lake, [_PATH]) != state.version:
            raise LakeChanged
        rows = [
            _render(row)
            for row in table.to_pylist()
            if row["listed_now"] and (self.instance_ids is None or row["instance_id"] in self.instance_ids)
        ]
        # The table is ordered by instance and id.
        batch = pa.table([rows, range(len(rows))], schema=_SCHEMA)
        with tables.connection(name) as connection:
            tables.write_rows(name, "FROM batch", connection.register("batch", batch))
        return state.version


def _render(row: Mapping[str, Any]) -> str:
    """Return a campaign as JSON, with the fields that the contract does not define as they came."""
    fields = {name: row[column] for name, column in _FIELDS.items()}
    fields |= {name: _json_time(value) for name, value in fields.items() if isinstance(value, datetime)}
    text = msgspec.json.encode(fields).decode()
    return text if row["extra"] is None else f"{text[:-1]},{row['extra'][1:]}"


def _json_time(time: datetime) -> str:
    precision = "microseconds" if time.microsecond % 1000 else "milliseconds"
    return time.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
