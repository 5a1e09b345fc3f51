"""The tables of the lake as assets, and the IO manager that loads them into downstream assets."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, TypeVar, cast

import dagster as dg
from pydantic import Field

from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.resource import LaterReportingResource, environment_texts
from later_reporting_dagster.lake import Column, Lake, LakeUnavailable, Partition, Table, partition_path, read_frame
from later_reporting_dagster.lake.database import files_of_older_definitions
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import RAW_NAMES, ColumnType
from later_reporting_dagster.quality.instances import known_instances
from later_reporting_dagster.quality.missing_files import describe_missing, missing_days

_Frame = TypeVar("_Frame")

# An asset with this metadata is a table of the lake.
_COLUMN_SCHEMA = "dagster/column_schema"
# The version of a rollup's definition.
DEFINITION = "definition"
# The name that Dagster's own UPathIOManager uses.
_ALLOW_MISSING = "allow_missing_partitions"


def table_specs(definitions: dg.Definitions, settings: ComponentBase) -> dict[str, dg.AssetSpec]:
    """Return the tables of a component, by name, as specs of external assets: without dependencies or automation."""
    external: dict[str, Any] = {"deps": [], "automation_condition": None}
    return {
        spec.key.path[-1]: spec.replace_attributes(**external)
        for spec in sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())
        if _COLUMN_SCHEMA in spec.metadata and spec.key == settings.asset_key(spec.key.path[-1])
    }


def all_tables(definitions: dg.Definitions, settings: ComponentBase) -> list[Table]:
    """Return the tables of a component as `Table` objects, which contain nothing of Dagster."""
    specs = table_specs(definitions, settings).values()
    return [_table(spec.key, spec.metadata, is_partitioned=spec.partitions_def is not None) for spec in specs]


def _table(key: dg.AssetKey, metadata: Mapping[str, Any], *, is_partitioned: bool) -> Table:
    schema = metadata.get(_COLUMN_SCHEMA)
    if schema is None:
        raise ValueError("it has no column schema: add `*later_tables().values()` to the assets of your definitions")
    column_schema: dg.TableSchema = schema.value if isinstance(schema, dg.TableSchemaMetadataValue) else schema
    columns = [
        Column(
            name=column.name,
            type=cast("ColumnType", column.type),
            nullable=column.constraints.nullable,
            description=column.description or "",
            unit=column.tags.get("unit", ""),
        )
        for column in column_schema.columns
    ]
    definition = metadata.get(DEFINITION, 0)
    version = definition.value if isinstance(definition, dg.IntMetadataValue) else definition
    return Table(key.path[-1], tuple(columns), is_partitioned, version or 0)


class LaterLake(dg.ConfigurableIOManager):
    """Loads tables of the lake into downstream assets, as the type that a parameter is annotated with.

    Types: pandas.DataFrame, pyarrow.Table, pyarrow.dataset.Dataset, polars.DataFrame, polars.LazyFrame and
    duckdb.DuckDBPyRelation. Partitioned tables have a column `date` with the day of the partition. Nulls stay null.
    It does not store anything.
    """

    lake_root: str = Field(
        default_factory=lambda: LaterReportingResource.from_environment().root,
        description="Directory, or URL of an object store, of the lake. Default: LATER_LAKE_ROOT.",
        repr=False,
    )
    storage_options: dict[str, Any] = Field(
        default_factory=lambda: LaterReportingResource.from_environment().storage_options,
        description="Options of the fsspec filesystem of the lake. Default: LATER_STORAGE_OPTIONS.",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
    )

    due_hour_utc: int = Field(
        default_factory=lambda: ComponentBase.model_validate(environment_texts(["due_hour_utc"])).due_hour_utc,
        description="From which UTC hour on the day before is missing if it has no file. Default: LATER_DUE_HOUR_UTC.",
    )

    @cached_property
    def _definition(self) -> dg.IOManagerDefinition:
        return dg.IOManagerDefinition(self.create_io_manager, config_schema={}, description=self.__doc__)

    def get_resource_definition(self) -> dg.IOManagerDefinition:  # type: ignore[override]
        """Return the definition that Dagster uses: without config, so that no run can read another lake."""
        return self._definition

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Fail, because only the assets of this project write to the lake."""
        raise dg.Failure(
            f"LaterLake only loads Later's tables: give {context.asset_key.to_user_string()} another io_manager_key",
            allow_retries=False,
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the upstream partitions that Dagster's partition mapping selects, or all of an unpartitioned table.

        Missing files are logged: a day of an instance in a raw table, else a partition. If the input's metadata has
        `allow_missing_partitions: False`, they fail the step.

        Raises:
            Failure: there are no files, or the annotation is not a supported type.
        """
        kind, name = context.dagster_type.typing_type, context.asset_key.to_user_string()
        with _failures(name):
            lake, upstream = self._lake(), context.upstream_output
            metadata = upstream.definition_metadata if upstream else {}
            table = _table(context.asset_key, metadata, is_partitioned=_is_partitioned(context))
            if not table.is_partitioned:
                if not lake.table_version(table.name):
                    raise ValueError("it has no files. Materialize it first")
                return _read(kind, lake, table, ())
            selects = context.has_asset_partitions
            days = [date.fromisoformat(key) for key in context.asset_partition_keys] if selects else None
            stored = lake.partitions(table.name, days=days)
            if days is None:
                days = self._expected_days(context.asset_partitions_def)
            missing = _describe_missing(lake, table, days, stored)
            if not stored or (missing and context.definition_metadata.get(_ALLOW_MISSING) is False):
                raise ValueError(f"{missing or 'it has no files'}. Materialize these days first")
            if missing:
                context.log.warning(f"{name}: {missing}")
            loaded = _read(kind, lake, table, stored)
        context.log.info(f"{name}: {len(stored)} files, {stored[0].day} to {stored[-1].day}")
        return loaded

    def load(
        self,
        table: dg.AssetSpec,
        kind: type[_Frame],
        *,
        start: date | None = None,
        end: date | None = None,
        instance_ids: Collection[str] | str | None = None,
        allow_missing: bool = True,
    ) -> _Frame:
        """Load any part of a table, without a run or a partition mapping: for notebooks and custom date ranges.

        Files that are missing in this part are named in a `UserWarning`. There are no rows if no file matches.

        Args:
            table: one of `later_tables()`.
            kind: the type to return, such as `pandas.DataFrame`.
            start: the first day; default: the oldest.
            end: the last day, inclusive; default: the newest. Missing days are then those up to the newest due day.
            instance_ids: only these instances, or this one; default: all.
            allow_missing: whether to load the rest if files are missing, or to raise.

        Raises:
            Failure: files are missing, and `allow_missing` is false; or the table has no such part.
        """
        if isinstance(instance_ids, str):  # whose members are its characters
            instance_ids = [instance_ids]
        with _failures(table.key.to_user_string()):
            lake = self._lake()
            source = _table(table.key, table.metadata, is_partitioned=table.partitions_def is not None)
            if not source.is_partitioned and (start, end, instance_ids) != (None, None, None):
                raise ValueError("it has no partitions to select: filter its rows")
            stored = lake.partitions(source.name) if source.is_partitioned else []
            if instance_ids is not None and any(partition.instance_id is None for partition in stored):
                raise ValueError("its partitions contain all instances: omit instance_ids, and filter its rows")
            selected = [
                partition
                for partition in stored
                if (start is None or partition.day >= start)
                and (end is None or partition.day <= end)
                and (instance_ids is None or partition.instance_id in instance_ids)
            ]
            if table.partitions_def is not None:
                days = self._expected_days(table.partitions_def, start=start, end=end)
                if missing := _describe_missing(lake, source, days, selected, instance_ids=instance_ids):
                    if not allow_missing:
                        raise ValueError(f"{missing}. Materialize these days first")
                    warnings.warn(f"{table.key.to_user_string()}: {missing}", stacklevel=2)
            return _read(kind, lake, source, selected)  # type: ignore[no-any-return]

    def _lake(self) -> Lake:
        later = LaterReportingResource(lake_root=self.lake_root, storage_options=self.storage_options)
        return later.resolved().lake()

    def _expected_days(
        self, partitions_def: dg.PartitionsDefinition[Any], *, start: date | None = None, end: date | None = None
    ) -> list[date]:
        """Return the first days of the partitions from `start` to `end`; by default up to the newest due day."""
        last = end or due_day(datetime.now(UTC), due_hour_utc=self.due_hour_utc)
        days = map(date.fromisoformat, partitions_def.get_partition_keys())
        return [day for day in days if (start or day) <= day <= last]


def _describe_missing(
    lake: Lake,
    table: Table,
    days: Sequence[date],
    stored: Sequence[Partition],
    *,
    instance_ids: Collection[str] | None = None,
) -> str:
    instances: Collection[str | None] = (None,)
    if table.name in RAW_NAMES:
        instances = instance_ids or known_instances(lake) or instances
    return describe_missing(missing_days(days, instances, stored), instances=len(instances))


def _read(kind: Any, lake: Lake, table: Table, partitions: Sequence[Partition]) -> Any:
    of_partitions = [partition_path(table.name, partition) for partition in partitions]
    paths = of_partitions if table.is_partitioned else [table_path(table.name)]
    if older := files_of_older_definitions(lake.storage, table, paths):
        raise ValueError(
            f"{len(older)} of {len(paths)} files are of an older definition, whose rows may have another grain. Next"
            " step: `later-reporting refresh`"
        )
    return read_frame(kind, lake, table, partitions)


def _is_partitioned(context: dg.InputContext) -> bool:
    try:
        return bool(context.asset_partitions_def)
    except dg.DagsterInvariantViolationError:
        return False


@contextmanager
def _failures(name: str) -> Iterator[None]:
    """Convert errors to one-line failures that name the table, so that Dagster shows no stack trace of its own."""
    try:
        yield
    except LakeUnavailable as error:
        raise dg.Failure(f"{name}: {error}") from error
    except (TypeError, ValueError) as error:
        raise dg.Failure(f"{name}: {error}", allow_retries=False) from error
