"""How other assets get the tables: an IO manager that loads what a parameter's annotation asks for."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from later_reporting_dagster.defs.checks import first_of
from later_reporting_dagster.defs.lake_tables import LAKE_IO_MANAGER, table_of
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import default_lake_root, from_environment
from later_reporting_dagster.lake import Lake, LakeUnavailable
from later_reporting_dagster.reading import dataset, frame

_Frame = TypeVar("_Frame")

# Dagster's own name for it, where files are loaded by its IO managers.
ALLOW_MISSING = "allow_missing_partitions"
_NOTHING = "nothing has landed. Materialize it first"


class LaterLake(dg.ConfigurableIOManager):
    """Loads the tables of Later's lake as the type that a parameter is annotated with; it only loads.

    pandas.DataFrame, pyarrow.Table, pyarrow.dataset.Dataset, polars.DataFrame, polars.LazyFrame or
    duckdb.DuckDBPyRelation: each with the day of its partition in a column `date`, and with nulls that stay null.
    """

    lake_root: str = Field(
        default_factory=lambda: from_environment("LATER_LAKE_ROOT", default_lake_root()),
        description="Where the tables lie: LATER_LAKE_ROOT, where it is not given.",
        repr=False,
    )

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuses: the lake is written by the assets of this project alone.

        Raises:
            Failure: always.
        """
        raise dg.Failure(
            f"{LAKE_IO_MANAGER} only loads Later's tables: give {context.asset_key.to_user_string()} another"
            " io_manager_key",
            allow_retries=False,
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """The partitions of the upstream table that Dagster's partition mapping names; all, of a table without them.

        Those that have not landed are told in the log, and the others are loaded. With
        `allow_missing_partitions: False` in the input's metadata they fail the step.

        Raises:
            Failure: nothing has landed, the annotation is none that is known, or the asset is no table of the lake.
        """
        what = context.asset_key.to_user_string()
        with _plainly(what):
            lake, upstream = self._lake(), context.upstream_output
            metadata = upstream.definition_metadata if upstream else {}
            table = table_of(context.asset_key, metadata, is_partitioned=_is_partitioned(context))
            if not table.is_partitioned:
                if not dataset(lake, table).files:
                    raise ValueError(_NOTHING)
                return frame(context.dagster_type.typing_type, lake, table, ())
            days = None  # all of them
            if context.has_asset_partitions:
                days = [date.fromisoformat(key) for key in context.asset_partition_keys]
            found = lake.partitions(table.name, days=days)
            missing = sorted(set(days or ()).difference(partition.day for partition in found))
            told = f"{len(missing)} of {len(days or ())} partitions are not there: {first_of(missing)}"
            if not found or (missing and context.definition_metadata.get(ALLOW_MISSING) is False):
                raise ValueError(f"{told}. Materialize it first" if missing else _NOTHING)
            if missing:
                context.log.warning(f"{what}: {told}")
            loaded = frame(context.dagster_type.typing_type, lake, table, found)
        context.log.info(f"{what}: {len(found)} files, {found[0].day} to {found[-1].day}")
        return loaded

    def load(
        self,
        table: dg.AssetSpec,
        kind: type[_Frame],
        *,
        start: date | None = None,
        end: date | None = None,
        instance_ids: Collection[str] | None = None,
    ) -> _Frame:
        """What has landed of a table, for code that no partition mapping serves: a notebook, or a window of its own.

        Args:
            table: one of `later_tables()`.
            kind: the type to have it as, such as `pandas.DataFrame`.
            start: the first day; from the first that there is, when not given.
            end: the last day, inclusive; up to the last that there is, when not given.
            instance_ids: just these instances; all, when not given.

        Raises:
            Failure: `table` is no table of the lake or has no such partitions, `kind` is none that is known, or the
                lake cannot be read.
        """
        with _plainly(table.key.to_user_string()):
            lake = self._lake()
            known = table_of(table.key, table.metadata, is_partitioned=table.partitions_def is not None)
            if not known.is_partitioned and (start, end, instance_ids) != (None, None, None):
                raise ValueError("it has no partitions to choose from: filter its rows")
            landed = lake.partitions(known.name) if known.is_partitioned else []
            if instance_ids is not None and any(partition.instance_id is None for partition in landed):
                raise ValueError("its partitions hold all instances: leave instance_ids out, and filter its rows")
            found = [
                partition
                for partition in landed
                if (start is None or partition.day >= start)
                and (end is None or partition.day <= end)
                and (instance_ids is None or partition.instance_id in instance_ids)
            ]
            loaded: _Frame = frame(kind, lake, known, found)
        return loaded

    def _lake(self) -> Lake:
        # Outside of a run nobody has looked the variable up yet.
        root = self.lake_root.get_value() if isinstance(self.lake_root, dg.EnvVar) else self.lake_root
        return LaterReportingResource(lake_root=root or "").lake()


def _is_partitioned(context: dg.InputContext) -> bool:
    try:
        return bool(context.asset_partitions_def)
    except dg.DagsterInvariantViolationError:
        return False


@contextmanager
def _plainly(what: str) -> Iterator[None]:
    """Says in one line what could not be loaded and why, instead of a stack trace through Dagster."""
    try:
        yield
    except LakeUnavailable as error:
        raise dg.Failure(f"{what}: {error}") from error
    except (TypeError, ValueError) as error:
        raise dg.Failure(f"{what}: {error}", allow_retries=False) from error
