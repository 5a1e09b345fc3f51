"""The component: all definitions of one account of the API, configured in YAML or Python or by the environment."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Annotated, Any, Self

import dagster as dg
from dagster import AssetExecutionContext
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import ModelWrapValidatorHandler, PrivateAttr, SkipValidation, ValidationError, model_validator

from later_reporting_dagster.contract import Metric, parse_campaign_metrics, parse_metrics
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
from later_reporting_dagster.defs.component_attributes import names, options, plain, text
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
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import (
    ASSET_NAMES,
    AUTO,
    BOUNDS,
    DEFAULT_BASE_URL,
    DEFAULT_DUE_HOUR_UTC,
    DEFAULT_MEMORY_GB,
    DEFAULT_NAME,
    DEFAULT_REQUESTS_PER_MINUTE,
    DEFAULT_RESTATE_DAYS,
    DEFAULT_START_DATE,
    METADATA_PREFIX,
    PARSERS,
    REPORT,
    DefinitionSettings,
    default_lake_root,
    environment_values,
    parse_boolean,
    parse_integer,
    parse_start_date,
    setting_name,
    value_now,
    variable_name,
)
from later_reporting_dagster.ingest.coverage import COVERAGE_TABLE
from later_reporting_dagster.ingest.instance_dimension import INSTANCES_TABLE
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.raw_tables import RAW_TABLES
from later_reporting_dagster.rollups.rollup_tables import (
    DAY_TABLES,
    POST_TABLES,
    WEEK_AND_MONTH_TABLES,
    WINDOW_TABLES,
    RollupTable,
)

# The fields that the demo mode does not use.
_OF_THE_API = {"base_url", "client_id", "client_secret", "access_token"}


def _described(field: str) -> str | None:
    return LaterReportingResource.model_fields[field].description


@dg.scaffold_with(LaterReportingScaffolder)
class LaterReportingComponent(dg.Component, dg.Model, dg.Resolvable):
    """Fetches Later's Reporting API into a lake every day, and compares organic with paid performance.

    One component is one account: assets with their checks, a daily schedule, and sensors. Every attribute can also be
    set in Python; `from_environment` reads them from variables, `LATER_CLIENT_ID` for `client_id`.

    To change the specs of assets, set `translation`, or override `get_asset_spec` in a subclass. To run code around a
    step, override `execute`.

    Example:
        >>> component = LaterReportingComponent(name="later_eu", lake_root="/data/later_eu", demo_mode=True)
        >>> [job.name for job in component.build_definitions().jobs or []]
        ['later_eu_posts', 'later_eu_checks', 'later_eu_compaction']
    """

    name: Annotated[str, plain("Prefix of the names of jobs, schedules, sensors, resources, groups, pool.", str)] = (
        DEFAULT_NAME
    )
    key_prefix: Annotated[
        str | Sequence[str], SkipValidation, names("Prefix of all asset keys. Default: the name.")
    ] = ""
    tables: Annotated[
        str | Sequence[str], SkipValidation, names("Assets to define, or -name to leave one out. Default: all.")
    ] = ""
    start_date: Annotated[date, SkipValidation, plain("The first partition.", str)] = DEFAULT_START_DATE
    restate_days: Annotated[int, SkipValidation, plain("Days that the daily schedule fetches again.", int)] = (
        DEFAULT_RESTATE_DAYS
    )
    due_hour_utc: Annotated[
        int, SkipValidation, plain("Hour of the day, in UTC, at which the previous day is due.", int)
    ] = DEFAULT_DUE_HOUR_UTC
    automation_sensor: Annotated[
        bool,
        SkipValidation,
        plain("Whether to define the sensor that updates rollups. If not, another automation sensor has to.", bool),
    ] = True
    rollup_partitions_per_run: Annotated[
        int | None,
        SkipValidation,
        plain("Maximum partitions in one run of a rollup backfill, such as 31. Default: all in one run.", int),
    ] = None
    translation: Annotated[TranslationFn[dg.AssetSpec], TranslationFnResolver[dg.AssetSpec](lambda spec: {})] | None = (
        None
    )

    base_url: Annotated[str, SkipValidation, text(_described("base_url"))] = DEFAULT_BASE_URL
    client_id: Annotated[str, SkipValidation, text(_described("client_id"))] = ""
    client_secret: Annotated[str, SkipValidation, text(_described("client_secret"))] = ""
    access_token: Annotated[str, SkipValidation, text(_described("access_token"))] = ""
    instance_ids: Annotated[str | Sequence[str], SkipValidation, names(_described("instance_ids"))] = ""
    lake_root: Annotated[str, SkipValidation, text(_described("lake_root"))] = ""
    storage_options: Annotated[dict[str, Any], SkipValidation, options(_described("storage_options"))] = {}
    metrics: Annotated[str | Sequence[str], SkipValidation, names(_described("metrics"))] = ""
    campaign_metrics: Annotated[str | Sequence[str], SkipValidation, names(_described("campaign_metrics"))] = ""
    requests_per_minute: Annotated[int, SkipValidation, plain(_described("requests_per_minute"), int)] = (
        DEFAULT_REQUESTS_PER_MINUTE
    )
    rate_limit_store: Annotated[str, SkipValidation, text(_described("rate_limit_store"))] = ""
    api_version: Annotated[str, SkipValidation, text(_described("api_version"))] = AUTO
    verify_percent: Annotated[int | None, SkipValidation, plain(_described("verify_percent"), int)] = None
    shrink_limit_percent: Annotated[int, SkipValidation, plain(_described("shrink_limit_percent"), int)] = 50
    bad_rows_limit_percent: Annotated[int, SkipValidation, plain(_described("bad_rows_limit_percent"), int)] = 100
    memory_gb: Annotated[float, SkipValidation, plain(_described("memory_gb"), float)] = DEFAULT_MEMORY_GB
    demo_mode: Annotated[bool, SkipValidation, plain(_described("demo_mode"), bool)] = False

    _settings: DefinitionSettings = PrivateAttr()
    _resource: LaterReportingResource = PrivateAttr()

    @model_validator(mode="wrap")
    @classmethod
    def _check_attributes(cls, attributes: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read all settings, so that an invalid one fails here, with one line that names it."""
        try:
            component = handler(attributes)
            component._settings = component._read_settings()
            component._resource = LaterReportingResource.with_defaults(component._resource_values())
        except ValidationError as error:
            lines = [f"{setting_name('.'.join(map(str, each['loc'])))}: {each['msg']}" for each in error.errors()]
            raise dg.DagsterInvalidDefinitionError("; ".join(lines)) from None
        except ValueError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        return component

    @property
    def settings(self) -> DefinitionSettings:
        """The settings that the definitions depend on, and the names and keys derived from them."""
        return self._settings

    @classmethod
    def from_environment(cls, **attributes: Any) -> Self:
        """Return the component with every attribute whose environment variable is set.

        Args:
            attributes: attributes that override the environment.

        Raises:
            DagsterInvalidDefinitionError: a setting is invalid; the message names it and the accepted values.
        """
        try:
            values = environment_values(cls.model_fields.keys() - {"translation"})
        except ValueError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        return cls(**(values | attributes))

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

    def _read_settings(self) -> DefinitionSettings:
        """Return the settings that the definitions depend on.

        Raises:
            ValueError: an attribute is invalid.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise ValueError(f"{setting_name('name')}: must be letters, digits and underscores, not {self.name!r}")
        per_run = self.rollup_partitions_per_run
        return DefinitionSettings(
            name=self.name,
            key_prefix=tuple(_split(self.key_prefix)) or (self.name,),
            tables=_selected_assets(_split(self.tables)),
            start_date=parse_start_date(self.start_date),
            restate_days=parse_integer("restate_days", value_now(self.restate_days)),
            due_hour_utc=parse_integer("due_hour_utc", value_now(self.due_hour_utc)),
            metrics=self._parse_names("metrics", parse_metrics),
            campaign_metrics=self._parse_names("campaign_metrics", parse_campaign_metrics),
            rollup_partitions_per_run=(
                None if per_run is None else parse_integer("rollup_partitions_per_run", value_now(per_run))
            ),
        )

    def _parse_names(self, field: str, parse: Callable[[str], tuple[Metric, ...]]) -> tuple[Metric, ...]:
        try:
            return parse(",".join(_split(getattr(self, field))))
        except ValueError as error:
            raise ValueError(f"{setting_name(field)}: {error}") from None

    def _resource_values(self) -> dict[str, Any]:
        """Return the fields of the resource that are set.

        Raises:
            ValueError: an attribute is invalid.
        """
        fields = LaterReportingResource.model_fields.keys() & self.model_fields_set
        values = {field: getattr(self, field) for field in fields if getattr(self, field) is not None}
        values.setdefault("lake_root", default_lake_root(self.name))
        if parse_boolean("demo_mode", self.demo_mode):
            # Their environment variables need not be set.
            values = {field: value for field, value in values.items() if field not in _OF_THE_API}
        parsed: dict[str, Any] = {}
        for field, value in values.items():
            if variable_name(value) is not None:
                parsed[field] = value  # read when a run starts
            elif field in BOUNDS:
                parsed[field] = parse_integer(field, value)
            elif field in ("instance_ids", "metrics", "campaign_metrics"):
                parsed[field] = ",".join(_split(value))
            else:
                parsed[field] = PARSERS[field](field, value) if field in PARSERS else value
        return parsed

    def _build_definitions(self) -> dg.Definitions:
        settings, steps = self._settings, self._steps()
        automated = [spec.key for step in steps for spec in step.specs if spec.automation_condition]
        assets = [self._build_asset(step, automated) for step in steps]
        keys = [key for asset in assets for key in asset.keys]
        return dg.Definitions(
            assets=assets,
            asset_checks=self._build_checks(),
            resources={settings.resource_key: self._resource, settings.io_manager_key: self._io_manager()},
            metadata={METADATA_PREFIX + settings.name: dg.MetadataValue.json(settings.to_json())},
            **self._build_automation(keys),
        )

    def _io_manager(self) -> LaterLake:
        return LaterLake(lake_root=self._resource.lake_root, storage_options=self._resource.storage_options)

    def _steps(self) -> list[AssetStep]:
        """Return the steps that materialize the selected tables, upstream first."""
        settings = self._settings
        windows = self._selected((*WINDOW_TABLES, *POST_TABLES))
        return [
            *(posts_step(raw_table, settings) for raw_table in RAW_TABLES if raw_table.name in settings.tables),
            *([instances_step(settings)] if INSTANCES_TABLE in settings.tables else []),
            *([campaigns_step(settings)] if CAMPAIGNS_TABLE in settings.tables else []),
            *([campaign_performance_step(settings)] if CAMPAIGN_PERFORMANCE_TABLE in settings.tables else []),
            *([coverage_step(settings)] if COVERAGE_TABLE in settings.tables else []),
            *(rollup_step(table, settings) for table in self._selected((*DAY_TABLES, *WEEK_AND_MONTH_TABLES))),
            *([windows_step(windows, settings)] if windows else []),
            *([report_step(settings)] if REPORT in settings.tables else []),
        ]

    def _selected(self, tables: Iterable[RollupTable]) -> list[RollupTable]:
        return [table.with_metrics(self._settings.metrics) for table in tables if table.name in self._settings.tables]

    def _build_asset(self, step: AssetStep, automated: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
        resource_key = self._settings.resource_key

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
        final = self.get_asset_spec(spec.replace_attributes(group_name=self._settings.group_name(spec.group_name)))
        if final.key != spec.key:
            raise dg.DagsterInvalidDefinitionError(
                f"get_asset_spec or translation changed the key {spec.key.to_user_string()} to"
                f" {final.key.to_user_string()}: set key_prefix, which also changes it where other assets depend on it"
            )
        return final.with_io_manager_key(self._settings.io_manager_key) if is_table(final) else final

    def _build_checks(self) -> list[dg.AssetChecksDefinition]:
        settings = self._settings
        raw_tables = [raw_table for raw_table in RAW_TABLES if raw_table.name in settings.tables]
        windows = self._selected((*WINDOW_TABLES, *POST_TABLES))
        return [
            *([build_instances_checks(settings)] if INSTANCES_TABLE in settings.tables else []),
            *(build_posts_checks(raw_table, settings) for raw_table in raw_tables),
            *(build_campaign_checks(name, settings) for name in CAMPAIGN_TABLES if name in settings.tables),
            *([build_campaign_totals_check(settings)] if {*CAMPAIGN_TOTALS_TABLES} <= {*settings.tables} else []),
            *([build_settled_posts_check(settings)] if len(raw_tables) == len(RAW_TABLES) else []),
            *(build_rollup_checks(table, settings) for table in self._selected((*DAY_TABLES, *WEEK_AND_MONTH_TABLES))),
            *([build_windows_checks(windows, settings)] if windows else []),
        ]

    def _build_automation(self, keys: Sequence[dg.AssetKey]) -> dict[str, Any]:
        """Return the jobs, schedules and sensors."""
        settings = self._settings
        checks_job = build_checks_job(settings, keys)
        sensor = (
            [build_automation_sensor(settings, keys)]
            if parse_boolean("automation_sensor", self.automation_sensor)
            else []
        )
        if not settings.fetched_tables:
            return {"jobs": [checks_job], "schedules": [], "sensors": sensor}
        posts_job, compaction_job = build_posts_job(settings), build_compaction_job(settings)
        listed = {INSTANCES_TABLE, *(raw_table.name for raw_table in RAW_TABLES)}
        return {
            "jobs": [posts_job, checks_job, compaction_job],
            "schedules": [
                build_daily_schedule(settings, posts_job),
                build_compaction_schedule(settings, compaction_job),
            ],
            "sensors": [
                # It fetches missing files, also without the asset `instances`.
                *([build_instances_sensor(settings, posts_job)] if listed & {*settings.tables} else []),
                *sensor,
            ],
        }


def _selected_assets(names_: Sequence[str]) -> tuple[str, ...]:
    """Return the assets that are named, or all; without those that are named with a minus sign before them.

    Raises:
        ValueError: there is no asset of a name.
    """
    left_out = [name.removeprefix("-") for name in names_ if name.startswith("-")]
    named = [name for name in names_ if not name.startswith("-")]
    if unknown := [name for name in (*named, *left_out) if name not in ASSET_NAMES]:
        raise ValueError(
            f"{setting_name('tables')}: there is no asset {', '.join(unknown)}; there are {', '.join(ASSET_NAMES)}"
        )
    return tuple(name for name in ASSET_NAMES if name in (named or ASSET_NAMES) and name not in left_out)


def _split(names_: Any) -> list[str]:
    """Return comma-separated names; a list is accepted, too."""
    value = value_now(names_)
    items = value.split(",") if isinstance(value, str) else value or []
    return [name for item in items if (name := str(item).strip())]
