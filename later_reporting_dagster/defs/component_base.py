"""The settings of a component, and what asset files need of it: specs, its resource, its clock, and the hooks of users.

The settings of the API and the lake, which a run needs, are in `resource`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer

from later_reporting_dagster.contract import DEFAULT_CAMPAIGN_METRICS, DEFAULT_METRICS, Metric, parse_metrics
from later_reporting_dagster.contract.days import expected_days, newest_day, refetch_ages, utc_now
from later_reporting_dagster.contract.metrics import parse_campaign_metrics
from later_reporting_dagster.contract.route import CAMPAIGNS_PERFORMANCE, POSTS_PERFORMANCE
from later_reporting_dagster.defs.resource import DEFAULT_NAME, NAMES_IN_YAML, LaterReportingResource, split_names
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, Column
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE, PERIODS_TABLES, RAW_NAMES, RawTable
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import TABLES, RollupTable

# The key of the metadata of `Definitions` with the settings of a component; its name follows.
METADATA_PREFIX = "later_reporting/"
# All assets of this project, in the order of their lineage.
ASSET_NAMES = (
    *RAW_NAMES,
    INSTANCES_TABLE,
    CAMPAIGNS_TABLE,
    *PERIODS_TABLES,
    COVERAGE_TABLE,
    *(table.name for table in TABLES),
    REPORT,
)


def _selected_assets(names: str | Iterable[object]) -> tuple[str, ...]:
    """Return the assets that are named, or all; without those that are named with a minus sign before them."""
    left_out = [name.removeprefix("-") for name in split_names(names) if name.startswith("-")]
    named = [name for name in split_names(names) if not name.startswith("-")]
    if unknown := [name for name in (*named, *left_out) if name not in ASSET_NAMES]:
        raise ValueError(f"there is no asset {', '.join(unknown)}; there are {', '.join(ASSET_NAMES)}")
    return tuple(name for name in ASSET_NAMES if name in (named or ASSET_NAMES) and name not in left_out)


def _parsed_by(parse: Callable[[str], tuple[Metric, ...]]) -> BeforeValidator:
    return BeforeValidator(lambda names: parse(",".join(split_names(names))))


_Metrics = Annotated[tuple[Metric, ...], PlainSerializer(lambda metrics: [metric.api_name for metric in metrics])]
# What an asset yields.
AssetEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.MaterializeResult[Any]


# Attributes that definitions set, in YAML or Python, and no environment variable.
WITHOUT_VARIABLE = frozenset({"translation", "resource", "op", "retry_policy"})


class StepOptions(dg.Model, dg.Resolvable):
    """Options of all steps, as `op` of Dagster's own components has them."""

    tags: dict[str, Any] = Field(
        default={}, description="Tags of all steps, which executors read, such as `dagster-k8s/config`."
    )
    pool: str | None = Field(
        default=None, description="The pool of the steps that fetch from the API. Default: `<name>_api`."
    )


class RetryOptions(dg.Model, dg.Resolvable):
    """A `dg.RetryPolicy` in YAML."""

    max_retries: int = Field(default=1, description="How often a step is executed again.")
    delay: float | None = Field(default=None, description="Seconds before it is.")
    backoff: Literal["LINEAR", "EXPONENTIAL"] | None = Field(default=None, description="How the delay grows.")
    jitter: Literal["FULL", "PLUS_MINUS"] | None = Field(default=None, description="How the delay varies by chance.")

    @classmethod
    def resolve_policy(cls, context: dg.ResolutionContext, model: Any) -> dg.RetryPolicy | None:
        """Return the policy of a model of the attributes; None without one."""
        if model is None:
            return None
        options = cls.resolve_from_model(context, model)
        return dg.RetryPolicy(
            max_retries=options.max_retries,
            delay=options.delay,
            backoff=dg.Backoff[options.backoff] if options.backoff else None,
            jitter=dg.Jitter[options.jitter] if options.jitter else None,
        )


class ComponentBase(dg.Model):
    """The settings that definitions depend on, with names derived from them; the resource of runs; and hooks."""

    name: str = Field(
        default=DEFAULT_NAME,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="Prefix of the names of jobs, schedules, sensors, resources, groups and the pool.",
    )
    key_prefix: Annotated[tuple[str, ...], BeforeValidator(split_names), NAMES_IN_YAML] = Field(
        default=(), description="Prefix of all asset keys. Default: the name."
    )
    tables: Annotated[tuple[str, ...], BeforeValidator(_selected_assets), NAMES_IN_YAML] = Field(
        default=ASSET_NAMES, description="Assets to define, or -name to leave one out. Default: all."
    )
    owners: Annotated[tuple[str, ...], BeforeValidator(split_names), NAMES_IN_YAML] = Field(
        default=(), description="Owners of all assets: e-mail addresses, or `team:` and a name."
    )
    blocking_checks: Annotated[tuple[str, ...], BeforeValidator(split_names), NAMES_IN_YAML] = Field(
        default=(),
        description="Names of checks that block: if one fails, also one that otherwise warns, the run fails, and"
        " executes no asset downstream of the table.",
    )
    # An earlier start is a typo, and would make more partitions than a browser can show.
    start_date: Annotated[date, dg.Resolver.default(model_field_type=str)] = Field(
        default=date(2024, 1, 1), ge=date(2000, 1, 1), description="The first partition."
    )
    lookback_days: int = Field(default=28, ge=1, le=730, description="Days that the daily schedule fetches again.")
    refetch_factor: float = Field(
        default=1.5,
        ge=1.1,
        description="An older day is fetched again whenever its age has grown by this factor: with the default at 42,"
        " 63, 94, 141 … days.",
    )
    due_hour_utc: int = Field(
        default=12, ge=0, le=23, description="Hour of the day, in UTC, at which the previous day is due."
    )
    metrics: Annotated[_Metrics, _parsed_by(parse_metrics), NAMES_IN_YAML] = Field(
        default=DEFAULT_METRICS,
        description="Metrics to request, by API or column name; `all` for every known metric. Default: the eleven that"
        " the paged API version returns.",
    )
    campaign_metrics: Annotated[_Metrics, _parsed_by(parse_campaign_metrics), NAMES_IN_YAML] = Field(
        default=DEFAULT_CAMPAIGN_METRICS,
        description="Metrics of campaigns to request for whole periods, by name or `all`; days have those that add up."
        " Default: spend, return, links, reach and content cost.",
    )
    automation: str = Field(
        default="",
        pattern=r"^(running|stopped)?$",
        description="Initial state of all schedules and sensors: running or stopped. Default: those that fetch posts"
        " are stopped, and the others run.",
    )
    max_wait_hours: float = Field(
        default=6.0,
        gt=0,
        description="After so many hours of waiting for runs in progress, such as a backfill of years, what these runs"
        " do not make is rolled up all the same.",
    )
    rollup_partitions_per_run: int | None = Field(
        default=None, ge=1, description="Maximum partitions in one run of a rollup backfill. Default: all in one run."
    )
    op: StepOptions = Field(default=StepOptions(), description="Options of all steps: `tags`, and the `pool`.")
    retry_policy: Annotated[
        InstanceOf[dg.RetryPolicy] | None,
        dg.Resolver(RetryOptions.resolve_policy, model_field_type=RetryOptions.model() | None),
    ] = Field(
        default=None,
        description="When Dagster executes a failed step again: `max_retries`, `delay`, `backoff`, `jitter`. What no"
        " retry would change fails at once.",
    )
    translation: Annotated[TranslationFn[dg.AssetSpec] | None, TranslationFnResolver(lambda spec: {})] = Field(
        default=None, description="Changes the specs of all assets; `spec` is the default one."
    )
    resource: LaterReportingResource = Field(
        default_factory=LaterReportingResource, description="The API and the lake: what a run needs."
    )

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec of an asset. Override it to change any attribute but the key and the partitions."""
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
    def resource_key(self) -> str:
        """The key of the `LaterReportingResource`."""
        return f"{self.name}_reporting"

    @property
    def pool(self) -> str:
        """The pool of the steps that fetch posts and campaigns."""
        return self.op.pool or f"{self.name}_api"

    def step(self, table_name: str) -> dict[str, Any]:
        """Return the arguments that the definitions of all steps have: for `multi_asset` and `multi_asset_check`."""
        return {
            "name": self.op_name(table_name),
            "required_resource_keys": {self.resource_key},  # later_reporting, a LaterReportingResource
            "op_tags": self.op.tags,
            "retry_policy": self.retry_policy,
        }

    @property
    def due_cron(self) -> str:
        """The schedule of what is evaluated when a day is due."""
        return f"0 {self.due_hour_utc} * * *"

    def metrics_of(self, table: RawTable) -> tuple[Metric, ...]:
        """Return the metrics that are requested for a table: those of the setting for its rows, or else all."""
        selected = {POSTS_PERFORMANCE: self.metrics, CAMPAIGNS_PERFORMANCE: self.campaign_metrics}.get(
            table.route, table.known_metrics
        )
        return tuple(metric for metric in selected if not table.only_sums or metric.kind.adds_up_over_days)

    def schedule_status(self, *, runs_by_default: bool) -> dg.DefaultScheduleStatus:
        """Return the initial state of a schedule. Later, its state is what was last set in the UI."""
        return dg.DefaultScheduleStatus(self.automation.upper() or ("RUNNING" if runs_by_default else "STOPPED"))

    def sensor_status(self, *, runs_by_default: bool) -> dg.DefaultSensorStatus:
        """Return the initial state of a sensor, as `schedule_status` does that of a schedule."""
        return dg.DefaultSensorStatus(self.schedule_status(runs_by_default=runs_by_default).value)

    # Cached, because Dagster computes a thousand ticks of the schedule to check a policy.
    @cached_property
    def freshness(self) -> dg.FreshnessPolicy:
        """For the UI's health badge, which knows only when an asset was last materialized.

        The asset checks look at the newest day of each instance.
        """
        return dg.FreshnessPolicy.cron(self.due_cron, lower_bound_delta=timedelta(hours=23))

    @property
    def fetched_tables(self) -> tuple[str, ...]:
        """The tables that the daily run fetches from the API."""
        fetched = {*RAW_NAMES, CAMPAIGNS_TABLE, *PERIODS_TABLES}
        return tuple(name for name in self.tables if name in fetched)

    def refetch_ages(self, today: date) -> list[int]:
        """Return the ages, in days, at which old days are fetched again."""
        return refetch_ages(self.lookback_days, self.refetch_factor, oldest=(today - self.start_date).days)

    def expected_days(self, now: datetime) -> list[date]:
        """Return the days that have to be in the lake: every day from the start date to the newest due day."""
        return expected_days(now, start_date=self.start_date, due_hour_utc=self.due_hour_utc)

    def settled_days(self, now: datetime) -> list[date]:
        """Return the expected days that the daily schedule no longer fetches again each day."""
        newest = newest_day(now) - timedelta(days=self.lookback_days)
        return [day for day in self.expected_days(now) if day <= newest]

    def asset_key(self, table_name: str) -> dg.AssetKey:
        """Return the key of the asset of a table, or of the report."""
        return dg.AssetKey([*(self.key_prefix or (self.name,)), table_name])

    def op_name(self, table_name: str) -> str:
        """Return the name of the step that materializes an asset: its key, joined by two underscores."""
        return "__".join(self.asset_key(table_name).path)

    @property
    def posts_job_name(self) -> str:
        """The name of the job that fetches the raw tables."""
        return f"{self.name}_posts"

    def rollups(self, tables: Iterable[RollupTable]) -> list[RollupTable]:
        """Return those of the rollups that are defined, with the selected metrics."""
        return [table.with_metrics(self.metrics) for table in tables if table.name in self.tables]

    def dependencies(self, *table_names: str) -> list[dg.AssetKey]:
        """Return the keys of the tables that are defined; of all if none is: another code location may define them."""
        names = dict.fromkeys(table_names)
        return [self.asset_key(name) for name in [name for name in names if name in self.tables] or names]

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
        if final.partitions_def != spec.partitions_def:
            raise dg.DagsterInvalidDefinitionError(
                f"get_asset_spec or translation changed the partitions of {spec.key.to_user_string()}, which are those"
                " of its files: set start_date, which changes the first one"
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
        return self.spec(spec.with_io_manager_key(self.lake_key))


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
