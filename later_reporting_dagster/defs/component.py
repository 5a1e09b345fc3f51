"""The component: all definitions of one account of the API, configured in YAML or Python or by the environment."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Self

import dagster as dg
from dagster import AssetExecutionContext
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, create_model, model_validator

from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import build_automation_sensor, tag_run_with_updates
from later_reporting_dagster.defs.campaign_checks import CAMPAIGN_TOTALS_TABLES, build_campaign_totals_check
from later_reporting_dagster.defs.campaigns import (
    CAMPAIGN_TABLES,
    build_campaign_checks,
    campaign_performance_step,
    campaigns_step,
)
from later_reporting_dagster.defs.compaction_job import build_compaction_job, build_compaction_schedule
from later_reporting_dagster.defs.component_scaffolder import LaterReportingScaffolder
from later_reporting_dagster.defs.coverage import coverage_step
from later_reporting_dagster.defs.instances import build_instances_checks, build_instances_sensor, instances_step
from later_reporting_dagster.defs.io_manager import LaterLake
from later_reporting_dagster.defs.jobs import build_checks_job, build_daily_schedule, build_posts_job
from later_reporting_dagster.defs.lake_tables import is_table
from later_reporting_dagster.defs.organic_paid_periods import build_rollup_checks, rollup_step
from later_reporting_dagster.defs.organic_paid_windows import build_windows_checks, windows_step
from later_reporting_dagster.defs.posts import posts_step
from later_reporting_dagster.defs.posts_checks import build_posts_checks, build_settled_posts_check
from later_reporting_dagster.defs.report import report_step
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from later_reporting_dagster.defs.settings import (
    METADATA_PREFIX,
    REPORT,
    DefinitionSettings,
    default_lake_root,
    describe_invalid,
    environment_texts,
    without_bounds,
)
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE, RAW_TABLES
from later_reporting_dagster.rollups.rollup_tables import (
    DAY_TABLES,
    POST_TABLES,
    WEEK_AND_MONTH_TABLES,
    WINDOW_TABLES,
    RollupTable,
)


def _reject_moved_attributes(attributes: Any) -> Any:
    """Name the new place of the attributes that earlier were those of the component. Their values may be secrets.

    Raises:
        DagsterInvalidDefinitionError: there are some.
    """
    fields = LaterReportingResource.model_fields
    if moved := [name for name in attributes if name in fields] if isinstance(attributes, dict) else []:
        raise dg.DagsterInvalidDefinitionError(f"{', '.join(moved)}: write it below the attribute `resource`")
    return attributes


@dg.scaffold_with(LaterReportingScaffolder)
class LaterReportingComponent(dg.Component, DefinitionSettings, dg.Resolvable):
    """Fetches Later's Reporting API into a lake every day, and compares organic with paid performance.

    One component is one account: assets with their checks, a daily schedule, and sensors. Every attribute can also be
    set in Python; `from_environment` reads them from variables, `LATER_NAME` for `name`.

    To change the specs of assets, set `translation`, or override `get_asset_spec` in a subclass. To run code around a
    step, override `execute`.

    Example:
        >>> later = LaterReportingResource(lake_root="/data/later_eu", demo_mode=True)
        >>> component = LaterReportingComponent(name="later_eu", resource=later)
        >>> [job.name for job in component.build_definitions().jobs or []]
        ['later_eu_posts', 'later_eu_checks', 'later_eu_compaction']
    """

    automation_sensor: bool = Field(
        default=True,
        description="Whether to define the sensor that updates rollups. If not, another automation sensor has to.",
    )
    translation: Annotated[TranslationFn[dg.AssetSpec], TranslationFnResolver[dg.AssetSpec](lambda spec: {})] | None = (
        Field(default=None, description="Changes the specs of all assets; `spec` is the default one.")
    )
    resource: LaterReportingResource = Field(
        default_factory=LaterReportingResource, description="The API and the lake: what a run needs."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_attributes(cls, attributes: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Fail with one line that names each invalid attribute."""
        try:
            return check(_reject_moved_attributes(attributes))
        except ValidationError as error:
            raise dg.DagsterInvalidDefinitionError(describe_invalid(error)) from None

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the attributes in YAML."""
        moved: dict[str, Any] = {"moved": model_validator(mode="before")(_reject_moved_attributes)}
        return create_model(cls.__name__, __base__=without_bounds(super().model(), cls), __validators__=moved)

    @classmethod
    def from_environment(cls, **attributes: Any) -> Self:
        """Return the component with the attributes that are set in the environment.

        Args:
            attributes: take precedence over the environment.

        Raises:
            DagsterInvalidDefinitionError: an attribute is invalid.
        """
        texts = environment_texts(cls.model_fields.keys() - {"translation", "resource"})
        try:
            resource = LaterReportingResource.from_environment()
        except InvalidSetting as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        return cls(**{**texts, "resource": resource, **attributes})

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Return all definitions, as Dagster does when it loads the component."""
        return self.build_definitions()

    def build_definitions(self) -> dg.Definitions:
        """Return all definitions. They load without a network and without secrets, and affect no others."""
        with warnings.catch_warnings():
            # Beta features are used on purpose. The warning filters of the host process stay as they are.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return self._build_definitions()

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec of an asset. Override it to change any attribute but the key.

        Args:
            spec: the default spec. Its key ends with the name of the table.
        """
        return spec if self.translation is None else self.translation(spec, spec)

    def execute(
        self, context: AssetExecutionContext, later: LaterReportingResource, step: AssetStep
    ) -> Iterable[dg.MaterializeResult[Any]]:
        """Materialize the selected assets of a step. Override it to run code before or after.

        Args:
            context: the context of the step.
            later: the API and the lake.
            step: what to run.
        """
        yield from step.run(context, later)

    def _build_definitions(self) -> dg.Definitions:
        steps, resource = self._steps(), self._resource_with_lake_root()
        automated = [spec.key for step in steps for spec in step.specs if spec.automation_condition]
        assets = [self._build_asset(step, automated) for step in steps]
        keys = [key for asset in assets for key in asset.keys]
        settings = self.model_dump(mode="json", include={*DefinitionSettings.model_fields})
        return dg.Definitions(
            assets=assets,
            asset_checks=self._build_checks(),
            resources={
                self.resource_key: resource,
                self.io_manager_key: LaterLake(lake_root=resource.lake_root, storage_options=resource.storage_options),
            },
            metadata={METADATA_PREFIX + self.name: dg.MetadataValue.json(settings)},
            **self._build_automation(keys),
        )

    def _resource_with_lake_root(self) -> LaterReportingResource:
        """Return the resource; unless it has a lake's root, with a folder that no other component uses."""
        values = {field: getattr(self.resource, field) for field in self.resource.model_fields_set}
        return type(self.resource)(**{"lake_root": default_lake_root(self.name), **values})

    def _steps(self) -> list[AssetStep]:
        """Return the steps that materialize the selected tables, upstream first."""
        windows = self._selected((*WINDOW_TABLES, *POST_TABLES))
        return [
            *(posts_step(raw_table, self) for raw_table in RAW_TABLES if raw_table.name in self.tables),
            *([instances_step(self)] if INSTANCES_TABLE in self.tables else []),
            *([campaigns_step(self)] if CAMPAIGNS_TABLE in self.tables else []),
            *([campaign_performance_step(self)] if CAMPAIGN_PERFORMANCE_TABLE in self.tables else []),
            *([coverage_step(self)] if COVERAGE_TABLE in self.tables else []),
            *(rollup_step(table, self) for table in self._selected((*DAY_TABLES, *WEEK_AND_MONTH_TABLES))),
            *([windows_step(windows, self)] if windows else []),
            *([report_step(self)] if REPORT in self.tables else []),
        ]

    def _selected(self, tables: Iterable[RollupTable]) -> list[RollupTable]:
        return [table.with_metrics(self.metrics) for table in tables if table.name in self.tables]

    def _build_asset(self, step: AssetStep, automated: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
        resource_key = self.resource_key

        @dg.multi_asset(
            name=step.name,
            specs=[self._final_spec(spec) for spec in step.specs],
            can_subset=len(step.specs) > 1,
            backfill_policy=step.backfill_policy,
            pool=step.pool,
            config_schema=None if step.config is None else step.config.to_fields_dict(),
            required_resource_keys={resource_key},
        )
        def materialize(context: AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
            tag_run_with_updates(context, automated)
            yield from self.execute(context, getattr(context.resources, resource_key), step)

        return materialize

    def _final_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec of an asset as the subclass and the translation change it.

        Raises:
            DagsterInvalidDefinitionError: they change its key.
        """
        final = self.get_asset_spec(spec.replace_attributes(group_name=self.group_name(spec.group_name)))
        if final.key != spec.key:
            raise dg.DagsterInvalidDefinitionError(
                f"get_asset_spec or translation changed the key {spec.key.to_user_string()} to"
                f" {final.key.to_user_string()}: set key_prefix, which also changes it where other assets depend on it"
            )
        return final.with_io_manager_key(self.io_manager_key) if is_table(final) else final

    def _build_checks(self) -> list[dg.AssetChecksDefinition]:
        raw_tables = [raw_table for raw_table in RAW_TABLES if raw_table.name in self.tables]
        windows = self._selected((*WINDOW_TABLES, *POST_TABLES))
        return [
            *([build_instances_checks(self)] if INSTANCES_TABLE in self.tables else []),
            *(build_posts_checks(raw_table, self) for raw_table in raw_tables),
            *(build_campaign_checks(name, self) for name in CAMPAIGN_TABLES if name in self.tables),
            *([build_campaign_totals_check(self)] if {*CAMPAIGN_TOTALS_TABLES} <= {*self.tables} else []),
            *([build_settled_posts_check(self)] if len(raw_tables) == len(RAW_TABLES) else []),
            *(build_rollup_checks(table, self) for table in self._selected((*DAY_TABLES, *WEEK_AND_MONTH_TABLES))),
            *([build_windows_checks(windows, self)] if windows else []),
        ]

    def _build_automation(self, keys: Sequence[dg.AssetKey]) -> dict[str, Any]:
        """Return the jobs, schedules and sensors."""
        checks_job = build_checks_job(self, keys)
        sensor = [build_automation_sensor(self, keys)] if self.automation_sensor else []
        if not self.fetched_tables:
            return {"jobs": [checks_job], "schedules": [], "sensors": sensor}
        posts_job, compaction_job = build_posts_job(self), build_compaction_job(self)
        listed = {INSTANCES_TABLE, *(raw_table.name for raw_table in RAW_TABLES)}
        return {
            "jobs": [posts_job, checks_job, compaction_job],
            "schedules": [build_daily_schedule(self, posts_job), build_compaction_schedule(self, compaction_job)],
            "sensors": [
                # It fetches missing files, also without the asset `instances`.
                *([build_instances_sensor(self, posts_job)] if listed & {*self.tables} else []),
                *sensor,
            ],
        }
