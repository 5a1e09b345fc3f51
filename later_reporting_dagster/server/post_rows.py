"""The posts of a query, read from a lake: which files they are in, and the SQL that renders them as JSON."""

import errno
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec.structs import replace

from later_reporting_dagster.contract.days import days_between, newest_day
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, METRICS, Channel, Kind, Metric
from later_reporting_dagster.contract.parameters import METRICS_MEMBER, DateBasis, SortDirection, SortProperty
from later_reporting_dagster.ingest.dimensions import stored_instances
from later_reporting_dagster.lake import Lake, LakeDatabase, Partition, Table, open_database, post_columns
from later_reporting_dagster.rollups.rollup_columns import CHANNELS
from later_reporting_dagster.rollups.rollup_tables import RAW_TABLE_NAMES
from later_reporting_dagster.rollups.sql_engine import duckdb_macros
from later_reporting_dagster.server.lake_instances import expected_instances, unknown_instances
from later_reporting_dagster.server.missing_files import find_missing
from later_reporting_dagster.server.query_parameters import PostsQuery
from later_reporting_dagster.server.row_source import (
    LakeChanged,
    LakeState,
    ReadLimits,
    RowsNotRead,
    random_version,
    version_of_files,
)
from later_reporting_dagster.server.snapshots import NO_INTEGER, ROW, Snapshot, snapshot_not_written, write_snapshot

_logger = logging.getLogger(__name__)

_BATCH_ROWS = 10_000
_METRICS_BY_NAME = {metric.api_name: metric for metric in METRICS}
_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)

_FIELDS: Mapping[str, str] = {
    "campaignId": "campaign_id",
    "contentImageUrl": "content_image_url",
    "contentType": "content_type",
    "contentUrl": "content_url",
    "creatorId": "creator_id",
    "instanceId": "instance_id",
    "postId": "post_id",
    # Milliseconds, as in the sample of docs/api.md; microseconds if a time has them.
    "postDate": "strftime(post_date, CASE WHEN microsecond(post_date) % 1000 = 0 THEN '%Y-%m-%dT%H:%M:%S.%gZ'"
    " ELSE '%Y-%m-%dT%H:%M:%S.%fZ' END)",
}
_PROFILE = "creatorProfile"
_MEMBERS = "members"
_PROFILE_FIELDS: Mapping[str, str] = {
    "contentType": "creator_content_type",
    "fullName": "creator_full_name",
    "handleName": "creator_handle_name",
    "profileImage": "creator_profile_image",
    "profileLink": "creator_profile_link",
}


@dataclass(frozen=True, slots=True)
class PostRows:
    """The posts that a query selects, and how they are rendered.

    Attributes:
        query: The query, without its sorting: queries that differ only in this have the same rows.
    """

    query: PostsQuery

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, query: PostsQuery, instance_ids: tuple[str, ...] | None) -> "PostRows":
        """Return the rows of a query to some instances; None: to all in the lake."""
        unsorted = replace(query, sort_property=SortProperty.POST_DATE, sort_direction=SortDirection.DESC)
        return cls(replace(unsorted, instance_ids=instance_ids))

    @property
    def table_name(self) -> str:
        """The raw table that has the rows."""
        return RAW_TABLE_NAMES[self.query.basis]

    @property
    def sums_days(self) -> bool:
        """Whether the metrics of a post are the sums of several days."""
        return self.query.basis is DateBasis.PERFORMANCE_DATE and self.query.end > self.query.start

    def inspect(self, lake: Lake, now: datetime) -> LakeState:
        """Return the state of the files; see `RowSource`. Days that are not over are not expected to have files."""
        days = days_between(self.query.start, self.query.end)
        wanted = None if self.query.instance_ids is None else set(self.query.instance_ids)
        known = stored_instances(lake)
        # Without the table `instances`, only the files show which instances there are.
        found = lake.partitions(self.table_name, days=None if known is None else days)
        partitions = [
            each
            for each in found
            if self.query.start <= each.day <= self.query.end and (wanted is None or each.instance_id in wanted)
        ]
        with_files = {str(each.instance_id) for each in found}
        expected = expected_instances(known, with_files) if wanted is None else wanted
        over = days_between(self.query.start, min(self.query.end, newest_day(now)))
        return LakeState(
            version=self._version(lake, partitions),
            partitions=partitions,
            missing=find_missing(over, expected, partitions),
            unknown_instances=unknown_instances(lake, wanted or (), with_files),
        )

    def read(self, lake: Lake, state: LakeState, limits: ReadLimits) -> Snapshot:
        """Return a snapshot of the rows; see `RowSource`.

        DuckDB opens a local file twice, so a file that is replaced in between could be read as a mixture of two. If any
        file has changed at the end, all are read again, each by one access, which is slower.
        """
        for in_one_access in (False, True):
            try:
                snapshot = self._read(lake, state, limits, in_one_access=in_one_access)
            except RowsNotRead as error:
                is_final = in_one_access and self._version(lake, state.partitions) == state.version
                if is_final or not error.may_be_of_files:
                    raise
                continue
            if self._version(lake, state.partitions) == state.version:
                return snapshot
            if in_one_access:
                snapshot.version = random_version()
                return snapshot
        raise LakeChanged

    def _read(self, lake: Lake, state: LakeState, limits: ReadLimits, *, in_one_access: bool) -> Snapshot:
        try:
            with open_database(
                lake, memory_gb=limits.memory_gb, spill_directory=limits.directory, confined=in_one_access
            ) as database:
                return self._write_snapshot(database, state, limits, in_one_access=in_one_access)
        except OSError as error:  # of the directory in which DuckDB spills
            raise snapshot_not_written(error) from error

    def _write_snapshot(
        self, database: LakeDatabase, state: LakeState, limits: ReadLimits, *, in_one_access: bool
    ) -> Snapshot:
        table = Table(self.table_name, post_columns(_metrics_to_read(self.query)))
        try:
            database.add_view(table, state.partitions, known_to_exist=True)
            database.connection.execute(duckdb_macros())
            sql = rows_sql(self, in_one_scan=in_one_access)
            batches = map(_with_members, database.connection.sql(sql).to_arrow_reader(_BATCH_ROWS))
            return write_snapshot(batches, version=state.version, directory=limits.directory or None)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if (full := os.strerror(errno.ENOSPC)) in str(error):  # where DuckDB spills
                raise snapshot_not_written(OSError(errno.ENOSPC, full)) from error
            raise _explained(error, database, in_one_access=in_one_access) from error

    def _version(self, lake: Lake, partitions: Sequence[Partition]) -> bytes:
        return version_of_files(lake, lake.files(self.table_name, partitions, known_to_exist=True))


def _explained(error: Exception, database: LakeDatabase, *, in_one_access: bool) -> RowsNotRead:
    """Return why rows cannot be read. Files are only verified after the second attempt, because that reads them all."""
    reason = str(error).strip().partition("\n")[0]
    if "Out of Memory" in reason:
        reason = "the query needs more memory than --memory-gb allows: query fewer days, or raise it"
        return RowsNotRead(reason, may_be_of_files=False)
    if in_one_access:
        for table_name, failures in database.find_unreadable_files().items():
            partition, cause = next(iter(failures.items()))
            _logger.error("%s", cause)
            return RowsNotRead(f"the file of {partition} in {table_name} cannot be read: materialize that day again")
        _logger.error("The lake cannot be read: %s", reason)
    return RowsNotRead("the lake cannot be read: see the log of the server")


def rows_sql(rows: PostRows, *, in_one_scan: bool) -> str:
    """Return the SQL that selects and renders the rows."""
    query = rows.query
    metrics = _metrics_to_read(query)
    return _TEMPLATES.get_template("posts.sql").render(
        table=rows.table_name,
        sums_days=rows.sums_days,
        in_one_scan=in_one_scan,
        row_conditions=_conditions("campaign_id", query.campaign_ids),
        post_conditions=[*_conditions("platform", query.platforms), *_conditions("content_type", query.content_types)],
        fields=_fields(query),
        objects=[_PROFILE] if query.metrics is None else [_PROFILE, METRICS_MEMBER],
        sort_values=[(each.value, _sort_value(each)) for each in SortProperty],
        channels=[(channel.value, "" if channel is Channel.ORGANIC else f"{channel}_") for channel in CHANNELS],
        counts=[metric.column for metric in metrics if metric.kind is Kind.COUNT],
        amounts=[metric.column for metric in metrics if metric.kind in (Kind.MONEY, Kind.TIME)],
        rates=[metric.column for metric in metrics if metric.kind is Kind.RATE and metric in DEFAULT_METRICS],
        unknown=[
            (metric.column, "BIGINT" if metric.kind.is_integer else "DOUBLE")
            for metric in metrics
            if not metric.kind.is_additive and metric not in DEFAULT_METRICS
        ],
    )


def _metrics_to_read(query: PostsQuery) -> tuple[Metric, ...]:
    """Return the metrics to read: those that are served, those that rows can be sorted by, and parts of rates."""
    return tuple(metric for metric in METRICS if metric in DEFAULT_METRICS or metric.api_name in (query.metrics or ()))


def _fields(query: PostsQuery) -> list[tuple[str, str]]:
    """Return the fields of a post, each with the SQL of its value."""
    has_profile = f"coalesce({', '.join(_PROFILE_FIELDS.values())}) IS NOT NULL"
    fields = {**_FIELDS, _PROFILE: f"CASE WHEN {has_profile} THEN {_object(_PROFILE_FIELDS)} END"}
    if query.metrics is None:
        return sorted((fields | {metric.api_name: metric.column for metric in DEFAULT_METRICS}).items())
    requested = {name: _METRICS_BY_NAME[name].column for name in query.metrics}
    return [*sorted(fields.items()), (METRICS_MEMBER, _object(requested))]


def _with_members(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch of `rows_sql` as a batch of a snapshot: add the unknown fields that have nested members."""
    members = batch.column(_MEMBERS)
    if members.null_count < len(members):
        pairs = zip(batch.column(ROW).to_pylist(), members.to_pylist(), strict=True)
        extended = [row if unknown is None else _extended(row, unknown) for row, unknown in pairs]
        batch = batch.set_column(batch.schema.get_field_index(ROW), ROW, pa.array(extended, pa.string()))
    return batch.drop_columns([_MEMBERS])


def _extended(row: str, unknown: str) -> str:
    """Return a post as JSON with more fields. A field that is an object in both gets the members of both."""
    post: dict[str, Any] = json.loads(row)
    for name, value in json.loads(unknown).items():
        known = post.get(name)
        if name == _PROFILE and known is None:
            known = dict.fromkeys(_PROFILE_FIELDS)
        if name not in post:
            post[name] = value
        elif isinstance(known, dict) and isinstance(value, dict):
            post[name] = known | value
    return json.dumps(post, separators=(",", ":"))


def _object(members: Mapping[str, str]) -> str:
    """Return SQL for a struct, given the SQL of its members."""
    return "{" + ", ".join(f"'{name}': {expression}" for name, expression in members.items()) + "}"


def _conditions(column: str, values: Sequence[int | str] | None) -> list[str]:
    """Return the condition that a column has one of some values; none if all are wanted."""
    if values is None:
        return []
    # A query may have numbers beyond int64, which match nothing.
    values = [value for value in values if isinstance(value, str) or value.bit_length() < 64]
    literals = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in values)
    return [f"{column} IN ({literals})" if literals else "false"]


def _sort_value(sort_property: SortProperty) -> str:
    """Return SQL for a value without nulls, by which posts can be sorted."""
    if sort_property is SortProperty.POST_DATE:
        return "epoch_us(post_date)"
    metric = _METRICS_BY_NAME[sort_property.value]
    missing = str(NO_INTEGER) if metric.kind.is_integer else "CAST('nan' AS DOUBLE)"
    return f"coalesce({metric.column}, {missing})"
