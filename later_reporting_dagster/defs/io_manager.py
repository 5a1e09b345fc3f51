"""The tables of the lake as assets, and the IO manager that loads them into downstream assets."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, TypeVar, cast

import dagster as dg
from pydantic import Field

from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.resource import (
    LaterReportingResource,
    described_settings,
    environment_texts,
    named_as,
)
from later_reporting_dagster.lake import Column, LakeUnavailable, Partition, Table, read_frame
from later_reporting_dagster.lake.database import files_of_older_definitions, table_files
from later_reporting_dagster.lake.tables import OF_INSTANCES, ColumnType
from later_reporting_dagster.quality.instances import load_instances
from later_reporting_dagster.quality.missing_files import absent_files, describe_missing
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES, Cadence, days_of

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
    return [*map(_table, table_specs(definitions, settings).values())]


def _table(spec: dg.AssetSpec) -> Table:
    schema = spec.metadata.get(_COLUMN_SCHEMA)
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
    definition = spec.metadata.get(DEFINITION, 0)
    version = definition.value if isinstance(definition, dg.IntMetadataValue) else definition
    return Table(
        spec.key.path[-1], tuple(columns), spec.partitions_def is not None, version or 0, spec.description or ""
    )


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
        @named_as(type(self))
        def create(_context: dg.InitResourceContext) -> dg.IOManager:
            return self

        return dg.IOManagerDefinition(create, config_schema={}, description=described_settings(self))

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
        name, upstream = context.asset_key.to_user_string(), context.upstream_output
        with _failures(name):
            partitions_def = _partitions_def(context)
            days = None
            if partitions_def and context.has_asset_partitions:
                days = [date.fromisoformat(key) for key in context.asset_partition_keys]
            metadata = upstream.definition_metadata if upstream else {}
            loaded, partitions, missing = self._load(
                dg.AssetSpec(context.asset_key, metadata=metadata, partitions_def=partitions_def),
                context.dagster_type.typing_type,
                days=days,
                allow_missing=context.definition_metadata.get(_ALLOW_MISSING) is not False,
                allow_nothing=False,
            )
        if missing:
            context.log.warning(f"{name}: {missing}")
        if partitions:
            context.log.info(f"{name}: {len(partitions)} files, {partitions[0].day} to {partitions[-1].day}")
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
            end: the last day, inclusive; default: the newest. Missing days are then those up to the newest due day, and
                missing weeks or months those that were over on that day.
            instance_ids: only these instances, or this one; default: all.
            allow_missing: whether to load the rest if files are missing, or to raise.

        Raises:
            Failure: files are missing, and `allow_missing` is false; or the table has no such part.
        """
        if isinstance(instance_ids, str):  # whose members are its characters
            instance_ids = [instance_ids]
        with _failures(table.key.to_user_string()):
            loaded, _, missing = self._load(
                table, kind, start=start, end=end, instance_ids=instance_ids, allow_missing=allow_missing
            )
        if missing:
            warnings.warn(f"{table.key.to_user_string()}: {missing}", stacklevel=2)
        return loaded  # type: ignore[no-any-return]

    def _load(
        self,
        spec: dg.AssetSpec,
        kind: Any,
        *,
        days: Sequence[date] | None = None,
        start: date | None = None,
        end: date | None = None,
        instance_ids: Collection[str] | None = None,
        allow_missing: bool,
        allow_nothing: bool = True,
    ) -> tuple[Any, list[Partition], str]:
        """Return some days of a table, by default from `start` to `end`, their partitions, and what is missing."""
        later = LaterReportingResource(lake_root=self.lake_root, storage_options=self.storage_options)
        lake, table, missing = later.resolved().lake(), _table(spec), ""
        cadence = next((each.cadence for each in PERIOD_TABLES if each.name == table.name), Cadence.DAY)
        selected: list[Partition] = []
        if spec.partitions_def is not None:
            stored = lake.partitions(table.name, days=days)
            if instance_ids is not None and any(partition.instance_id is None for partition in stored):
                raise ValueError("its partitions contain all instances: omit instance_ids, and filter its rows")
            selected = [
                each
                for each in stored
                if (start or each.day) <= each.day <= (end or each.day)
                and (instance_ids is None or each.instance_id in instance_ids)
            ]
            due = due_day(datetime.now(UTC), due_hour_utc=self.due_hour_utc)
            if days is None:
                keys = map(date.fromisoformat, spec.partitions_def.get_partition_keys())
                days = [day for day in keys if (start or day) <= day <= (end or due)]
            if cadence is not Cadence.DAY:  # the current week or month is not expected
                days = [day for day in days if days_of(cadence, day)[-1] <= due]
            instances: Collection[str | None] = instance_ids or ()
            if table.name in OF_INSTANCES:
                instances = instances or sorted(load_instances(lake).in_numbers) or [None]
            absent = absent_files(table.name, days=days, instances=instances, present={*selected})
            missing = describe_missing(absent, instances=len(instances), cadence=cadence)
        elif (start, end, instance_ids) != (None, None, None):
            raise ValueError("it has no partitions to select: filter its rows")
        paths = table_files(lake, table, selected)
        if (missing and not allow_missing) or not (paths or allow_nothing):
            whole = f"these {cadence}s" if missing else "it"
            raise ValueError(f"{missing or 'it has no files'}. Materialize {whole} first")
        if older := files_of_older_definitions(lake.storage, table, paths):
            raise ValueError(
                f"{len(older)} of {len(paths)} files are of an older definition, whose rows may have another grain."
                " Next step: `later-reporting refresh`"
            )
        return read_frame(kind, lake, table, selected), selected, missing


def _partitions_def(context: dg.InputContext) -> dg.PartitionsDefinition[Any] | None:
    """Return the partitions of an asset, also if all of them are loaded; None if it has none."""
    try:
        return context.asset_partitions_def
    except dg.DagsterInvariantViolationError:
        return None


@contextmanager
def _failures(name: str) -> Iterator[None]:
    """Convert errors to one-line failures that name the table, so that Dagster shows no stack trace of its own."""
    try:
        yield
    except LakeUnavailable as error:
        raise dg.Failure(f"{name}: {error}") from error
    except (TypeError, ValueError) as error:
        raise dg.Failure(f"{name}: {error}", allow_retries=False) from error
