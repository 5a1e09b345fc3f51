"""The rows of a query, read from a lake: their files and what is missing, and how posts and campaigns become JSON."""

import hashlib
import json
import logging
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract.days import day_ranges, days_between, newest_day
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, METRICS, Channel, Kind, Metric
from later_reporting_dagster.contract.parameters import METRICS_MEMBER, DateBasis, ProblemType, SortProperty
from later_reporting_dagster.endpoint.query_parameters import PostsQuery
from later_reporting_dagster.endpoint.responses import ProblemError
from later_reporting_dagster.ingest.dimensions import instances_with_files, stored_instances
from later_reporting_dagster.ingest.missing_files import missing_days
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGNS_TABLE,
    FileDamaged,
    Lake,
    Partition,
    Table,
    post_columns,
    schema_of,
)
from later_reporting_dagster.lake.database import LakeDatabase, open_database
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import RAW_TABLES
from later_reporting_dagster.rollups.rollup_columns import CHANNELS
from later_reporting_dagster.rollups.rollup_tables import RAW_TABLE_NAMES
from later_reporting_dagster.rollups.sql_engine import duckdb_macros
from later_reporting_dagster.serve.snapshots import ROW, TIE, RowsNotRead, Tables

_logger = logging.getLogger(__name__)

DAYS_HEADER, INSTANCES_HEADER = "X-Later-Missing-Days", "X-Later-Missing-Instances"
MAX_LISTED = 100  # keeps the headers short enough for any client
_VERSION_BYTES = 12
_LIBRARIES = version("duckdb"), version("later-reporting-dagster")
_COLUMNS = {metric.api_name: metric.column for metric in METRICS}
_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeState:
    """The files that a query reads.

    Attributes:
        version: Identifies the versions of the files.
        partitions: The partitions that exist.
        missing: Headers that name the days and instances of files that do not.
        unknown_instances: Requested instances of which nothing is known.
    """

    version: bytes
    partitions: Sequence[Partition] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    unknown_instances: Sequence[str] = ()


class LakeChanged(Exception):  # noqa: N818 - named for what happened
    """A file was replaced or removed between its listing and its read: inspect the files again."""


def version_of_files(lake: Lake, paths: Iterable[str]) -> bytes:
    """Return a digest of the current versions of some files, by path.

    It also depends on the versions of the libraries that decide the order of equal rows. If the filesystem does not
    report versions, the digest is random.
    """
    wanted = sorted(paths)
    versions = lake.storage.versions(wanted) if wanted else {}
    identities = [(path, versions[path].identity if path in versions else "") for path in wanted]
    if any(identity is None for _, identity in identities):
        return random_version()
    text = repr((identities, _LIBRARIES))
    return hashlib.blake2b(text.encode(), digest_size=_VERSION_BYTES).digest()


def random_version() -> bytes:
    """Return a version that no state of the files has."""
    return secrets.token_bytes(_VERSION_BYTES)


def missing_headers(
    days: Iterable[date], instance_ids: Collection[str], present: Iterable[Partition]
) -> Mapping[str, str]:
    """Return headers that list the days, as ranges, and the percent-encoded instances of which a file is missing.

    Without instances, these are the days without any file.
    """
    if not instance_ids:
        lacking = set(days) - {partition.day for partition in present}
        return {DAYS_HEADER: _listed(_ranges(lacking))} if lacking else {}
    missing = missing_days(days, instance_ids, present)
    if not missing:
        return {}
    lacking = {day for instance_days in missing.values() for day in instance_days}
    instances = [quote(instance_id, safe="") for instance_id in sorted(missing)]
    return {DAYS_HEADER: _listed(_ranges(lacking)), INSTANCES_HEADER: _listed(instances)}


def _ranges(days: Collection[date]) -> list[str]:
    return [text.replace(" to ", "/") for text in day_ranges(sorted(days))]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"


def all_instances(lake: Lake) -> list[str]:
    """Return the ids of the instances that the API lists or that have files, sorted.

    Without the table `instances`, these are the instances that have a file in a raw table.
    """
    stored = stored_instances(lake)
    if stored is None:
        return sorted(instances_with_files(lake))
    served = stored["listed_now"]
    for table in RAW_TABLES:
        served = pc.or_(served, pc.is_valid(stored[f"{table.name}_newest_day"]))
    return sorted(stored.filter(served)["instance_id"].to_pylist())


def expected_instances(known: pa.Table | None, with_files: Collection[str]) -> set[str]:
    """Return the instances that the table `instances` expects, and those with files that it does not know."""
    if known is None:
        return set(with_files)
    expected = set(known.filter(pc.field("expected_now"))["instance_id"].to_pylist())
    return expected | (set(with_files) - set(known["instance_id"].to_pylist()))


def unknown_instances(
    lake: Lake, known: pa.Table | None, requested: Collection[str], with_files: Collection[str] = ()
) -> list[str]:
    """Return the requested instances that neither have files nor are in the table `instances`."""
    unknown = set(requested) - set(with_files)
    if unknown and known is not None:
        unknown -= set(known["instance_id"].to_pylist())
    return sorted(unknown - instances_with_files(lake) if unknown else unknown)


def _json_time(column: str) -> str:
    """Return SQL for a time in milliseconds, as in the samples of docs/api.md, or in microseconds if it has them."""
    return (
        f"strftime({column}, CASE WHEN microsecond({column}) % 1000 = 0 THEN '%Y-%m-%dT%H:%M:%S.%gZ'"
        " ELSE '%Y-%m-%dT%H:%M:%S.%fZ' END)"
    )


_FIELDS: Mapping[str, str] = {
    "campaignId": "campaign_id",
    "contentImageUrl": "content_image_url",
    "contentType": "content_type",
    "contentUrl": "content_url",
    "creatorId": "creator_id",
    "instanceId": "instance_id",
    "postId": "post_id",
    "postDate": _json_time("post_date"),
}
_PROFILE = "creatorProfile"
_PROFILE_FIELDS: Mapping[str, str] = {
    "contentType": "creator_content_type",
    "fullName": "creator_full_name",
    "handleName": "creator_handle_name",
    "profileImage": "creator_profile_image",
    "profileLink": "creator_profile_link",
}


@dataclass(frozen=True, slots=True)
class PostRows:
    """The posts that a query selects. Its sorting is not used: queries that differ only in this have the same rows."""

    query: PostsQuery

    @property
    def table_name(self) -> str:
        return RAW_TABLE_NAMES[self.query.basis]

    def inspect(self, lake: Lake, now: datetime) -> LakeState:
        """Return the state of the files. Days that are not over are not expected to have files."""
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
            missing=missing_headers(over, expected, partitions),
            unknown_instances=unknown_instances(lake, known, wanted or (), with_files),
        )

    def write(self, lake: Lake, state: LakeState, tables: Tables, name: str) -> bytes:
        """Write the rows to a table, and return their version.

        DuckDB opens a local file twice, so a file that is replaced in between could be read as a mixture of two. If any
        file has changed at the end, all are read again, each by one access, which is slower.
        """
        with suppress(RowsNotRead, duckdb.Error, OSError):
            self._write(lake, state, tables, name, in_one_access=False)
            if self._version(lake, state.partitions) == state.version:
                return state.version
            tables.remove_file(name)
        self._write(lake, state, tables, name, in_one_access=True)
        return state.version if self._version(lake, state.partitions) == state.version else random_version()

    def _write(self, lake: Lake, state: LakeState, tables: Tables, name: str, *, in_one_access: bool) -> None:
        table = Table(self.table_name, post_columns(_metrics_to_read(self.query)))
        spill = str(tables.folder)
        with open_database(lake, memory_gb=tables.memory_gb, spill_directory=spill) as database:
            if in_one_access and lake.storage.native_path("") is not None:
                database = LakeDatabase(lake, database.connection, is_confined=True)
            try:
                database.add_view(table, state.partitions)
                database.connection.execute(duckdb_macros())
                database.connection.create_function("extend", _extended, ["VARCHAR", "VARCHAR"], "VARCHAR")
                tables.write_rows(name, rows_sql(self, in_one_scan=in_one_access), database.connection)
            except (duckdb.Error, OSError) as error:
                if not in_one_access:
                    raise
                if self._version(lake, state.partitions) != state.version:
                    raise LakeChanged from None
                raise _unreadable(error, database) from error

    def _version(self, lake: Lake, partitions: Sequence[Partition]) -> bytes:
        return version_of_files(lake, lake.files(self.table_name, partitions))


def _unreadable(error: Exception, database: LakeDatabase) -> RowsNotRead:
    """Return why rows cannot be read; reads all files."""
    for table_name, failures in database.find_unreadable_files().items():
        partition, cause = next(iter(failures.items()))
        _logger.error("%s", cause)
        return RowsNotRead(f"the file of {partition} in {table_name} cannot be read: materialize that day again")
    _logger.error("The lake cannot be read: %s", str(error).strip().partition("\n")[0])
    return RowsNotRead("the lake cannot be read: see the log of the server")


def rows_sql(rows: PostRows, *, in_one_scan: bool) -> str:
    query = rows.query
    metrics = _metrics_to_read(query)
    return _TEMPLATES.get_template("posts.sql").render(
        table=rows.table_name,
        sums_days=query.basis is DateBasis.PERFORMANCE_DATE and query.end > query.start,
        in_one_scan=in_one_scan,
        row_conditions=_conditions("campaign_id", query.campaign_ids),
        post_conditions=[*_conditions("platform", query.platforms), *_conditions("content_type", query.content_types)],
        fields=_fields(query),
        objects=[_PROFILE] if query.metrics is None else [_PROFILE, METRICS_MEMBER],
        sort_values=[(each.value, _COLUMNS.get(each.value, "post_date")) for each in SortProperty],
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
    has_profile = f"coalesce({', '.join(_PROFILE_FIELDS.values())}) IS NOT NULL"
    fields = {**_FIELDS, _PROFILE: f"CASE WHEN {has_profile} THEN {_object(_PROFILE_FIELDS)} END"}
    if query.metrics is None:
        return sorted((fields | {metric.api_name: metric.column for metric in DEFAULT_METRICS}).items())
    requested = {name: _COLUMNS[name] for name in query.metrics}
    return [*sorted(fields.items()), (METRICS_MEMBER, _object(requested))]


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
    return "{" + ", ".join(f"'{name}': {expression}" for name, expression in members.items()) + "}"


def _conditions(column: str, values: Sequence[int | str] | None) -> list[str]:
    """Return the condition that a column has one of some values; none if all are wanted."""
    if values is None:
        return []
    # A query may have numbers beyond int64, which match nothing.
    values = [value for value in values if isinstance(value, str) or value.bit_length() < 64]
    literals = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in values)
    return [f"{column} IN ({literals})" if literals else "false"]


_CAMPAIGNS_PATH = table_path(CAMPAIGNS_TABLE)
_CAMPAIGN_FIELDS: Mapping[str, str] = {
    "campaignId": "campaign_id",
    "campaignName": "campaign_name",
    "description": "description",
    "firstPostDate": _json_time("first_post_date"),
    "instanceId": "instance_id",
    "lastPostDate": _json_time("last_post_date"),
    "startDate": _json_time("start_date"),
    "status": "status",
}
_CAMPAIGNS_SQL = f"""
SELECT
    CASE WHEN extra IS NULL THEN json ELSE json[:-2] || ',' || extra[2:] END AS "{ROW}",
    row_number() OVER (ORDER BY instance_id, campaign_id) AS {TIE}
FROM (SELECT *, CAST(to_json({_object(_CAMPAIGN_FIELDS)}) AS VARCHAR) AS json FROM listed)
"""


@dataclass(frozen=True, slots=True)
class CampaignRows:
    """The campaigns of some instances that the API listed when the table was last refreshed; None: of all."""

    instance_ids: tuple[str, ...] | None

    def inspect(self, lake: Lake, now: datetime) -> LakeState:  # noqa: ARG002
        if not lake.table_exists(CAMPAIGNS_TABLE):
            detail = f"this lake has no table {CAMPAIGNS_TABLE}"
            raise ProblemError(HTTPStatus.NOT_FOUND, ProblemType.NOT_FOUND, detail)
        return LakeState(
            version=version_of_files(lake, [_CAMPAIGNS_PATH]),
            unknown_instances=unknown_instances(lake, stored_instances(lake), self.instance_ids or ()),
        )

    def write(self, lake: Lake, state: LakeState, tables: Tables, name: str) -> bytes:
        try:
            listed = lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
        except FileDamaged as error:
            raise RowsNotRead(f"the table {CAMPAIGNS_TABLE} cannot be read: materialize it again") from error
        if listed is None or version_of_files(lake, [_CAMPAIGNS_PATH]) != state.version:
            raise LakeChanged
        listed = listed.filter(pc.field("listed_now"))
        if self.instance_ids is not None:
            listed = listed.filter(pc.field("instance_id").isin(pa.array(self.instance_ids, pa.string())))
        with open_database(lake, memory_gb=tables.memory_gb, spill_directory=str(tables.folder)) as database:
            tables.write_rows(name, _CAMPAIGNS_SQL, database.connection.register("listed", listed))
        return state.version
