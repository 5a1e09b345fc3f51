"""What asset files need of the component: the specs of its assets, its resource, its clock, and the hooks of users."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import Annotated, Any

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import Field

from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Column

# What an asset yields.
AssetEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.MaterializeResult[Any]


class ComponentBase(ComponentSettings):
    """The settings of a component with its resource and hooks."""

    translation: Annotated[TranslationFn[dg.AssetSpec], TranslationFnResolver[dg.AssetSpec](lambda spec: {})] | None = (
        Field(default=None, description="Changes the specs of all assets; `spec` is the default one.")
    )
    resource: LaterReportingResource = Field(
        default_factory=LaterReportingResource, description="The API and the lake: what a run needs."
    )

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec of an asset. Override it to change any attribute but the key, which ends with its name."""
        return spec if self.translation is None else self.translation(spec, spec)

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[AssetEvent]) -> Iterator[AssetEvent]:  # noqa: ARG002
        """Yield what an asset yields. Override it to run code before, after and between.

        Materializations are those of partitions; a last result without one makes Dagster execute checks and downstream
        steps. The asset does its work while `events` is iterated.
        """
        yield from events

    def now(self) -> datetime:
        """Return the current time, which decides which days exist and are due."""
        return utc_now()

    @property
    def lake_key(self) -> str:
        """The key of the IO manager, `LaterLake`."""
        return f"{self.name}_lake"

    def later(
        self,
        context: dg.AssetExecutionContext
        | dg.AssetCheckExecutionContext
        | dg.OpExecutionContext
        | dg.ScheduleEvaluationContext
        | dg.SensorEvaluationContext,
    ) -> LaterReportingResource:
        """Return the resource, with the values of environment variables."""
        return getattr(context.resources, self.resource_key)  # type: ignore[no-any-return]

    def spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec as users see it: with group and owners of this component, and as `get_asset_spec` has it."""
        spec = spec.replace_attributes(group_name=f"{self.name}_{spec.group_name}", owners=[*self.owners])
        final = self.get_asset_spec(spec)
        if final.key != spec.key:
            raise dg.DagsterInvalidDefinitionError(
                f"get_asset_spec or translation changed the key {spec.key.to_user_string()} to"
                f" {final.key.to_user_string()}: set key_prefix, which also changes it where other assets depend on it"
            )
        return final

    def table_spec(
        self,
        name: str,
        columns: Sequence[Column],
        *,
        code_version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        kinds: Set[str] = frozenset(),
        **attributes: Any,
    ) -> dg.AssetSpec:
        """Return the spec of a table: an asset whose columns are known.

        The default code version changes with the columns. `attributes` are those of `dg.AssetSpec`.
        """
        key = self.asset_key(name)
        spec = dg.AssetSpec(
            key,
            kinds={"parquet", *kinds},
            metadata={
                **(metadata or {}),
                "dagster/table_name": ".".join(key.path),
                "dagster/storage_kind": "parquet",
                "dagster/column_schema": dg.TableSchema(columns=list(map(_table_column, columns))),
            },
            code_version=code_version or _version_of(columns),
            **attributes,
        )
        return self.spec(spec).with_io_manager_key(self.lake_key)


def _table_column(column: Column) -> dg.TableColumn:
    return dg.TableColumn(
        name=column.name,
        type=column.type,
        description=column.description,
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
        tags={"unit": column.unit} if column.unit else None,
    )


def _version_of(columns: Sequence[Column]) -> str:
    definition = [f"{column.name} {column.type} {column.nullable}" for column in columns]
    return hashlib.sha256("\n".join(definition).encode()).hexdigest()[:12]
